// The real server as its own process on ports that nobody else uses.

import { spawn } from "node:child_process";
import { freePort } from "../lib/ports.js";
import { binary } from "../lib/server.js";

/** A running server; `log()` is what it wrote. `ports` are those of an earlier one that is to come back. */
export async function start({ ports, flags = [] } = {}) {
  const { tcp, udp } = ports ?? { tcp: await freePort(), udp: await freePort() };
  const child = spawn(binary(), [
    "--listen", `127.0.0.1:${tcp}`, "--bind", "127.0.0.1", "--base-port", String(udp), "--workers", "1", "--pin=false", "--metrics", "off",
    ...flags,
  ]);
  let log = "";
  for (const output of [child.stdout, child.stderr]) output.on("data", (bytes) => { log += bytes; });
  const ended = new Promise((resolve) => child.once("exit", (code, signal) => resolve(code ?? signal)));
  child.once("error", (error) => { log += error; });
  const url = `http://127.0.0.1:${tcp}`;
  await answers(url, () => log, ended);
  const stop = (signal = "SIGTERM") => {
    child.kill(signal);
    setTimeout(() => child.kill("SIGKILL"), 10_000).unref();
    return ended;
  };
  return { url, ports: { tcp, udp }, log: () => log, stop };
}

async function answers(url, log, ended) {
  for (let tries = 0; tries < 100; tries += 1) {
    const alive = await fetch(`${url}/healthz`).then(({ ok }) => ok, () => false);
    if (alive) return;
    const over = await Promise.race([ended, new Promise((resolve) => setTimeout(resolve, 100, null))]);
    if (over !== null) break;
  }
  throw new Error(`the server does not answer:\n${log()}`);
}
