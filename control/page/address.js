// The page's own address, which names the room: `/?room=<name>`, and for trying things out `&codec=<VP8|VP9|H264|AV1>`.

const CODECS = ["VP8", "VP9", "H264", "AV1"];
const FIRST = ["amber", "brisk", "calm", "clear", "early", "fair", "gentle", "green", "keen", "light", "merry", "quiet", "still", "swift", "warm", "wide"];
const SECOND = ["bay", "brook", "cove", "dune", "field", "fjord", "glade", "grove", "harbour", "hill", "isle", "lake", "meadow", "reef", "ridge", "vale"];

/** Characters of a room's name. */
export const ROOM_LENGTH_MAX = 64;

/** The room that the address names, or "". */
export function room() {
  return (new URLSearchParams(location.search).get("room") ?? "").trim().slice(0, ROOM_LENGTH_MAX);
}

/** The video codec to send. */
export function codec() {
  const wanted = (new URLSearchParams(location.search).get("codec") ?? "").toUpperCase();
  return CODECS.includes(wanted) ? wanted : CODECS[0];
}

/** Makes the address name `sid`, so that reloading comes back to it. */
export function enter(sid) {
  const url = new URL(location.href);
  url.searchParams.set("room", sid);
  history.replaceState(null, "", url);
}

/** The link to send to others. */
export function invite(sid) {
  return new URL(`/?${new URLSearchParams({ room: sid })}`, location.href).href;
}

/** A name for a room that is easy to say and unlikely to be taken. */
export function suggestion() {
  const [a, b, c] = crypto.getRandomValues(new Uint16Array(3));
  return `${FIRST[a % FIRST.length]}-${SECOND[b % SECOND.length]}-${100 + (c % 900)}`;
}
