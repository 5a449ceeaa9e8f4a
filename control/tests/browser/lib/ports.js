// Ports that are free now: each is bound once and let go.

import dgram from 'node:dgram';
import net from 'node:net';

// Below those that the kernel gives to anybody, and each given once: nobody takes one before its server has it.
let next = 20000 + Math.floor(Math.random() * 10000);

/** A run of `count` neighbouring ports that are free for UDP and TCP on every loopback address; gives them all. */
export async function freePorts(count) {
  for (;;) {
    const ports = Array.from({ length: count }, (_, index) => next + index);
    next = next + count > 32000 ? 20000 : next + count;
    if ((await Promise.all(ports.flatMap((port) => [udpIsFree(port), tcpIsFree(port)]))).every(Boolean)) return ports;
  }
}

/** One such port. */
export async function freePort() {
  return (await freePorts(1))[0];
}

async function tcpIsFree(port) {
  const server = net.createServer();
  return new Promise((resolve) => {
    server.once('error', () => resolve(false));
    server.listen(port, '0.0.0.0', () => server.close(() => resolve(true)));
  });
}

async function udpIsFree(port) {
  const socket = dgram.createSocket('udp4');
  try {
    return await new Promise((resolve) => {
      socket.once('error', () => resolve(false));
      socket.bind({ port, address: '0.0.0.0', exclusive: true }, () => resolve(true));
    });
  } finally {
    socket.close();
  }
}
