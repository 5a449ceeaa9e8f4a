// The room, as the rest of the page sees it: it outlives connections. When one is lost another begins under the same
// uid, with the tracks that are on by then, after a growing pause.
// Owns the roster, the wishes and the current connection. Draws nothing.
//
// Emits `status` ({state, why}), `change` (who is there, or what of theirs), `speakers`, `chat` ({peer, text}),
// `joined` (peer), `left` (peer).

import { Backoff } from "./backoff.js";
import { Connection, is_final } from "./connection.js";
import { Emitter } from "./emitter.js";
import { random_id, Reader, write } from "./gossip.js";
import { Roster } from "./roster.js";

export class Room extends Emitter {
  #connection = null;
  #told_by = null;
  #backoff = new Backoff();
  #reader = new Reader();
  #wishes = new Map();
  #retry = null;
  #state_timer = null;
  #ends = [];

  /** One of idle, joining, connecting, live, reconnecting, over. */
  state = "idle";
  /** Layers by stream id, as the server last told. */
  layers = new Map();

  /**
   * @param {{sid: string, name: string, codec: string}} who
   * @param {import("../media/local.js").LocalMedia} local
   */
  constructor({ sid, name, codec }, local) {
    super();
    Object.assign(this, { sid, name, codec, local, uid: random_id() });
    this.roster = new Roster(this.uid);
    const online = () => this.#retry && this.#try_now();
    addEventListener("online", online);
    this.#ends = [
      () => removeEventListener("online", online),
      local.on("change", (slot) => this.#handle_local(slot)),
    ];
  }

  /** Resolves when the room has let us in; rejects when it did not, and then nothing is left running. */
  async join() {
    this.#become("joining");
    try {
      await this.#connect();
    } catch (error) {
      this.#over();
      throw error;
    }
  }

  leave() {
    this.#over();
    this.#become("over", "You left the room.");
  }

  /** What of a stream is wanted; kept over reconnections. */
  wish(stream_id, wanted) {
    const before = this.#wishes.get(stream_id);
    if (before?.video === wanted.video && before?.audio === wanted.audio) return;
    this.#wishes.set(stream_id, wanted);
    this.#connection?.subscriber.wish(stream_id, wanted);
  }

  /** Sends a chat line; false when it could not be. */
  say(text) {
    return this.#connection?.publisher.say(write("chat", this.uid, { text })) ?? false;
  }

  /** The statistics of both peer connections, publisher first; null while there are none. */
  async stats() {
    const connection = this.#connection;
    if (!connection) return null;
    const [sent, received] = await Promise.all([connection.publisher.stats(), connection.subscriber.stats()]);
    return connection === this.#connection ? { sent, received } : null;
  }

  async #connect() {
    const connection = new Connection(this.codec);
    this.#connection = connection;
    this.#listen(connection);
    const { local } = this;
    for (const [slot, { track, stream }] of Object.entries(local.slots)) {
      if (track) await connection.publisher.set(slot, track, stream);
    }
    try {
      await connection.join({ url: socket_url(), sid: this.sid, uid: this.uid, info: { name: this.name } });
    } catch (error) {
      connection.close();
      if (this.#connection === connection) this.#connection = null;
      throw error;
    }
    if (this.#connection === connection && this.state !== "live") this.#become("connecting");
  }

  #listen(connection) {
    for (const name of ["peers", "tracks", "track", "message"]) {
      connection.on(name, () => this.#begin(connection));
    }
    connection.on("peers", (state, rows) => this.#handle_peers(state, rows));
    connection.on("tracks", (state, rows) => {
      if (state === "remove") this.roster.unpublished(rows);
      else this.roster.published(rows);
      this.emit("change");
    });
    connection.on("track", (track, stream) => {
      this.roster.arrived(stream);
      const wanted = this.#wishes.get(stream.id);
      if (wanted) connection.subscriber.wish(stream.id, wanted);
      this.emit("change");
    });
    connection.on("ended", (track, stream) => {
      this.roster.ended(stream);
      this.emit("change");
    });
    connection.on("speakers", (ids) => this.roster.speaking(ids) && this.emit("speakers"));
    connection.on("layer", (layer) => {
      this.layers.set(layer.streamId, layer);
      this.emit("change");
    });
    connection.on("api_open", () => {
      for (const [id, wanted] of this.#wishes) connection.subscriber.wish(id, wanted);
    });
    connection.on("message_open", () => {
      connection.publisher.say(write("hello", this.uid));
      this.#tell_state();
    });
    connection.on("message", (text) => this.#handle_message(text));
    connection.on("media", (good) => {
      if (good) this.#backoff.reset();
      this.#become(good ? "live" : "reconnecting", good ? "" : "The path to the server is being restored.");
    });
    connection.on("lost", (loss) => this.#handle_lost(connection, loss));
  }

  #handle_peers(state, rows) {
    if (state === "leave") {
      for (const peer of this.roster.left(rows)) this.emit("left", peer);
    } else {
      for (const peer of this.roster.joined(rows)) this.emit("joined", peer);
    }
    this.emit("change");
  }

  #handle_message(text) {
    const message = this.#reader.read(text);
    if (!message || message.uid === this.uid) return;
    const peer = this.roster.peer(message.uid);
    if (message.type === "chat" && peer) this.emit("chat", { peer, text: message.text });
    if (message.type === "hello") this.#tell_state();
    if (message.type === "state") {
      this.roster.heard(message.uid, message);
      this.emit("change");
    }
  }

  /** A device went on or off: the connection follows, and the others are told. */
  async #handle_local(slot) {
    const { track, stream } = this.local.slots[slot];
    this.#tell_state();
    this.emit("change");
    try {
      await this.#connection?.publisher.set(slot, track, stream);
    } catch (error) {
      // A connection that ended meanwhile is no news; its successor takes the tracks as they are then.
      if (this.state === "live") this.emit("refused", error);
    }
  }

  /** Soon, and once for many reasons: a crowd that joins would otherwise have each answer each. */
  #tell_state() {
    if (this.#state_timer) return;
    this.#state_timer = setTimeout(() => {
      this.#state_timer = null;
      const { microphone_on, camera_on, stream, screen } = this.local;
      const streams = { [stream.id]: "camera", ...(screen && { [screen.id]: "screen" }) };
      const state = { audio: microphone_on, video: camera_on, streams };
      this.#connection?.publisher.say(write("state", this.uid, state));
    }, STATE_DELAY_MS * (1 + Math.random()));
  }

  #handle_lost(connection, { why, final }) {
    if (connection !== this.#connection) return;
    this.#connection = null;
    // Before that, `join` itself reports.
    if (!connection.joined) return;
    if (final) {
      this.#over();
      this.#become("over", why);
    } else {
      this.#wait(why);
    }
  }

  #wait(why) {
    this.#become("reconnecting", why);
    this.#retry = setTimeout(() => this.#try_now(), this.#backoff.next_ms());
  }

  async #try_now() {
    clearTimeout(this.#retry);
    this.#retry = null;
    try {
      await this.#connect();
    } catch (error) {
      if (this.state === "over") return;
      if (is_final(error)) {
        this.#over();
        this.#become("over", error.message);
      } else {
        this.#wait(error.message);
      }
    }
  }

  /** With the first news of a connection, what the one before it told is void; until then it stays in view. */
  #begin(connection) {
    if (this.#told_by === connection) return;
    this.#told_by = connection;
    this.roster = new Roster(this.uid);
    this.layers.clear();
  }

  #over() {
    clearTimeout(this.#retry);
    clearTimeout(this.#state_timer);
    this.#retry = null;
    for (const end of this.#ends.splice(0)) end();
    this.#connection?.close();
    this.#connection = null;
  }

  #become(state, why = "") {
    if (this.state === "over") return;
    this.state = state;
    this.emit("status", { state, why });
  }
}

function socket_url() {
  const url = new URL("ws", location.href);
  url.protocol = location.protocol === "https:" ? "wss:" : "ws:";
  url.search = "";
  url.hash = "";
  return url.href;
}

const STATE_DELAY_MS = 100;
