// Cases that must hold on every link, whatever moves the packets.

import assert from 'node:assert/strict';
import { roomTest } from './harness.js';
import { sleep, until } from './until.js';

/** Declares the core cases for the servers that `serverOf` gives; `where` ends their names. */
export function coreTests(where, serverOf) {
  roomTest(`three peers all see and hear each other${where}`, everybodySeesEverybody, { serverOf });
  roomTest(`data channels carry text and bytes to all others${where}`, channelsReachOthers, { serverOf });
}

/** The colours that peers paint, and the channel of RGB that they are. */
const COLOURS = [
  { uid: 'red', hue: 0, channel: 0 },
  { uid: 'green', hue: 120, channel: 1 },
  { uid: 'blue', hue: 240, channel: 2 },
];

/** Three peers publish, and each sees and hears the two others, and nothing of its own. Gives the peers. */
export async function everybodySeesEverybody(room) {
  const peers = [];
  for (const { uid, hue } of COLOURS) {
    const peer = await room.join(uid);
    peer.stream = await peer.call('publish', 'main', { hue, tone: 400 + hue });
    peers.push(peer);
  }
  for (const viewer of peers) {
    for (const [index, shown] of peers.entries()) {
      if (shown === viewer) continue;
      await viewer.decodes(shown.stream, { frames: 10 });
      await viewer.hears(shown.stream);
      await showsColour(viewer, shown.stream, COLOURS[index].channel);
      await moves(viewer, shown.stream);
    }
    const streams = await viewer.call('remoteStreams');
    assert.equal(streams.length, 2, `${viewer.uid} gets what the two others publish, and nothing of its own`);
  }
  return peers;
}

/** The picture, read back from a canvas, is mostly of this channel of RGB: it is the right peer's. */
function showsColour(viewer, stream, channel) {
  return until(
    `${viewer.uid} to see channel ${channel} dominate`,
    async () => {
      const { mean } = await viewer.call('picture', stream);
      return mean.every((value, index) => index === channel || value + 40 < mean[channel]);
    },
    { show: async () => (await viewer.call('picture', stream)).mean },
  );
}

/** The picture changes while one looks at it. */
async function moves(viewer, stream) {
  const before = (await viewer.call('picture', stream)).pixels;
  await until(`the picture of ${stream} to move for ${viewer.uid}`, async () => {
    const now = (await viewer.call('picture', stream)).pixels;
    return now.filter((value, index) => Math.abs(value - before[index]) > 24).length > 10;
  });
}

async function channelsReachOthers(room) {
  const [alice, bob, carol] = [await room.join('alice'), await room.join('bob'), await room.join('carol')];
  await alice.call('openChannel', 'chat');
  for (const peer of [bob, carol]) {
    await until(`${peer.uid} to get the channel`, () => peer.call('received', 'chat'));
  }
  await alice.call('send', 'chat', 'good morning ☀');
  await alice.call('send', 'chat', [0, 1, 2, 254, 255]);
  const expected = [{ text: 'good morning ☀' }, { bytes: [0, 1, 2, 254, 255] }];
  for (const peer of [bob, carol]) assert.deepEqual(await received(peer, 'chat', 2), expected);

  await bob.call('send', 'chat', 'and to you');
  assert.deepEqual(await received(alice, 'chat', 1), [{ text: 'and to you' }], 'the creator gets it on his own channel');
  assert.deepEqual((await received(carol, 'chat', 3))[2], { text: 'and to you' });

  const dave = await room.join('dave');
  await until('the late joiner to get the channel', () => dave.call('received', 'chat'));
  await carol.call('send', 'chat', 'welcome');
  assert.deepEqual(await received(dave, 'chat', 1), [{ text: 'welcome' }]);
  await dave.call('send', 'chat', 'thanks');
  assert.deepEqual((await received(alice, 'chat', 3)).at(-1), { text: 'thanks' });
  await sleep(200);
  assert.equal((await alice.call('received', 'chat')).length, 3, 'nobody gets what he sent himself');
}

/** What a peer received on a channel, once it is `count` messages. */
export function received(peer, label, count) {
  return until(
    `${peer.uid} to receive ${count} messages on ${label}`,
    async () => {
      const messages = await peer.call('received', label);
      return messages?.length >= count && messages;
    },
    { show: () => peer.call('received', label) },
  );
}
