// What most tests share: one server, a room of their own each, and the check afterwards that the server is well.

import { after, test } from 'node:test';
import { Peer, closeBrowser } from './browser.js';
import { seed } from './random.js';
import { Server } from './server.js';
import { until } from './until.js';

let shared;
const open = new Set();
let rooms = 0;

/** The server that tests share; started at the first call. TEST_SERVER_ARGS tries the tests with other settings. */
export function sharedServer() {
  shared ??= start({ args: (process.env.TEST_SERVER_ARGS ?? '').split(' ').filter(Boolean) });
  return shared;
}

/** A server for one file's tests, ended with the others. */
export async function start(options) {
  const server = await Server.start(options);
  open.add(server);
  return server;
}

/** One room of a server. Peers that join through it are closed when the test ends. */
class Room {
  constructor(server) {
    this.server = server;
    rooms += 1;
    this.sid = `room-${rooms}`;
    this.peers = [];
  }

  /** Lets a peer join; with `relay`, by those of the server's relays only whose URLs match it. */
  async join(uid, config, relay) {
    const peer = await Peer.open(this.server, uid, relay);
    this.peers.push(peer);
    await peer.call('join', this.sid, uid, config);
    return peer;
  }

  /** Lets a peer join that only receives. */
  async joinToReceive(uid, config) {
    const peer = await Peer.open(this.server, uid);
    this.peers.push(peer);
    peer.joined = await peer.call('joinToReceive', this.sid, uid, config);
    return peer;
  }

  async close() {
    await Promise.all(this.peers.map((peer) => peer.close()));
  }
}

/** A test in a room of its own on a server (`serverOf` gives it): `body(room, t)`. */
export function roomTest(name, body, { serverOf = sharedServer, timeout = 90_000 } = {}) {
  test(name, { timeout }, async (t) => {
    const server = await serverOf();
    const room = new Room(server);
    try {
      await body(room, t);
      server.assertAlive();
    } catch (error) {
      const peers = await Promise.all(room.peers.map((peer) => peer.describe().catch(() => peer.uid)));
      const dropped = await server.metrics().then(
        (metrics) => Object.entries(metrics).filter(([name, value]) => value && /dropped_total\{|transports\{/.test(name)),
        (error) => error.message,
      );
      t.diagnostic(`seed ${seed} (TEST_SEED repeats it)`);
      t.diagnostic(`peers: ${JSON.stringify(peers)}`);
      t.diagnostic(`server: ${JSON.stringify(dropped)}\n${server.log(30)}`);
      throw error;
    } finally {
      await room.close();
    }
  });
}

/** Fails if a server keeps anything of the peers that are gone, or does not end well. */
after(async () => {
  await closeBrowser();
  const servers = [...open];
  open.clear();
  await Promise.all(
    servers.map(async (server) => {
      try {
        await until('all peers to be freed', async () => left(await server.metrics()).length === 0, {
          timeout: 45_000,
          show: async () => left(await server.metrics()),
        });
      } finally {
        await server.stop();
      }
    }),
  );
});

/** What a server still has, of things that live and die with peers. */
function left(metrics) {
  return Object.entries(metrics).filter(([name, value]) => value > 0 && OF_PEERS.includes(name));
}

const OF_PEERS = ['sfu_sessions', 'sfu_peers', 'sfu_audio_tracks', 'sfu_video_tracks', 'ringmain_transports', 'ringmain_subscriptions', 'ringmain_commands_waiting'];
