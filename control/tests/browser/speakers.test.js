// Who is speaking, and that sound and picture of one peer belong together.

import assert from 'node:assert/strict';
import { roomTest } from './lib/harness.js';
import { sleep, until } from './lib/until.js';

roomTest('everybody is told who speaks, and when he stops', async (room) => {
  const loud = await room.join('loud');
  const quiet = await room.join('quiet');
  const listener = await room.join('listener');
  const voice = await loud.call('publish', 'main', { tone: 440 });
  const silence = await quiet.call('publish', 'main', { tone: 0 });
  await listener.hears(voice);
  for (const peer of [listener, loud, quiet]) {
    await until(`${peer.uid} to be told who speaks`, async () => (await peer.read('speakers')).at(-1)?.[0] === voice, {
      show: () => peer.read('speakers'),
    });
  }
  for (const peer of [listener, loud, quiet]) {
    assert.ok(!(await peer.read('speakers')).flat().includes(silence), 'silence is no speaker');
  }
  await loud.call('unpublish', 'main');
  await until('nobody to speak any more', async () => (await listener.read('speakers')).at(-1)?.length === 0, {
    show: () => listener.read('speakers'),
  });
});

roomTest('sound and picture of one peer are played out in step', async (room, t) => {
  const alice = await room.join('alice');
  const stream = await alice.call('publish', 'camera');
  const bob = await room.join('bob');
  await bob.decodes(stream, { frames: 20 });
  await bob.hears(stream);
  // The browser moves both towards each other after it has seen sender reports of both.
  let median;
  await until('sound and picture to be less than 50 ms apart', async () => {
    const offsets = [];
    for (let sample = 0; sample < 7; sample += 1) {
      const { audio, video } = await bob.inbound(stream);
      if (audio?.estimatedPlayoutTimestamp && video?.estimatedPlayoutTimestamp) {
        offsets.push(Math.abs(audio.estimatedPlayoutTimestamp - video.estimatedPlayoutTimestamp));
      }
      await sleep(150);
    }
    if (offsets.length < 5) return false;
    median = offsets.sort((a, b) => a - b)[Math.floor(offsets.length / 2)];
    return median < 50;
  }, { timeout: 30_000, show: async () => ({ median, ...(await bob.describe()) }) });
  t.diagnostic(`sound and picture are ${median.toFixed(1)} ms apart (median)`);
});
