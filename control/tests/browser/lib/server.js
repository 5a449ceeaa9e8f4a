// The server under test, on ports of its own: starts it, reads its log and its metrics, ends it.

import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { existsSync, readFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { freePort, freePorts } from './ports.js';
import { until } from './until.js';

const WORKERS = 2;

export class Server {
  /**
   * Starts `ringmain` on loopback. `args` are further arguments; `wrapper` is a command that runs it, as a list;
   * `announce` is the address that clients are told, `workers` how many there are. `onePort` has everything at that port, inside TLS.
   */
  static async start({ args = [], wrapper = [], announce = '127.0.0.1', env = {}, workers = WORKERS, onePort } = {}) {
    const server = new Server();
    server.mediaPorts = onePort ? [onePort] : await freePorts(WORKERS);
    const [listen, metrics] = [onePort ?? (await freePort()), await freePort()];
    const secure = onePort ? 's' : '';
    server.url = `http${secure}://127.0.0.1:${listen}/`;
    server.ws = `ws${secure}://127.0.0.1:${listen}/ws`;
    server.#metrics = `http://127.0.0.1:${metrics}/metrics`;
    const command = [
      ...wrapper,
      binary(),
      ...['--listen', `127.0.0.1:${listen}`, '--metrics', `127.0.0.1:${metrics}`, '--bind', '127.0.0.1'],
      ...['--announce', announce, '--base-port', server.mediaPorts[0], '--workers', workers, '--pin=false'],
      ...(onePort ? ['--one-port', onePort] : []),
      ...args,
    ];
    server.#process = spawn(command[0], command.slice(1).map(String), {
      env: { ...process.env, RINGMAIN_LOG: 'info', NO_COLOR: '1', ...env },
      stdio: ['ignore', 'pipe', 'pipe'],
      // A process group of its own, so that nothing survives: not the server when its wrapper is killed.
      detached: true,
    });
    running.add(server);
    server.#process.on('error', (error) => (server.#log += `${error}\n`));
    for (const stream of [server.#process.stdout, server.#process.stderr]) {
      stream.setEncoding('utf8').on('data', (text) => (server.#log += text));
    }
    server.#ended = new Promise((resolve) => server.#process.once('close', (code, signal) => resolve({ code, signal })));
    await until('the server to listen', async () => {
      assert.equal(server.#process.exitCode, null, `the server ended at start:\n${server.log()}`);
      // Node does not trust the certificate; the metrics are served no earlier than the page.
      return (await fetch(onePort ? server.#metrics : server.url).catch(() => undefined))?.ok;
    });
    return server;
  }

  /** Where the page is. */
  url;
  /** Where signalling is. */
  ws;
  /** The UDP ports of its workers. */
  mediaPorts;

  #process;
  #ended;
  #metrics;
  #log = '';

  /** What it has logged so far, without colours; only the last `lines`. */
  log(lines = Infinity) {
    return this.#log.replaceAll(/\x1b\[[0-9;]*m/g, '').split('\n').slice(-lines).join('\n');
  }

  /** All metrics as `name{labels}` to number, and each name to the sum over its labels. */
  async metrics() {
    const text = await (await fetch(this.#metrics)).text();
    const metrics = {};
    for (const [, name, labels, value] of text.matchAll(/^(\w+)(\{.*?\})? (\S+)$/gm)) {
      if (labels) metrics[name + labels] = Number(value);
      metrics[name] = (metrics[name] ?? 0) + Number(value);
    }
    return metrics;
  }

  /** Fails if it has ended or panicked. */
  assertAlive() {
    assert.equal(this.#process.exitCode ?? this.#process.signalCode, null, `the server has ended:\n${this.log(40)}`);
    assert.doesNotMatch(this.log(), /panicked at/, 'the server panicked');
  }

  /** Ends it as an operator does, and fails unless it ends in order and in time. */
  async stop() {
    if (this.#process.exitCode !== null) return;
    process.kill(this.#pid(), 'SIGTERM');
    const late = setTimeout(() => this.kill(), 10_000);
    const { code, signal } = await this.#ended;
    clearTimeout(late);
    running.delete(this);
    assert.doesNotMatch(this.log(), /panicked at/, 'the server panicked');
    assert.equal(signal ?? code, 0, `the server did not end in order on SIGTERM:\n${this.log(40)}`);
  }

  /** Ends it and its wrapper at once. */
  kill() {
    try {
      process.kill(-this.#process.pid, 'SIGKILL');
    } catch {
      // It has ended already.
    }
  }

  /** The process of the server itself, below its wrapper. */
  #pid() {
    const { pid, spawnfile } = this.#process;
    if (spawnfile === binary()) return pid;
    return Number(readFileSync(`/proc/${pid}/task/${pid}/children`, 'utf8').trim().split(' ')[0]);
  }
}

const running = new Set();
process.on('exit', () => running.forEach((server) => server.kill()));
for (const signal of ['SIGINT', 'SIGTERM']) process.once(signal, () => process.exit(1));

/** The path of the server. */
export function binary() {
  if (process.env.TEST_SERVER) return process.env.TEST_SERVER;
  const target = process.env.CARGO_TARGET_DIR ?? fileURLToPath(new URL('../../../../target', import.meta.url));
  const found = ['release', 'debug'].map((profile) => `${target}/${profile}/ringmain`).find(existsSync);
  assert.ok(found, 'there is no ringmain binary: build it, or set TEST_SERVER');
  return found;
}
