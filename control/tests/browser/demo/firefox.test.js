// The page in Firefox, in rooms with Chromium: another WebRTC stack, with another idea of SDP, ICE and RTP.

import assert from "node:assert/strict";
import { existsSync } from "node:fs";
import { networkInterfaces } from "node:os";
import { after, before, test } from "node:test";
import puppeteer from "puppeteer-core";
import { launch } from "./browser.js";
import { start } from "./server.js";
import { freePorts } from "../lib/ports.js";

const FIREFOX = process.env.TEST_FIREFOX ?? ["/usr/bin/firefox-esr", "/usr/bin/firefox"].find(existsSync);
const skip = FIREFOX ? false : "there is no Firefox here; TEST_FIREFOX names one";
const PREFERENCES = {
  "media.navigator.streams.fake": true,
  "media.navigator.permission.disabled": true,
  "media.autoplay.default": 0,
  // Candidates by their addresses, and of 127.0.0.1 where there are no others.
  "media.peerconnection.ice.loopback": true,
  "media.peerconnection.ice.obfuscate_host_addresses": false,
  // Nothing is fetched from anywhere.
  "media.gmp-manager.updateEnabled": false,
  "network.captive-portal-service.enabled": false,
  "network.connectivity-service.enabled": false,
};

let chromium;
let firefox;
let server;
/** A server with TURN, over which Firefox gets to media. */
let relaying;

before(async () => {
  if (skip) return;
  // Firefox takes part with the addresses of its network only, and with loopback where it has no network.
  const network = Object.values(networkInterfaces()).flat().find(({ internal, family }) => !internal && family === "IPv4");
  const bind = network ? ["--bind", network.address] : [];
  const turn = ["--turn", "--turn-transports", "udp,tcp", "--turn-port", String((await freePorts(1))[0])];
  [server, relaying] = [await start({ flags: bind }), await start({ flags: [...bind, ...turn] })];
  chromium = await launch();
  firefox = await puppeteer.launch({
    browser: "firefox", executablePath: FIREFOX, headless: true, extraPrefsFirefox: PREFERENCES,
  });
});

after(async () => {
  await Promise.all([firefox?.close(), chromium?.close()]);
  await Promise.all([server?.stop(), relaying?.stop()]);
});

test("Firefox and Chromium see and hear each other", { skip }, async (t) => {
  const fox = await enterFirefox(t, "both", "Fox");
  const ann = await enterChromium(t, "both", "Ann");
  await receives(fox, { videos: 1, audios: 1 });
  await receives(ann, { videos: 1, audios: 1 });
  for (const [page, other] of [[fox, "Ann"], [ann, "Fox"]]) await sees(page, other);
});

test("the layer that is chosen of Firefox's camera is the one that comes", { skip }, async (t) => {
  await enterFirefox(t, "layers", "Fox");
  const ann = await enterChromium(t, "layers", "Ann");
  await sees(ann, "Fox");
  // What comes at first may be any layer, and stays for a moment after the choice: each step names the heights that prove it.
  for (const [quality, least, most] of [["low", 1, 360], ["high", 361, 2160], ["low", 1, 360]]) {
    await ann.locator('.tile[data-kind=camera][aria-label="Fox"]').getByTestId("tile-menu").click();
    await ann.getByTestId(`menu-quality-${quality}`).click();
    await until(ann, ([least, most]) => (ringmain.stats?.received ?? [])
      .some(({ kind, fps, height }) => kind === "video" && fps > 3 && height >= least && height <= most), [least, most]);
  }
});

test("Firefox gets two others, and who leaves is gone", { skip }, async (t) => {
  const fox = await enterFirefox(t, "three", "Fox");
  const ann = await enterChromium(t, "three", "Ann");
  await enterChromium(t, "three", "Bob");
  await receives(fox, { videos: 2, audios: 2 });
  await ann.getByTestId("control-leave").click();
  await until(fox, () => document.querySelectorAll(".tile").length === 2 && ringmain.peers.length === 2);
  await receives(fox, { videos: 1, audios: 1 });
});

test("Firefox comes back after a reload, and leaves", { skip }, async (t) => {
  const ann = await enterChromium(t, "reload", "Ann");
  let fox = await enterFirefox(t, "reload", "Fox");
  await sees(ann, "Fox");
  await fox.reload();
  await join(fox, "Fox");
  await sees(fox, "Ann");
  await receives(ann, { videos: 1, audios: 1 });
  await fox.click("[data-testid=control-leave]");
  await until(ann, () => ringmain.peers.length === 1 && document.querySelectorAll(".tile").length === 1);
});

for (const transport of ["udp", "tcp"]) {
  test(`Firefox sees and is seen through relays over ${transport}, and by no other way`, { skip }, async (t) => {
    const fox = await enterFirefox(t, transport, "Fox", { server: relaying, prepare: [relaysOnly, transport] });
    const ann = await enterChromium(t, transport, "Ann", { server: relaying });
    await receives(fox, { videos: 1, audios: 1 });
    await receives(ann, { videos: 1, audios: 1 });
    for (const [page, other] of [[fox, "Ann"], [ann, "Fox"]]) await sees(page, other);
    const ways = await fox.evaluate(waysInUse);
    assert.deepEqual(ways, [`relay over ${transport}`, `relay over ${transport}`]);
  });
}

/** In the page, before it runs: its connections may use relays only, and come to these over one transport. */
function relaysOnly(transport) {
  window.connections = [];
  window.RTCPeerConnection = class extends RTCPeerConnection {
    constructor(configuration) {
      super({ ...configuration, iceTransportPolicy: "relay" });
      window.connections.push(this);
    }

    setConfiguration(configuration) {
      const reached = (url) => url.endsWith(`transport=${transport}`);
      const iceServers = configuration.iceServers.map((server) => ({ ...server, urls: server.urls.filter(reached) }));
      super.setConfiguration({ ...configuration, iceServers });
    }
  };
}

/** In the page: by what each of its connections goes. */
function waysInUse() {
  const open = window.connections.filter(({ signalingState }) => signalingState !== "closed");
  return Promise.all(open.map(async (connection) => {
    const rows = await connection.getStats();
    const pair = [...rows.values()].find(({ type, selected }) => type === "candidate-pair" && selected);
    const { candidateType, relayProtocol } = rows.get(pair.localCandidateId);
    return `${candidateType} over ${relayProtocol}`;
  }));
}

async function enterFirefox(t, room, name, { server: { url } = server, prepare } = {}) {
  const context = await firefox.createBrowserContext();
  t.after(() => context.close());
  const page = await context.newPage();
  page.setDefaultTimeout(30_000);
  if (prepare) await page.evaluateOnNewDocument(...prepare);
  await page.goto(`${url}/?room=${room}`);
  await join(page, name);
  return page;
}

async function enterChromium(t, room, name, { server: { url } = server } = {}) {
  const context = await chromium.newContext({ permissions: ["camera", "microphone"] });
  t.after(() => context.close());
  const page = await context.newPage();
  page.setDefaultTimeout(30_000);
  await page.goto(`${url}/?room=${room}`);
  await join(page, name);
  return page;
}

async function join(page, name) {
  await page.waitForSelector("[data-testid=name]");
  await page.evaluate((name) => {
    const field = document.querySelector("[data-testid=name]");
    field.value = name;
    field.dispatchEvent(new Event("input", { bubbles: true }));
  }, name);
  await until(page, () => document.querySelector("[data-testid=preview]").videoWidth > 0);
  await page.click("[data-testid=join]");
  await until(page, () => window.ringmain?.state === "live");
}

function sees(page, name) {
  return page.waitForSelector(`.tile.has-picture[data-kind=camera][aria-label="${name}"]`);
}

/** Waits until that many pictures move and that many voices come. */
function receives(page, wanted) {
  return until(page, ({ videos, audios }) => {
    const rows = ringmain.stats?.received ?? [];
    const moving = rows.filter(({ kind, fps }) => kind === "video" && fps > 3).length;
    const heard = rows.filter(({ kind, bps }) => kind === "audio" && bps > 1000).length;
    return moving === videos && heard === audios;
  }, wanted);
}

/** The same question to a page of either driver, until it has an answer. */
async function until(page, question, value) {
  for (const end = Date.now() + 30_000; ; ) {
    const answer = await page.evaluate(question, value);
    if (answer) return answer;
    if (Date.now() > end) {
      const seen = await page.evaluate(() => JSON.stringify([ringmain.state, ringmain.peers, ringmain.stats?.received]));
      throw new Error(`waited in vain for ${question}; ${seen}`);
    }
    await new Promise((resolve) => setTimeout(resolve, 200));
  }
}
