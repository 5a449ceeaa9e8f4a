// What the pages tell each other over the user channel, which the server passes on unread: chat lines, and who is muted.
// Owns the grammar and its bounds. What comes in was written by a stranger: each message is checked, or dropped.
//
// | type | members | meaning |
// | --- | --- | --- |
// | chat | text | a line for everyone |
// | state | audio, video, streams | what of the sender is on, and which of its streams (by id) is "camera" or "screen" |
// | hello | none | the sender is new: say your state |

/** A message as text. */
export function write(type, uid, members = {}) {
  return JSON.stringify({ type, id: random_id(), uid, ...members });
}

/** Reads messages of others, each once: one may come in by two channels. */
export class Reader {
  #seen = new Set();

  /** The message, or null when it is none. */
  read(text) {
    if (typeof text !== "string" || text.length > TEXT_SIZE_MAX) return null;
    let message;
    try {
      message = JSON.parse(text);
    } catch {
      return null;
    }
    const named = typeof message?.id === "string" && typeof message.uid === "string" && message.id.length <= ID_LENGTH_MAX;
    if (!named || this.#seen.has(message.id)) return null;
    this.#remember(message.id);
    return READERS.get(message.type)?.(message) ?? null;
  }

  #remember(id) {
    this.#seen.add(id);
    if (this.#seen.size > SEEN_MAX) this.#seen.delete(this.#seen.values().next().value);
  }
}

// A map and not an object: what strangers name must not find what objects inherit.
const READERS = new Map([
  ["chat", ({ uid, text }) => {
    const line = typeof text === "string" ? text.slice(0, CHAT_LENGTH_MAX).trim() : "";
    return line ? { type: "chat", uid, text: line } : null;
  }],
  ["state", ({ uid, audio, video, streams }) => ({
    type: "state",
    uid,
    audio: audio === true,
    video: video === true,
    streams: Object.fromEntries(Object.entries(streams ?? {}).slice(0, STREAMS_MAX)),
  })],
  ["hello", ({ uid }) => ({ type: "hello", uid })],
]);

/** 64 random bits. `crypto.randomUUID` is missing where the page was not loaded securely. */
export function random_id() {
  return [...crypto.getRandomValues(new Uint8Array(8))].map((byte) => byte.toString(16).padStart(2, "0")).join("");
}

/** Characters of a chat line. */
export const CHAT_LENGTH_MAX = 2000;
const TEXT_SIZE_MAX = 16 * 1024;
const ID_LENGTH_MAX = 64;
const STREAMS_MAX = 8;
const SEEN_MAX = 1000;
