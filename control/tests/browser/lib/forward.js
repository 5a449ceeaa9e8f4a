// A TCP forwarder between clients and the server, at an address where nothing else is: clients that are told this address get through by
// TCP, and by UDP not at all.

import net from 'node:net';

export class Forward {
  /** Carries connections to `address:port` on to `target:port`. */
  static async start({ address, target, port }) {
    const forward = new Forward();
    forward.#server = net.createServer((client) => {
      const server = net.connect(port, target);
      for (const [from, to] of [[client, server], [server, client]]) {
        from.setNoDelay(true);
        from.on('error', () => to.destroy());
        from.on('close', () => {
          forward.#open.delete(from);
          to.destroy();
        });
        forward.#open.add(from);
        from.pipe(to);
      }
    });
    await new Promise((resolve, reject) => forward.#server.once('error', reject).listen(port, address, resolve));
    return forward;
  }

  #server;
  #open = new Set();

  /** Connections of clients that are open. */
  get count() {
    return this.#open.size / 2;
  }

  /** Ends every connection; new ones get through. */
  cut() {
    for (const socket of this.#open) socket.destroy();
  }

  close() {
    this.#server.close();
    this.cut();
  }
}
