// Data channels beyond the core cases: sizes and order.

import assert from 'node:assert/strict';
import { received } from './lib/core.js';
import { roomTest } from './lib/harness.js';
import { until } from './lib/until.js';

roomTest('data channels keep order and boundaries of many messages, the large ones too', async (room) => {
  const alice = await room.join('alice');
  const bob = await room.join('bob');
  await alice.call('openChannel', 'files');
  await until('bob to get the channel', () => bob.call('received', 'files'));
  const sizes = [1, 1000, 1200, 1201, 5000, 16_000, 3, 60_000, 7];
  await alice.page.evaluate((sizes) => {
    for (const [index, size] of sizes.entries()) window.peer.send('files', Array(size).fill(index));
    for (let number = 0; number < 200; number += 1) window.peer.send('files', `number ${number}`);
  }, sizes);
  const messages = await received(bob, 'files', sizes.length + 200);
  for (const [index, size] of sizes.entries()) {
    assert.equal(messages[index].bytes.length, size);
    assert.ok(messages[index].bytes.every((byte) => byte === index));
  }
  assert.deepEqual(
    messages.slice(sizes.length).map(({ text }) => text),
    Array.from({ length: 200 }, (_, number) => `number ${number}`),
  );
});

roomTest('two peers may each open a channel of the same label and reach each other', async (room) => {
  const alice = await room.join('alice');
  const bob = await room.join('bob');
  await alice.call('openChannel', 'pose');
  await until('bob to get the channel', () => bob.call('received', 'pose'));
  // Bob's own replaces the one that came, in his page; both lead to the same room.
  await bob.call('openChannel', 'pose');
  await until('the channel to be open', () =>
    bob.page.evaluate(() => window.peer.channels.get('pose').channel.readyState === 'open'));
  await bob.call('send', 'pose', 'from bob');
  assert.deepEqual((await received(alice, 'pose', 1))[0], { text: 'from bob' });
});
