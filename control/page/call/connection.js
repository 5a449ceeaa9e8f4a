// One stay in a room: a signalling connection and the two peer connections that hang on it, from joining to the first
// loss that they cannot mend themselves. A stay is never resumed; `Room` begins another.
//
// Emits `peers` (state, rows), `tracks` (state, rows), `track`, `ended`, `speakers`, `layer`, `message`, `message_open`,
// `api_open`, `media` (whether media flows), and, once, `lost` ({why, final}).

import { Emitter } from "./emitter.js";
import { Publisher } from "./publisher.js";
import { RpcError, Signal } from "./signal.js";
import { Subscriber } from "./subscriber.js";

export class Connection extends Emitter {
  #signal = null;
  #over = false;
  #connected = false;
  #timers = new Map();

  /** Whether the room has let us in. */
  joined = false;
  publisher;
  subscriber = new Subscriber();

  /** @param {string} codec the video codec to send */
  constructor(codec) {
    super();
    this.publisher = new Publisher((desc) => this.#signal.call("offer", { desc }), codec);
    this.#wire();
  }

  /** Resolves when the room has let us in; media follows. */
  async join({ url, sid, uid, info }) {
    this.#signal = await Signal.open(url);
    if (this.#over) {
      this.#signal.close();
      throw new Error("The room was left.");
    }
    this.#signal.on("notification", (method, params) => this.#handle_notification(method, params));
    this.#signal.on("close", (code, reason) => this.#handle_close(code, reason));
    this.#after("media", MEDIA_TIMEOUT_MS, () => this.#lose(
      "The server lets us in, but media does not get through. Its UDP ports may be blocked, or it announces an address "
      + "that cannot be reached from here.",
    ));
    await this.#use_relays();
    await this.publisher.connect((offer) => this.#signal.call("join", { sid, uid, offer, info }));
    this.joined = true;
  }

  /** Ends the stay from our side. */
  close() {
    this.#over = true;
    this.silence();
    for (const timer of this.#timers.values()) clearTimeout(timer);
    this.publisher.close();
    this.subscriber.close();
    this.#signal?.close();
  }

  /** The server's relays, for a network that lets nothing else through. A server without them lends none. */
  async #use_relays() {
    try {
      const { iceServers } = await this.#signal.call("iceServers");
      if (iceServers?.length) for (const side of [this.publisher, this.subscriber]) side.use_relays(iceServers);
    } catch (error) {
      if (!(error instanceof RpcError)) throw error;
    }
  }

  #wire() {
    const { publisher, subscriber } = this;
    publisher.on("candidate", (candidate) => this.#trickle(0, candidate));
    subscriber.on("candidate", (candidate) => this.#trickle(1, candidate));
    publisher.on("state", (state) => this.#handle_publisher(state));
    subscriber.on("state", (state) => this.#handle_subscriber(state));
    publisher.on("open", () => this.emit("message_open"));
    publisher.on("message", (text) => this.emit("message", text));
    for (const name of ["track", "ended", "speakers", "layer", "message", "api_open"]) {
      subscriber.on(name, (...values) => this.emit(name, ...values));
    }
  }

  #handle_notification(method, params) {
    if (method === "offer") this.#handle_offer(params);
    else if (method === "trickle" && params.candidate) {
      (params.target === 1 ? this.subscriber : this.publisher).add_candidate(params.candidate);
    } else if (method === "peerevent") this.emit("peers", params.state, params.peers ?? []);
    else if (method === "trackevent") this.emit("tracks", params.state, params.tracks ?? []);
  }

  async #handle_offer(offer) {
    try {
      this.#signal.notify("answer", { desc: await this.subscriber.answer(offer) });
    } catch (error) {
      if (!this.#over) console.warn("an offer of the server was not understood", error);
    }
  }

  #trickle(target, candidate) {
    if (candidate) this.#signal?.notify("trickle", { target, candidate: candidate.toJSON() });
  }

  /** Our own path: we restart ICE ourselves, soon after it breaks. */
  #handle_publisher(state) {
    if (state === "connected") this.#cancel("restart");
    if (state === "disconnected") this.#after("restart", RESTART_DELAY_MS, () => this.#restart());
    if (state === "failed") this.#restart();
    this.#judge();
  }

  /** The server restarts this one; we only give up when it takes too long. */
  #handle_subscriber() {
    this.#judge();
  }

  #restart() {
    this.#after("restart", RESTART_AGAIN_MS, () => this.#restart());
    this.publisher.restart().catch((error) => {
      if (!this.#over) console.warn("ICE restart was refused", error);
    });
  }

  #judge() {
    const good = [this.publisher, this.subscriber].every(({ state }) => state === "connected");
    if (good) this.#cancel("media");
    else if (this.#connected) this.#after_once("media", MEND_TIMEOUT_MS, () => this.#lose("Media stopped flowing."));
    if (good !== this.#connected) {
      this.#connected = good;
      this.emit("media", good);
    }
  }

  #handle_close(code, reason) {
    const [why, final] = CLOSED[code] ?? [reason || "The connection to the server was lost.", false];
    this.#lose(why, final);
  }

  #lose(why, final = false) {
    if (this.#over) return;
    this.#over = true;
    this.emit("lost", { why, final });
    this.close();
  }

  #after(name, delay_ms, step) {
    this.#cancel(name);
    this.#timers.set(name, setTimeout(() => {
      this.#timers.delete(name);
      if (!this.#over) step();
    }, delay_ms));
  }

  #after_once(name, delay_ms, step) {
    if (!this.#timers.has(name)) this.#after(name, delay_ms, step);
  }

  #cancel(name) {
    clearTimeout(this.#timers.get(name));
    this.#timers.delete(name);
  }
}

/** Whether an error of joining will be the same next time: the server was reached and refused what we asked. */
export function is_final(error) {
  return error instanceof RpcError && FINAL_CODES.has(error.code);
}

// What the server's own close codes mean to a person; the second says whether coming back would only repeat it.
const CLOSED = {
  1001: ["The server is restarting.", false],
  1008: ["The server closed the connection: too many requests.", true],
  1013: ["The connection was too slow for the room.", false],
  4001: ["You joined this room again somewhere else.", true],
  4002: ["Media stopped flowing.", false],
};

// Invalid parameters, SDP refused, room full, too many tracks.
const FINAL_CODES = new Set([-32600, -32602, -32003, -32006, -32008]);

const MEDIA_TIMEOUT_MS = 20_000;
const MEND_TIMEOUT_MS = 20_000;
const RESTART_DELAY_MS = 2000;
const RESTART_AGAIN_MS = 6000;
