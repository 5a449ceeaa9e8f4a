// The core cases where packets move without io_uring: because it was chosen, and because the kernel forbids it.

import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { test } from 'node:test';
import { coreTests } from './lib/core.js';
import { start } from './lib/harness.js';

let chosen;
coreTests(' on the mmsg link', () => (chosen ??= start({ args: ['--link', 'mmsg'] })));

// strace answers io_uring_setup with EPERM, as a container's seccomp profile does.
const FORBIDDEN = ['strace', '-f', '-qq', '--seccomp-bpf', '-o', '/dev/null', '-e', 'trace=io_uring_setup', '-e', 'inject=io_uring_setup:error=EPERM'];

let forbidden;
coreTests(' where io_uring is forbidden', () => (forbidden ??= start({ wrapper: FORBIDDEN })));

test('where io_uring is forbidden the log says which link is used instead, and why', async () => {
  const log = (await forbidden).log();
  assert.match(log, /WARN.*link: mmsg.*io_uring.*(not permitted|EPERM|does not allow)/is, log);
});

test('where io_uring is demanded and forbidden the server does not start, and says why', () => {
  const [command, ...args] = [...FORBIDDEN, process.env.TEST_SERVER, '--link', 'io_uring', '--listen', '127.0.0.1:0'];
  const { status, stderr, stdout } = spawnSync(command, args, { encoding: 'utf8', timeout: 10_000 });
  assert.notEqual(status, 0);
  assert.match(stderr + stdout, /io_uring/);
});
