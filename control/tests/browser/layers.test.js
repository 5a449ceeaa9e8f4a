// Choosing what to receive: layers of a simulcast and muting.

import assert from 'node:assert/strict';
import { roomTest } from './lib/harness.js';
import { sleep, until } from './lib/until.js';

const SIMULCAST = { resolution: 'shd', simulcast: true, audio: false };

roomTest('a receiver chooses the layer of a simulcast, up and down', async (room, t) => {
  const alice = await room.join('alice');
  const stream = await alice.call('publish', 'camera', SIMULCAST);
  const bob = await room.join('bob');
  const carol = await room.join('carol');
  await bob.decodes(stream);
  await carol.decodes(stream);
  // Chromium sends the upper layers once it has measured the bandwidth for them.
  await until('all three layers to be sent', async () => {
    const sent = await alice.call('outbound');
    return sent.filter(({ framesPerSecond }) => framesPerSecond > 3).length === 3;
  }, { timeout: 30_000, show: async () => (await alice.call('outbound')).map(({ rid, framesPerSecond, frameWidth, qualityLimitationReason }) => ({ rid, framesPerSecond, frameWidth, qualityLimitationReason })) });

  for (const [layer, low, high] of [['low', 1, 240], ['high', 900, 960], ['medium', 400, 480], ['low', 1, 240], ['medium', 400, 480], ['high', 900, 960]]) {
    const began = Date.now();
    await bob.remote(stream, 'preferLayer', layer);
    const video = await until(`the width to become that of layer ${layer}`, async () => {
      const { video } = await bob.inbound(stream);
      return video.width >= low && video.width <= high && video;
    }, { timeout: 20_000, show: () => bob.describe() });
    t.diagnostic(`${layer}: ${video.width} wide after ${Date.now() - began} ms`);
    await bob.decodes(stream);
  }
  await bob.remote(stream, 'preferLayer', 'low');
  await carol.remote(stream, 'preferLayer', 'high');
  await until('each to get the layer he chose', async () => {
    const [low, high] = [await bob.inbound(stream), await carol.inbound(stream)];
    return low.video.width <= 240 && high.video.width >= 900;
  }, { timeout: 20_000, show: async () => [await bob.describe(), await carol.describe()] });
});

roomTest('a publisher announces its layers, and receivers are told', async (room) => {
  const alice = await room.join('alice');
  const stream = await alice.call('publish', 'camera', SIMULCAST);
  const bob = await room.join('bob');
  await bob.decodes(stream);
  await bob.remote(stream, 'preferLayer', 'high');

  // He is told of the layers that come and go by themselves, too.
  const before = (await bob.read('activeLayers')).length;
  // The SDK changes its three encodings at once, which Chromium may refuse; what it tells the server comes before that.
  await alice.page.evaluate(() => window.peer.locals.get('camera').enableLayers(['low']).catch(() => {}));
  const told = await until('bob to be told', async () =>
    (await bob.read('activeLayers')).slice(before).find(({ availableLayers }) => availableLayers.join() === 'low'), {
    show: () => bob.read('activeLayers'),
  });
  assert.equal(told.streamId, stream);
  assert.equal(told.activeLayer, 'low');
  await until('the width to become that of the low layer', async () => (await bob.inbound(stream)).video.width <= 240, {
    timeout: 20_000,
    show: () => bob.describe(),
  });
  await bob.decodes(stream);
});

roomTest('muting a remote stream stops its bytes, unmuting brings them back, each kind by itself', async (room) => {
  const alice = await room.join('alice');
  const bob = await room.join('bob');
  const carol = await room.join('carol');
  const stream = await alice.call('publish', 'main', { hue: 120, tone: 440 });
  await bob.decodes(stream);
  await bob.hears(stream);
  await bob.remote(stream, 'preferLayer', 'high');

  await bob.remote(stream, 'mute', 'video');
  await stops(bob, stream, 'video');
  await bob.hears(stream);
  await carol.decodes(stream);
  await bob.remote(stream, 'unmute', 'video');
  await bob.decodes(stream);

  await bob.remote(stream, 'mute', 'audio');
  await stops(bob, stream, 'audio');
  await bob.decodes(stream);
  await bob.remote(stream, 'unmute', 'audio');
  await bob.hears(stream);
});

/** Waits until no byte of this kind has come for a second. */
function stops(peer, stream, kind) {
  return until(`${kind} to stop for ${peer.uid}`, async () => {
    const before = (await peer.inbound(stream))[kind].bytesReceived;
    await sleep(1000);
    return (await peer.inbound(stream))[kind].bytesReceived === before;
  }, { show: () => peer.describe() });
}
