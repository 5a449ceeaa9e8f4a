// The core cases on every way that packets can go: between workers, and without io_uring because another link was chosen or
// because the kernel forbids it. And IPv6.

import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { networkInterfaces } from 'node:os';
import { test } from 'node:test';
import { coreTests } from './lib/core.js';
import { roomTest, start } from './lib/harness.js';
import { freePort, freePorts } from './lib/ports.js';
import { binary } from './lib/server.js';

let chosen;
coreTests(' on the mmsg link', () => (chosen ??= start({ args: ['--link', 'mmsg'] })));

let spread;
coreTests(' when their room spreads over two workers', () => (spread ??= start({ args: ['--spread-after', '1'] })));

// strace answers io_uring_setup with EPERM, as a container's seccomp profile does.
const FORBIDDEN = ['strace', '-f', '-qq', '--seccomp-bpf', '-o', '/dev/null', '-e', 'trace=io_uring_setup', '-e', 'inject=io_uring_setup:error=EPERM'];

let forbidden;
const whereForbidden = () => (forbidden ??= start({ wrapper: FORBIDDEN }));
coreTests(' where io_uring is forbidden', whereForbidden);

test('where io_uring is forbidden the log says which link is used instead, and why', async () => {
  const log = (await whereForbidden()).log();
  assert.match(log, /WARN io_uring is not used.*io_uring_setup: Operation not permitted.*seccomp/, log);
  assert.match(log, /WARN link: mmsg/, log);
});

test('where io_uring is demanded and forbidden the server does not start, and says why', async () => {
  const listen = ['--listen', `127.0.0.1:${await freePort()}`, '--metrics', 'off', '--bind', '127.0.0.1'];
  const media = ['--base-port', ...(await freePorts(1)), '--workers', 1, '--link', 'io_uring'];
  const [command, ...args] = [...FORBIDDEN, binary(), ...listen, ...media].map(String);
  const { status, stderr, stdout } = spawnSync(command, args, { encoding: 'utf8', timeout: 20_000 });
  assert.equal(status, 1, stderr + stdout);
  assert.match(stderr + stdout, /io_uring_setup: Operation not permitted/);
});

const hasIpv6 = Object.values(networkInterfaces()).flat().some(({ address }) => address === '::1');

if (hasIpv6) {
  let ipv6;
  roomTest('media goes both ways over IPv6', async (room) => {
    const [alice, bob] = [await room.join('alice'), await room.join('bob')];
    const stream = await alice.call('publish', 'main', { hue: 0, tone: 440 });
    await bob.decodes(stream);
    await bob.hears(stream);
    const remotes = [await alice.call('remoteAddress', 0), await bob.call('remoteAddress', 1)];
    assert.deepEqual(remotes, ['::1', '::1']);
  }, { serverOf: () => (ipv6 ??= start({ args: ['--bind', '::1'], announce: '::1' })) });
}
