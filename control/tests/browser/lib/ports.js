// Ports that are free now: each is bound once and let go.

import dgram from 'node:dgram';
import net from 'node:net';

/** A run of `count` neighbouring ports that are free for UDP and TCP on every loopback address; gives them all. */
export async function freePorts(count) {
  for (;;) {
    const first = 20000 + Math.floor(Math.random() * 10000);
    const ports = Array.from({ length: count }, (_, index) => first + index);
    if ((await Promise.all(ports.flatMap((port) => [udpIsFree(port), tcpIsFree(port)]))).every(Boolean)) return ports;
  }
}

/** A free TCP port of 127.0.0.1. */
export async function freeTcpPort() {
  const server = net.createServer();
  await new Promise((resolve) => server.listen(0, '127.0.0.1', resolve));
  const { port } = server.address();
  await new Promise((resolve) => server.close(resolve));
  return port;
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
