// Networks that lose packets, and networks that are gone for a while: a relay stands between browsers and server.

import assert from 'node:assert/strict';
import { after } from 'node:test';
import { roomTest, start } from './lib/harness.js';
import { seed } from './lib/random.js';
import { Relay } from './lib/relay.js';
import { sleep, until } from './lib/until.js';

const RELAY = '127.0.0.2';

let server;
let relay;

/** A server that clients reach through the relay only. */
async function behindRelay() {
  if (!server) {
    server = await start({ announce: RELAY });
    relay = await Relay.start({ address: RELAY, target: '127.0.0.1', ports: server.mediaPorts, seed });
  }
  relay.loss = { up: 0, down: 0 };
  return server;
}

after(() => relay?.close());

for (const { percent, fps } of [{ percent: 5, fps: 10 }, { percent: 20, fps: 3 }]) {
  roomTest(`with ${percent} % loss each way peers connect, the picture keeps moving, and losses are repaired`, async (room, t) => {
    relay.loss = { up: percent / 100, down: percent / 100 };
    const alice = await room.join('alice');
    const bob = await room.join('bob');
    const stream = await alice.call('publish', 'camera');
    const before = await bob.decodes(stream, { timeout: 30_000 });
    await sleep(8000);
    const { video, audio } = await bob.inbound(stream);
    const seconds = (video.timestamp - before.timestamp) / 1000;
    const rate = (video.framesDecoded - before.framesDecoded) / seconds;
    const sent = (await alice.call('outbound')).find(({ kind }) => kind === 'video');
    t.diagnostic(
      `${rate.toFixed(1)} frames per second; to the server ${sent.nackCount} requests, ${sent.retransmittedPacketsSent} packets again; ` +
        `from the server ${video.nackCount} requests, ${video.retransmittedPacketsReceived} packets again; seed ${seed}`,
    );
    assert.ok(rate >= fps, `only ${rate.toFixed(1)} frames per second were decoded`);
    assert.ok(sent.nackCount > 0, 'the server asks the publisher for lost packets');
    assert.ok(sent.retransmittedPacketsSent > 0, 'the publisher sends them again');
    assert.ok(video.nackCount > 0, 'the receiver asks the server for lost packets');
    assert.ok(video.retransmittedPacketsReceived > 0, 'the server sends them again');
    assert.ok(audio.packetsReceived > 0 && audio.totalAudioEnergy > 0, 'sound is heard');
    assert.ok(relay.counts.lostUp > 0 && relay.counts.lostDown > 0);
  }, { serverOf: behindRelay });
}

roomTest('a short loss of the network is over when the network is back', async (room) => {
  const alice = await room.join('alice');
  const bob = await room.join('bob');
  const stream = await alice.call('publish', 'main', { hue: 0, tone: 440 });
  await bob.decodes(stream);
  relay.loss = { up: 1, down: 1 };
  await sleep(4000);
  relay.loss = { up: 0, down: 0 };
  await bob.decodes(stream, { frames: 10, timeout: 20_000 });
  await bob.hears(stream);
}, { serverOf: behindRelay });

roomTest('after a long loss of the network the server restarts ICE for the receiver, and media is back', async (room, t) => {
  const alice = await room.join('alice');
  const bob = await room.join('bob');
  const stream = await alice.call('publish', 'main', { hue: 0, tone: 440 });
  await bob.decodes(stream);
  const before = await iceUser(bob);
  relay.loss = { up: 1, down: 1 };
  const blackout = Date.now();
  await until('the server to restart ICE', async () => (await iceUser(bob)) !== before, { timeout: 45_000, show: () => bob.describe() });
  t.diagnostic(`ICE was restarted ${Date.now() - blackout} ms after the network went`);
  relay.loss = { up: 0, down: 0 };
  await bob.decodes(stream, { frames: 10, timeout: 20_000 });
  await bob.hears(stream);
}, { serverOf: behindRelay });

/** The ICE user name of the server's side of a peer's receiving connection (RFC 8839 §5.4). */
function iceUser(peer) {
  return peer.page.evaluate(
    () => /a=ice-ufrag:(\S+)/.exec(window.peer.client.transports[1].pc.remoteDescription.sdp)[1],
  );
}
