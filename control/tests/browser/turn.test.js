// TURN: media by the server's own relays only, over UDP, TCP and TLS. The way is the shortcut, so no relay socket is opened for it,
// whichever of the two workers has the room and which the client comes to.

import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after } from 'node:test';
import { roomTest, start } from './lib/harness.js';
import { freePort, freePorts } from './lib/ports.js';
import { until } from './lib/until.js';

const directory = mkdtempSync(join(tmpdir(), 'ringmain-turn-'));
after(() => rmSync(directory, { recursive: true }));

let server;
async function serverOf() {
  const [cert, key] = [join(directory, 'cert.pem'), join(directory, 'key.pem')];
  server ??= (async () => {
    const subject = ['-subj', '/CN=localhost', '-addext', 'subjectAltName=IP:127.0.0.1'];
    const made = ['req', '-x509', '-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:P-256', '-nodes', '-days', '2'];
    execFileSync('openssl', [...made, '-keyout', key, '-out', cert, ...subject], { stdio: 'ignore' });
    const ports = ['--turn-port', ...(await freePorts(1)), '--turn-tls-port', await freePort()];
    return start({ args: ['--turn', ...ports, '--turn-tls-cert', cert, '--turn-tls-key', key] });
  })();
  return server;
}

for (const [transport, urls] of [['udp', 'turn:.*=udp'], ['tcp', 'turn:.*=tcp'], ['tls', 'turns:']]) {
  roomTest(`a peer that may use relays over ${transport} only is seen and sees`, async (room) => {
    const relayed = await room.join('relayed', undefined, urls);
    const direct = await room.join('direct');
    const sent = await relayed.call('publish', 'main', { hue: 0, tone: 440 });
    const received = await direct.call('publish', 'main', { hue: 120 });
    await direct.decodes(sent);
    await relayed.decodes(received);
    for (const role of [0, 1]) {
      const { candidateType, relayProtocol } = await relayed.call('localCandidate', role);
      assert.deepEqual([candidateType, relayProtocol], ['relay', transport]);
    }
    const metrics = await until('the counters of the relay', async () => {
      const all = await room.server.metrics();
      return all.ringmain_turn_shortcut_total > 0 && all;
    });
    assert.ok(metrics.ringmain_turn_allocations >= 2);
    assert.equal(metrics.ringmain_turn_relay_sockets, 0, 'our own media needs no relay socket');
  }, { serverOf });
}
