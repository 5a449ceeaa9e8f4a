// Everything at one TCP port: the page, its signalling, media by TURN over TLS and by TCP.

import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after } from 'node:test';
import { Peer } from './lib/browser.js';
import { Forward } from './lib/forward.js';
import { roomTest, start } from './lib/harness.js';
import { freePorts } from './lib/ports.js';

/** What clients are told; only TCP leads from there to the server. */
const OUTSIDE = '127.0.0.21';
const directory = mkdtempSync(join(tmpdir(), 'ringmain-one-port-'));
let forward;
after(() => {
  forward?.close();
  rmSync(directory, { recursive: true });
});

let server;
async function serverOf() {
  server ??= (async () => {
    const [cert, key] = [join(directory, 'cert.pem'), join(directory, 'key.pem')];
    const made = ['req', '-x509', '-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:P-256', '-nodes', '-days', '2'];
    const subject = ['-subj', '/CN=localhost', '-addext', `subjectAltName=IP:${OUTSIDE}`];
    execFileSync('openssl', [...made, '-keyout', key, '-out', cert, ...subject], { stdio: 'ignore' });
    const [port] = await freePorts(1);
    forward = await Forward.start({ address: OUTSIDE, target: '127.0.0.1', port });
    const tls = ['--tls-cert', cert, '--tls-key', key];
    return start({ announce: OUTSIDE, workers: 1, onePort: port, args: ['--turn', ...tls] });
  })();
  return server;
}

roomTest('page, signalling, TURN over TLS and media by TCP share a port', async (room) => {
  const { port } = new URL(room.server.url);
  const outside = { ...room.server, url: `https://${OUTSIDE}:${port}/`, ws: `wss://${OUTSIDE}:${port}/ws` };
  const relayed = await Peer.join(outside, room.sid, 'relayed', undefined, 'turns:');
  room.peers.push(relayed);
  const tcp = await Peer.join(outside, room.sid, 'tcp');
  room.peers.push(tcp);
  const sent = await relayed.call('publish', 'main', { hue: 0, tone: 440 });
  const received = await tcp.call('publish', 'main', { hue: 120, tone: 440 });
  await tcp.decodes(sent);
  await tcp.hears(sent);
  await relayed.decodes(received);
  for (const role of [0, 1]) {
    const { candidateType, relayProtocol } = await relayed.call('localCandidate', role);
    assert.deepEqual([candidateType, relayProtocol], ['relay', 'tls']);
    assert.equal((await tcp.call('localCandidate', role)).protocol, 'tcp');
  }
  const metrics = await room.server.metrics();
  assert.equal(metrics.ringmain_turn_relay_sockets, 0, 'our own media needs no relay socket');
  assert.ok(metrics.ringmain_stream_ice_connections >= 2);
  // The page itself, as a person opens it.
  await tcp.page.goto(outside.url);
  assert.match(await tcp.page.title(), /Ringmain/);
  assert.equal(await tcp.page.evaluate(() => window.isSecureContext), true);
}, { serverOf });
