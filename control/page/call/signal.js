// The signalling connection: JSON-RPC over one WebSocket, as ion-sfu's clients speak it.
// Owns the socket and the requests that await a reply. Knows nothing of peer connections.
//
// Emits `notification` (method, params) and, once, `close` (code, reason).

import { Emitter } from "./emitter.js";

/** A request that the server refused. */
export class RpcError extends Error {
  constructor({ code, message }) {
    super(String(message ?? "refused without a reason"));
    this.code = code;
  }
}

export class Signal extends Emitter {
  #socket;
  #waiting = new Map();
  #next_id = 1;

  /** Resolves when the socket is open. */
  static open(url) {
    return new Promise((resolve, reject) => {
      const socket = new WebSocket(url);
      const timer = setTimeout(() => socket.close(), OPEN_TIMEOUT_MS);
      socket.onclose = () => {
        clearTimeout(timer);
        reject(new Error("The server cannot be reached."));
      };
      socket.onopen = () => {
        clearTimeout(timer);
        resolve(new Signal(socket));
      };
    });
  }

  constructor(socket) {
    super();
    this.#socket = socket;
    socket.onmessage = ({ data }) => this.#handle_text(data);
    socket.onclose = ({ code, reason }) => this.#handle_close(code, reason);
  }

  /** Resolves with the result of a request, or rejects with an `RpcError`. */
  call(method, params) {
    const id = this.#next_id++;
    return new Promise((resolve, reject) => {
      const timer = setTimeout(() => this.#settle(id, { error: { message: `no reply to ${method}` } }), CALL_TIMEOUT_MS);
      this.#waiting.set(id, { resolve, reject, timer });
      this.#send({ id, method, params });
    });
  }

  /** Says something that gets no reply. */
  notify(method, params) {
    this.#send({ method, params });
  }

  close() {
    this.#socket.close(1000);
  }

  #send(message) {
    if (this.#socket.readyState === WebSocket.OPEN) this.#socket.send(JSON.stringify(message));
  }

  #handle_text(text) {
    let message;
    try {
      message = JSON.parse(text);
    } catch {
      return;
    }
    if (typeof message?.method === "string") this.emit("notification", message.method, message.params ?? {});
    else if (message?.id != null) this.#settle(message.id, message);
  }

  #settle(id, { result, error }) {
    const waiting = this.#waiting.get(id);
    if (!waiting) return;
    this.#waiting.delete(id);
    clearTimeout(waiting.timer);
    if (error) waiting.reject(new RpcError(error));
    else waiting.resolve(result);
  }

  #handle_close(code, reason) {
    for (const id of [...this.#waiting.keys()]) this.#settle(id, { error: { message: "the connection was lost" } });
    this.emit("close", code, reason);
  }
}

const OPEN_TIMEOUT_MS = 8000;
const CALL_TIMEOUT_MS = 15_000;
