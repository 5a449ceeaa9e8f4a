// Every video codec that Chromium sends arrives as that codec.

import assert from 'node:assert/strict';
import { roomTest } from './lib/harness.js';

for (const codec of ['vp8', 'vp9', 'h264', 'av1']) {
  roomTest(`${codec.toUpperCase()} is forwarded as it was published, to early and late receivers`, async (room, t) => {
    const alice = await room.join('alice');
    const known = await alice.page.evaluate(
      (codec) => RTCRtpSender.getCapabilities('video').codecs.some(({ mimeType }) => mimeType.toLowerCase() === `video/${codec}`),
      codec,
    );
    if (!known) return t.skip(`this Chromium is built without ${codec}`);
    const early = await room.join('early');
    const stream = await alice.call('publish', 'main', { hue: 0, codec });
    for (const peer of [early, await room.join('late')]) {
      const video = await peer.decodes(stream, { frames: 10 });
      assert.equal(video.codec.toLowerCase(), `video/${codec}`);
    }
  });
}
