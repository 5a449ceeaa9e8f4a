// Negotiating again and again on living connections.

import assert from 'node:assert/strict';
import { roomTest } from './lib/harness.js';
import { sleep, until } from './lib/until.js';

const ROUNDS = 20;

roomTest(`media flows after ${ROUNDS} publications and withdrawals in a row`, async (room) => {
  const alice = await room.join('alice');
  const bob = await room.join('bob');
  const steady = await alice.call('publish', 'steady', { hue: 0, tone: 440 });
  await bob.decodes(steady);
  let seen = 0;
  for (let round = 0; round < ROUNDS; round += 1) {
    const stream = await alice.call('publish', 'extra', { hue: 120, width: 160, height: 90 });
    // Every fourth time it is waited for, the others go by as fast as a hasty user clicks.
    if (round % 4 === 0) {
      await bob.decodes(stream, { frames: 2 });
      seen += 1;
    } else {
      await sleep(100);
    }
    await alice.call('unpublish', 'extra');
    await sleep(100);
  }
  assert.equal(seen, ROUNDS / 4);
  const last = await alice.call('publish', 'extra', { hue: 240 });
  await bob.decodes(last);
  await bob.decodes(steady);
  await bob.hears(steady);
  assert.deepEqual(await alice.read('errors'), []);
  assert.deepEqual(await bob.read('errors'), []);
  await until('withdrawn streams to be gone', async () => {
    const streams = await bob.call('remoteStreams');
    return streams.filter(({ id }) => ![steady, last].includes(id)).every(({ tracks }) => tracks.length === 0);
  }, { show: () => bob.describe() });
});
