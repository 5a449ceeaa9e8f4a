// Joining, leaving and coming back: who sees whom, and that nothing of the gone stays behind.

import assert from 'node:assert/strict';
import { Peer } from './lib/browser.js';
import { coreTests } from './lib/core.js';
import { roomTest, sharedServer } from './lib/harness.js';
import { until } from './lib/until.js';

coreTests('', sharedServer);

roomTest('a late joiner sees the picture within a second of its track', async (room, t) => {
  const alice = await room.join('alice');
  const stream = await alice.call('publish', 'camera');
  const early = await room.join('early');
  await early.decodes(stream);

  // Three in a row, of whom the one in the middle counts: a browser may be slow for reasons of its own.
  const waits = { track: [], join: [] };
  for (const uid of ['first', 'second', 'third']) {
    const late = await room.join(uid);
    const seen = await until(`the ${uid} late joiner to see the first frame`, async () => {
      const remote = (await late.call('remoteStreams')).find(({ id }) => id === stream);
      return remote?.frameAt && remote;
    });
    waits.track.push(seen.frameAt - seen.trackAt);
    waits.join.push(seen.frameAt - (await late.read('joinCalledAt')));
  }
  const [afterTrack, afterJoin] = [waits.track, waits.join].map((ms) => Math.round(ms.sort((a, b) => a - b)[1]));
  t.diagnostic(`first frame ${afterTrack} ms after the track, ${afterJoin} ms after the join began`);
  assert.ok(afterTrack < 1000, `the first frame came ${waits.track} ms after the track`);
  assert.ok(afterJoin < 2500, `the first frame came ${waits.join} ms after the join began`);
});

roomTest('who leaves takes his tracks along', async (room) => {
  const alice = await room.join('alice');
  const bob = await room.join('bob');
  const stream = await alice.call('publish', 'main', { hue: 0, tone: 440 });
  await bob.decodes(stream);

  await alice.page.evaluate(() => window.peer.client.close());
  const gone = await until('the tracks to go', async () => {
    const remote = (await bob.call('remoteStreams')).find(({ id }) => id === stream);
    return remote.tracks.every(({ muted }) => muted) && remote.events.some((event) => event.startsWith('removetrack')) && remote;
  }, { show: () => bob.describe() });
  assert.deepEqual(
    gone.events.filter((event) => event.startsWith('removetrack')).sort(),
    ['removetrack audio', 'removetrack video'],
  );
});

roomTest('who only closes his connections, as leave() of the SDK does, takes his tracks along', async (room) => {
  const alice = await room.join('alice');
  const bob = await room.join('bob');
  const stream = await alice.call('publish', 'main', { hue: 0 });
  await bob.decodes(stream);

  await alice.page.evaluate(() => window.peer.client.leave());
  await until('the track to go', async () => {
    const remote = (await bob.call('remoteStreams')).find(({ id }) => id === stream);
    return remote.events.includes('removetrack video');
  }, { timeout: 20_000, show: () => bob.describe() });
});

roomTest('one who only publishes gets nothing, one who only receives gets everything', async (room) => {
  const speaker = await room.join('speaker', { NoSubscribe: true });
  const stream = await speaker.call('publish', 'main', { hue: 120, tone: 440 });
  const listener = await room.joinToReceive('listener');
  assert.equal(listener.joined.uid, 'listener');
  const both = await room.join('both');
  const other = await both.call('publish', 'main', { hue: 240 });

  await listener.decodes(stream);
  await listener.hears(stream);
  await listener.decodes(other);
  await both.decodes(stream);
  const state = await speaker.page.evaluate(() => window.peer.client.transports[1].pc.remoteDescription);
  assert.equal(state, null, 'a peer that does not subscribe is offered nothing');
});

roomTest('without automatic subscription a peer gets what it asks for, as long as it asks for it', async (room) => {
  const alice = await room.join('alice');
  const [red, green] = [await alice.call('publish', 'red', { hue: 0 }), await alice.call('publish', 'green', { hue: 120 })];
  const chooser = await room.joinToReceive('chooser', { NoAutoSubscribe: true });
  const rpc = (method, params) => chooser.page.evaluate(([method, params]) => window.peer.signal.call(method, params), [method, params]);

  const listed = await until('both tracks to be listed', async () => {
    const { tracks } = await rpc('tracks');
    return tracks.length === 2 && tracks;
  });
  assert.deepEqual(listed.map(({ uid, streamId, subscribed }) => ({ uid, streamId, subscribed })).sort(byStream), [
    { uid: 'alice', streamId: red, subscribed: false },
    { uid: 'alice', streamId: green, subscribed: false },
  ].sort(byStream));
  assert.deepEqual(await chooser.call('remoteStreams'), []);

  await rpc('subscribe', { tracks: [{ streamId: green }] });
  await chooser.decodes(green);
  assert.deepEqual((await chooser.call('remoteStreams')).map(({ id }) => id), [green]);

  await rpc('unsubscribe', { tracks: [{ streamId: green }] });
  await until('the track to go', async () =>
    (await chooser.call('remoteStreams'))[0].events.includes('removetrack video'), { show: () => chooser.describe() });
});

const byStream = (a, b) => (a.streamId < b.streamId ? -1 : 1);

roomTest('a peer whose page dies without a word leaves nothing behind', async (room) => {
  const { server } = room;
  const idle = await until('earlier tests to be gone', async () => {
    const metrics = await server.metrics();
    return metrics.sfu_peers === 0 && metrics.ringmain_transports === 0 && metrics;
  }, { timeout: 45_000, show: () => server.metrics() });
  assert.equal(idle.sfu_sessions, 0);

  const stays = await room.join('stays');
  const before = await until('one peer to be counted', async () => {
    const metrics = await server.metrics();
    return metrics.sfu_peers === 1 && metrics.ringmain_transports === 2 && metrics;
  }, { show: () => server.metrics() });
  const dies = await room.join('dies');
  const stream = await dies.call('publish', 'main', { hue: 0, tone: 440 });
  await stays.decodes(stream);
  const during = await server.metrics();
  assert.equal(during.sfu_peers, 2);

  // The renderer crashes: no script runs any more, nothing is closed by the page.
  await dies.page.goto('chrome://crash').catch(() => {});
  await until('everything of the dead peer to be freed', async () => {
    const metrics = await server.metrics();
    return ['sfu_peers', 'ringmain_transports', 'ringmain_subscriptions', 'sfu_video_tracks', 'sfu_audio_tracks'].every(
      (name) => metrics[name] === before[name],
    );
  }, { show: () => server.metrics() });
});

roomTest('a page that is loaded again under the same uid is one peer, and is seen again', async (room) => {
  const alice = await room.join('alice');
  const bob = await room.join('bob');
  const first = await alice.call('publish', 'main', { hue: 0 });
  await bob.decodes(first);

  await alice.page.reload();
  await alice.call('connect', room.server.ws);
  await alice.call('join', room.sid, 'alice');
  const second = await alice.call('publish', 'main', { hue: 120 });
  await bob.decodes(second);
  await until('the old stream to go', async () => {
    const remote = (await bob.call('remoteStreams')).find(({ id }) => id === first);
    return remote.events.includes('removetrack video');
  }, { show: () => bob.describe() });
});

roomTest('a second page under the same uid replaces the first', async (room) => {
  const old = await room.join('alice');
  const bob = await room.join('bob');
  const first = await old.call('publish', 'main', { hue: 0 });
  await bob.decodes(first);

  const fresh = await Peer.open(room.server, 'alice again');
  room.peers.push(fresh);
  await fresh.call('join', room.sid, 'alice');
  const second = await fresh.call('publish', 'main', { hue: 120 });
  await bob.decodes(second);
  await until('the first to be told', async () => (await old.read('closed')) !== undefined, { show: () => old.describe() });
  await until('the first stream to go', async () => {
    const remote = (await bob.call('remoteStreams')).find(({ id }) => id === first);
    return remote.events.includes('removetrack video');
  }, { show: () => bob.describe() });
});
