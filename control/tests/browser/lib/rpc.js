// Signalling without a browser: text frames out and in, as any client could send them.

import WebSocket from 'ws';
import { until } from './until.js';

export class Rpc {
  static async open(url) {
    const rpc = new Rpc();
    rpc.#socket = new WebSocket(url);
    rpc.#socket.on('message', (data) => rpc.messages.push(JSON.parse(data)));
    rpc.#socket.on('close', (code) => (rpc.closed = code));
    await new Promise((resolve, reject) => rpc.#socket.once('open', resolve).once('error', reject));
    return rpc;
  }

  /** Every message that came, oldest first. */
  messages = [];
  /** The close code, once it is closed. */
  closed;

  #socket;
  #next = 1;

  /** Sends text as it is. */
  raw(text) {
    this.#socket.send(text);
  }

  /** Sends a request and gives its whole reply. */
  async call(method, params, id = `request-${this.#next++}`) {
    this.raw(JSON.stringify({ method, params, id }));
    return until(`the reply to ${method}`, () => this.messages.find((message) => message.id === id && !message.method), {
      show: () => this.messages,
    });
  }

  close() {
    this.#socket.close();
  }

  /** Ends the connection without a closing handshake. */
  cut() {
    this.#socket.terminate();
  }
}
