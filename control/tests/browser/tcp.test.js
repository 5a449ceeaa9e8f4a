// ICE-TCP: media for those whom UDP does not reach, and between UDP and TCP when one of them fails.

import assert from 'node:assert/strict';
import { after } from 'node:test';
import { everybodySeesEverybody, received } from './lib/core.js';
import { Forward } from './lib/forward.js';
import { roomTest, start } from './lib/harness.js';
import { seed } from './lib/random.js';
import { Relay } from './lib/relay.js';
import { until } from './lib/until.js';

/** What clients are told. Only what is carried from there to the server gets through. */
const OUTSIDE = '127.0.0.19';
const ends = [];
after(() => ends.forEach((end) => end.close()));

let behind;
/** A server that TCP alone leads to; its room is spread over both workers. */
async function behindTcp() {
  behind ??= (async () => {
    const server = await start({ announce: OUTSIDE, args: ['--spread-after', '2'] });
    server.forward = await Forward.start({ address: OUTSIDE, target: '127.0.0.1', port: server.mediaPorts[0] });
    ends.push(server.forward);
    return server;
  })();
  return behind;
}

/** The protocols that a peer's two connections use now. */
async function protocols(peer) {
  const local = await Promise.all([0, 1].map((role) => peer.call('localCandidate', role)));
  return local.map(({ protocol }) => protocol).join();
}

roomTest('peers that no UDP reaches see and hear each other, and talk over channels', async (room) => {
  const peers = await everybodySeesEverybody(room);
  for (const viewer of peers) assert.equal(await protocols(viewer), 'tcp,tcp');
  const [red, green, blue] = peers;
  await red.call('openChannel', 'chat');
  for (const peer of [green, blue]) await until('the channel', () => peer.call('received', 'chat'));
  await red.call('send', 'chat', 'by TCP');
  for (const peer of [green, blue]) assert.deepEqual(await received(peer, 'chat', 1), [{ text: 'by TCP' }]);
  const metrics = await room.server.metrics();
  assert.ok(metrics.ringmain_stream_ice_connections >= 6, 'two connections of each peer');
  assert.equal(metrics.ringmain_stream_queue_full_total, 0);
}, { serverOf: behindTcp });

roomTest('a connection that breaks is made anew, and the call goes on', async (room) => {
  const [alice, bob] = [await room.join('alice'), await room.join('bob')];
  const stream = await alice.call('publish', 'main', { hue: 0, tone: 440 });
  await bob.decodes(stream, { frames: 10 });
  for (let times = 0; times < 2; times += 1) {
    room.server.forward.cut();
    await until('the connections to be gone', () => room.server.forward.count === 0 || room.server.forward.count > 3);
    await bob.decodes(stream, { frames: 40, timeout: 30_000 });
  }
  assert.equal(await protocols(bob), 'tcp,tcp');
}, { serverOf: behindTcp });

let both;
/** A server that UDP leads to as long as its relay lets it, and TCP always. */
async function behindBoth() {
  both ??= (async () => {
    const server = await start({ announce: '127.0.0.20', workers: 1 });
    const way = { address: '127.0.0.20', target: '127.0.0.1' };
    server.relay = await Relay.start({ ...way, ports: server.mediaPorts, seed });
    ends.push(server.relay, await Forward.start({ ...way, port: server.mediaPorts[0] }));
    return server;
  })();
  return both;
}

roomTest('a call goes by UDP while it can, by TCP when UDP dies, and back', async (room) => {
  const { relay } = room.server;
  const [alice, bob] = [await room.join('alice'), await room.join('bob')];
  const stream = await alice.call('publish', 'main', { hue: 120, tone: 440 });
  await bob.decodes(stream, { frames: 10 });
  const become = (wanted, timeout) =>
    until(`both to go by ${wanted}`, async () => (await protocols(alice)) === wanted && (await protocols(bob)) === wanted, {
      timeout,
      show: async () => [await protocols(alice), await protocols(bob)],
    });
  await become('udp,udp', 15_000);
  relay.loss = { up: 1, down: 1 };
  await become('tcp,tcp', 20_000);
  await bob.decodes(stream, { frames: 40, timeout: 20_000 });
  relay.loss = { up: 0, down: 0 };
  await become('udp,udp', 60_000);
  await bob.decodes(stream, { frames: 40 });
}, { serverOf: behindBoth, timeout: 180_000 });
