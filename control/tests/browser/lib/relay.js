// A UDP relay between clients and the server that loses packets, each way by itself, from a seed.
// It listens on `address` at the very ports of the server's workers, so the server only has to announce `address` instead
// of its own. Each client gets one upstream socket per worker port: to the server, clients stay distinct.

import dgram from 'node:dgram';
import { generator } from './random.js';

export class Relay {
  /** Relays `address:port` to `target:port` for each of `ports`. */
  static async start({ address, target, ports, seed }) {
    const relay = new Relay(target, seed);
    for (const port of ports) await relay.#listen(address, port);
    return relay;
  }

  /** The part of packets to lose, 0 to 1, from clients (`up`) and to clients (`down`); 1 is a blackout. */
  loss = { up: 0, down: 0 };
  /** What was relayed and what was lost. */
  counts = { up: 0, down: 0, lostUp: 0, lostDown: 0 };

  #target;
  #sockets = [];
  #random;

  constructor(target, seed) {
    this.#target = target;
    this.#random = { up: generator(seed), down: generator(seed ^ 0x5bd1e995) };
  }

  async #listen(address, port) {
    const front = await bound(address, port);
    const clients = new Map();
    this.#sockets.push(front);
    front.on('message', (packet, from) => {
      const key = `${from.address}:${from.port}`;
      let upstream = clients.get(key);
      if (!upstream) {
        upstream = bound(this.#target, 0).then((socket) => {
          this.#sockets.push(socket);
          socket.on('message', (reply) => {
            if (this.#passes('down', 'lostDown')) front.send(reply, from.port, from.address);
          });
          return socket;
        });
        clients.set(key, upstream);
      }
      if (this.#passes('up', 'lostUp')) upstream.then((socket) => socket.send(packet, port, this.#target));
    });
  }

  #passes(way, lost) {
    if (this.#random[way]() < this.loss[way]) {
      this.counts[lost] += 1;
      return false;
    }
    this.counts[way] += 1;
    return true;
  }

  close() {
    for (const socket of this.#sockets.splice(0)) socket.close();
  }
}

function bound(address, port) {
  return new Promise((resolve, reject) => {
    // A burst of video must not be lost here: losses are the relay's to choose.
    const socket = dgram.createSocket({ type: 'udp4', recvBufferSize: 4 << 20, sendBufferSize: 4 << 20 });
    socket.once('error', reject);
    socket.bind(port, address, () => {
      socket.off('error', reject);
      // What a closed port answers must not end the run.
      socket.on('error', () => {});
      resolve(socket);
    });
  });
}
