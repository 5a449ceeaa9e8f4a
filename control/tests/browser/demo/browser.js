// Chromium with a made-up camera and microphone, and the page's files served as the binary serves them.

import { createServer } from "node:http";
import { readFile } from "node:fs/promises";
import { extname, join, normalize } from "node:path";
import { fileURLToPath } from "node:url";
import { chromium } from "playwright-core";

const PAGE = fileURLToPath(new URL("../../../page/", import.meta.url));
const RULES = fileURLToPath(new URL("../../../src/http/page.rs", import.meta.url));
const TYPES = { ".html": "text/html; charset=utf-8", ".js": "text/javascript", ".css": "text/css" };

/** A browser; `flags` come on top. Its pages may use camera and microphone. */
export function launch({ flags = [], devices = true } = {}) {
  return chromium.launch({
    executablePath: process.env.TEST_CHROMIUM ?? "/usr/bin/chromium",
    args: [
      "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
      "--disable-background-networking", "--disable-component-update", "--disable-sync",
      "--allow-loopback-in-peer-connection", "--auto-select-desktop-capture-source=Entire screen",
      ...(devices ? ["--use-fake-device-for-media-stream", "--use-fake-ui-for-media-stream"] : []),
      ...flags,
    ],
  });
}

/** Serves `control/page/` under the policy that is written in the server's source. */
export async function serve() {
  const policy = policy_in(await readFile(RULES, "utf8"));
  const server = createServer(async ({ url }, response) => {
    const path = normalize(new URL(url, "http://page").pathname).replace(/^\/$/, "/index.html");
    const bytes = await readFile(join(PAGE, path)).catch(() => null);
    const head = { "content-type": TYPES[extname(path)] ?? "text/plain", "content-security-policy": policy };
    response.writeHead(bytes ? 200 : 404, head).end(bytes);
  });
  await new Promise((resolve) => server.listen(0, "127.0.0.1", resolve));
  return { url: `http://127.0.0.1:${server.address().port}`, close: () => server.close() };
}

function policy_in(source) {
  const [, text] = source.match(/const POLICY: &str = "([^"]*)"/s);
  return text.replace(/\\\n\s*/g, "");
}
