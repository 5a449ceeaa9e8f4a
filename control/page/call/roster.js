// Who is in the room and what of theirs arrives: peers by uid, their streams by id.
// Owns the joining of three sources that come in any order: `peerevent`, `trackevent` (whose stream is it?) and the
// media itself. Knows nothing of the connection.

const NAME_LENGTH_MAX = 48;
const ORPHANS_MAX = 256;
const SAID_MAX = 2000;

export class Roster {
  #peers = new Map();
  #owners = new Map();
  #streams = new Map();
  #said = new Map();
  #self;

  constructor(self_uid) {
    this.#self = self_uid;
  }

  get peers() {
    return [...this.#peers.values()];
  }

  get others() {
    return this.peers.filter(({ uid }) => uid !== this.#self);
  }

  peer(uid) {
    return this.#peers.get(uid);
  }

  /** The peer whose stream this is. */
  owner(stream_id) {
    return this.#peers.get(this.#owners.get(stream_id)?.uid);
  }

  /** Media that arrives of a peer, in the order in which it was published, each `{stream, kind}`. */
  media(peer) {
    return this.all_media().get(peer.uid) ?? [];
  }

  /** The same of everyone who sends, by uid. */
  all_media() {
    const all = new Map();
    for (const [id, { uid }] of this.#owners) {
      const [stream, peer] = [this.#streams.get(id), this.#peers.get(uid)];
      if (!stream || !peer) continue;
      const media = all.get(uid) ?? [];
      media.push({ stream, kind: this.#kind(peer, id, media.length) });
      all.set(uid, media);
    }
    return all;
  }

  joined(rows) {
    const fresh = [];
    for (const { uid, info } of rows) {
      if (typeof uid !== "string") continue;
      const known = this.#peers.get(uid);
      const peer = known ?? { uid, audio: false, video: false, streams: {}, speaking: false };
      peer.name = display_name(info?.name, uid);
      peer.self = uid === this.#self;
      this.#peers.set(uid, peer);
      this.#judge(uid);
      if (!known) fresh.push(peer);
    }
    return fresh;
  }

  left(rows) {
    const gone = rows.map(({ uid }) => this.#peers.get(uid)).filter(Boolean);
    for (const { uid } of gone) {
      this.#peers.delete(uid);
      this.#said.delete(uid);
      for (const [id, owner] of [...this.#owners]) {
        if (owner.uid === uid) this.#owners.delete(id);
      }
    }
    return gone;
  }

  /** What a peer says of itself, which may come before the server says that there is such a peer. */
  heard(uid, { audio, video, streams }) {
    this.#said.set(uid, { audio, video, streams });
    if (this.#said.size > SAID_MAX) this.#said.delete(this.#said.keys().next().value);
    this.#judge(uid);
  }

  published(rows) {
    for (const { uid, streamId, trackId, kind } of rows) {
      const owner = this.#owners.get(streamId) ?? { uid, tracks: new Map() };
      owner.tracks.set(trackId, kind);
      this.#owners.set(streamId, owner);
      this.#judge(uid);
    }
  }

  unpublished(rows) {
    for (const { streamId, trackId } of rows) {
      const owner = this.#owners.get(streamId);
      owner?.tracks.delete(trackId);
      if (owner && owner.tracks.size === 0) {
        this.#owners.delete(streamId);
        this.#streams.delete(streamId);
      }
      if (owner) this.#judge(owner.uid);
    }
  }

  arrived(stream) {
    this.#streams.set(stream.id, stream);
    // Streams whose owner never becomes known are bounded like everything else.
    if (this.#streams.size > ORPHANS_MAX) this.#streams.delete(this.#streams.keys().next().value);
  }

  ended(stream) {
    if (stream.getTracks().length === 0) this.#streams.delete(stream.id);
  }

  /** Marks who speaks; says whether that is news. */
  speaking(stream_ids) {
    const loud = new Set(stream_ids.map((id) => this.#owners.get(id)?.uid));
    let changed = false;
    for (const peer of this.#peers.values()) {
      changed ||= peer.speaking !== loud.has(peer.uid);
      peer.speaking = loud.has(peer.uid);
    }
    return changed;
  }

  /** What of a peer is on: as it says, or, of clients that say nothing, as what they publish suggests. */
  #judge(uid) {
    const peer = this.#peers.get(uid);
    if (!peer || peer.self) return;
    const owned = [...this.#owners.values()].filter((owner) => owner.uid === uid);
    const kinds = new Set(owned.flatMap(({ tracks }) => [...tracks.values()]));
    const guess = { audio: kinds.has("audio"), video: kinds.has("video"), streams: {} };
    Object.assign(peer, this.#said.get(uid) ?? guess);
  }

  /** The first stream of a peer is its camera and microphone, unless it has said otherwise. */
  #kind(peer, stream_id, index) {
    const said = peer.streams[stream_id];
    if (said === "screen" || said === "camera") return said;
    return index === 0 ? "camera" : "screen";
  }
}

/** A name fit to be shown: of bounded length, on one line, never empty. */
export function display_name(name, uid) {
  const text = typeof name === "string" ? name.replace(/[\p{Cc}\p{Cf}\s]+/gu, " ").trim() : "";
  return [...(text || `Guest ${uid.slice(0, 4)}`)].slice(0, NAME_LENGTH_MAX).join("");
}
