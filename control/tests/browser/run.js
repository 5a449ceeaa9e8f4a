// Runs every browser test, and once more those that failed, by themselves: browsers and machines have bad moments, and calls in real time
// show them. A test that passes only then is named at the end; one that fails twice fails the run, and so do more failures than bad
// moments explain. scripts/test builds the server and installs what is needed, then starts this; arguments go to node.

import { spawn } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';

const RETRIED_MAX = 4;
const TIME_MAX_MS = 20 * 60_000;

const here = fileURLToPath(new URL('.', import.meta.url));
const suite = join(here, 'suite.js');
const directory = mkdtempSync(join(tmpdir(), 'ringmain-failed-'));
process.on('exit', () => rmSync(directory, { recursive: true }));

/** Runs the suite. Whether all went well, and the names of the tests that passed and of those that did not. */
async function run(flags) {
  const list = join(directory, 'names');
  const reporters = ['--test-reporter=spec', '--test-reporter-destination=stdout', '--test-reporter=./lib/verdicts.js', `--test-reporter-destination=${list}`];
  const child = spawn(process.execPath, [...reporters, ...flags, suite], { cwd: here, stdio: 'inherit', timeout: TIME_MAX_MS });
  const code = await new Promise((resolve) => child.once('close', resolve));
  const verdicts = readFileSync(list, 'utf8').split('\n');
  const those = (verdict) => verdicts.filter((line) => line.startsWith(verdict)).map((line) => line.slice(verdict.length));
  return { well: code === 0, passed: those('passed '), failed: those('failed ') };
}

const escaped = (name) => name.replaceAll(/[.*+?^${}()|[\]\\/]/g, '\\$&');

const first = await run(process.argv.slice(2));
if (first.well) process.exit(0);
// Under the suite's own name: a server kept something of peers that are gone, or did not end well.
const isMoment = first.failed.length > 0 && first.failed.length <= RETRIED_MAX && !first.failed.includes(suite);
if (!isMoment) process.exit(1);

console.log(`\nonce more: ${first.failed.join('; ')}\n`);
const second = await run(first.failed.map((name) => `--test-name-pattern=^${escaped(name)}$`));
const flaky = first.failed.filter((name) => second.passed.includes(name));
// As nextest says it of a Rust test.
for (const name of flaky) console.log(`   FLAKY 2/2 [browser] ${name}`);
process.exit(second.well && flaky.length === first.failed.length ? 0 : 1);
