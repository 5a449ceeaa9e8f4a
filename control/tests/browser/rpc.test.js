// The signalling dialect, word by word: replies, errors and what is not answered.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { roomTest, sharedServer } from './lib/harness.js';
import { Rpc } from './lib/rpc.js';
import { sleep, until } from './lib/until.js';

const RECEIVE = { config: { NoPublish: true } };
const OFFER = [
  ...['v=0', 'o=- 1 1 IN IP4 0.0.0.0', 's=-', 't=0 0', 'a=group:BUNDLE 0'],
  ...['m=application 9 UDP/DTLS/SCTP webrtc-datachannel', 'c=IN IP4 0.0.0.0', 'a=mid:0', 'a=sctp-port:5000'],
  ...['a=ice-ufrag:abcd', 'a=ice-pwd:abcdefghijklmnopqrstuv', 'a=setup:actpass'],
  `a=fingerprint:sha-256 ${Array(32).fill('AB').join(':')}`,
].map((line) => `${line}\r\n`).join('');
let rooms = 0;

/** A test of a fresh signalling connection. */
function rpcTest(name, body) {
  test(name, { timeout: 20_000 }, async () => {
    const server = await sharedServer();
    const rpc = await Rpc.open(server.ws);
    try {
      await body(rpc, server);
      server.assertAlive();
    } finally {
      rpc.cut();
    }
  });
}

const room = () => `rpc-${(rooms += 1)}`;

rpcTest('a request is answered under its id, as text or as number', async (rpc) => {
  for (const id of ['3f0c7d1e-uuid', 7]) {
    const reply = await rpc.call('nonsense', {}, id);
    assert.deepEqual(Object.keys(reply).sort(), ['error', 'id', 'jsonrpc']);
    assert.equal(reply.id, id);
    assert.equal(reply.jsonrpc, '2.0');
    assert.equal(reply.error.code, -32601);
  }
});

for (const { name, method, params, code } of [
  { name: 'an offer before joining', method: 'offer', params: { desc: { type: 'offer', sdp: 'v=0' } }, code: -32002 },
  { name: 'a subscription before joining', method: 'subscribe', params: { tracks: [{ streamId: 'x' }] }, code: -32002 },
  { name: 'a join without a room', method: 'join', params: { ...RECEIVE }, code: -32602 },
  { name: 'a join whose room is a number', method: 'join', params: { sid: 5, ...RECEIVE }, code: -32602 },
  { name: 'a join with no offer', method: 'join', params: { sid: 'x', uid: 'y' }, code: -32602 },
  { name: 'a join with a broken offer', method: 'join', params: { sid: 'x', uid: 'y', offer: { type: 'offer', sdp: 'hello' } }, code: -32003 },
]) {
  rpcTest(`${name} is refused with ${code}, and the connection lives on`, async (rpc) => {
    const reply = await rpc.call(method, params);
    assert.equal(reply.error?.code, code, JSON.stringify(reply));
    assert.ok(reply.error.message.length > 5, 'the message says what to change');
    const next = await rpc.call('join', { sid: room(), uid: 'me', ...RECEIVE });
    assert.equal(next.result?.uid, 'me', JSON.stringify(next));
  });
}

rpcTest('who only receives is told his uid, and is offered a connection even in an empty room', async (rpc) => {
  const { result } = await rpc.call('join', { sid: room(), config: { nopublish: true } });
  assert.match(result.uid, /\S/, 'an uid is made up');
  const { params } = await until('the offer', () => rpc.messages.find(({ method }) => method === 'offer'));
  assert.equal(params.type, 'offer');
  assert.match(params.sdp, /^a=ice-lite\r$/m);
  assert.match(params.sdp, /^m=application /m);
  assert.match(params.sdp, /^a=candidate:.* 127\.0\.0\.1 /m);
});

rpcTest('a second join is refused, and the first one stays', async (rpc) => {
  const sid = room();
  await rpc.call('join', { sid, uid: 'me', ...RECEIVE });
  assert.equal((await rpc.call('join', { sid: room(), uid: 'me', ...RECEIVE })).error.code, -32001);
  assert.deepEqual((await rpc.call('tracks')).result, { tracks: [] });
});

rpcTest('what does not fit the state is refused by name', async (rpc) => {
  await rpc.call('join', { sid: room(), uid: 'me', ...RECEIVE });
  assert.equal((await rpc.call('offer', { desc: { type: 'offer', sdp: OFFER } })).error.code, -32004);
  assert.equal((await rpc.call('subscribe', { tracks: [{ streamId: 'nowhere' }] })).error.code, -32005);
});

rpcTest('a notification is never answered, not even a wrong one', async (rpc) => {
  rpc.raw(JSON.stringify({ method: 'nonsense', params: {} }));
  rpc.raw(JSON.stringify({ method: 'answer', params: 5 }));
  rpc.raw(JSON.stringify({ method: 'trickle', params: { target: 9 } }));
  const reply = await rpc.call('nonsense');
  assert.deepEqual(rpc.messages, [reply]);
});

for (const { name, text, code } of [
  { name: 'text that is not JSON', text: '{"method":', code: -32700 },
  { name: 'a batch', text: '[{"method":"tracks","id":1}]', code: -32600 },
  { name: 'a message without a method', text: '{"id":1}', code: -32600 },
  { name: 'nesting without end', text: '['.repeat(5000), code: -32600 },
]) {
  rpcTest(`${name} is refused with ${code}`, async (rpc) => {
    rpc.raw(text);
    const [reply] = await until('a reply', () => rpc.messages.length && rpc.messages);
    assert.equal(reply.error?.code, code, JSON.stringify(reply));
  });
}

rpcTest('a peer whose connection is cut leaves the room', async (rpc, server) => {
  const sid = room();
  const witness = await Rpc.open(server.ws);
  await witness.call('join', { sid, uid: 'witness', ...RECEIVE });
  await rpc.call('join', { sid, uid: 'passer-by', info: { name: 'P' }, ...RECEIVE });
  const told = (state) =>
    until(`the witness to be told of the ${state}`, () =>
      witness.messages.find(({ method, params }) => method === 'peerevent' && params.state === state &&
        params.peers.some(({ uid }) => uid === 'passer-by')), { show: () => witness.messages });
  await told('join');
  rpc.cut();
  await told('leave');
  witness.close();
});

roomTest('a browser is answered with what it offered: ICE-lite, DTLS as server, one port for everything', async (room) => {
  const alice = await room.join('alice');
  await alice.call('publish', 'main', { hue: 0, tone: 440 });
  await sleep(500);
  const sdp = await alice.page.evaluate(() => window.peer.client.transports[0].pc.remoteDescription.sdp);
  assert.match(sdp, /^a=ice-lite\r$/m);
  assert.match(sdp, /^a=group:BUNDLE 0 1 2\r$/m);
  assert.match(sdp, /^a=setup:passive\r$/m);
  assert.match(sdp, /^a=rtcp-mux\r$/m);
  assert.match(sdp, /^a=rtpmap:\d+ VP8\/90000\r$/m);
  assert.match(sdp, /^a=rtpmap:\d+ opus\/48000\/2\r$/m);
});
