// One Chromium for all tests, and peers in it: each in a context and a page of its own, as different people are.

import http from 'node:http';
import { fileURLToPath } from 'node:url';
import { build } from 'esbuild';
import { chromium } from 'playwright-core';
import { until } from './until.js';

const FLAGS = [
  '--no-sandbox',
  '--disable-gpu',
  '--disable-quic',
  '--no-first-run',
  '--disable-background-networking',
  '--disable-component-update',
  '--disable-sync',
  '--use-fake-device-for-media-stream',
  '--use-fake-ui-for-media-stream',
  '--autoplay-policy=no-user-gesture-required',
  // Candidates of 127.0.0.1, where the server under test is.
  '--allow-loopback-in-peer-connection',
  // TURN over TLS with a certificate of the test's own.
  '--ignore-certificate-errors',
];

let started;

/** The browser and the page that peers run in; started at the first call. */
function browser() {
  started ??= (async () => {
    const { outputFiles } = await build({
      entryPoints: [fileURLToPath(new URL('../page/peer.js', import.meta.url))],
      bundle: true,
      write: false,
      format: 'iife',
      platform: 'browser',
      define: { global: 'window' },
    });
    const script = outputFiles[0].text;
    const site = http.createServer((request, response) => {
      const [type, body] = request.url === '/peer.js' ? ['text/javascript', script] : ['text/html', PAGE];
      response.writeHead(200, { 'content-type': `${type}; charset=utf-8` }).end(body);
    });
    await new Promise((resolve) => site.listen(0, '127.0.0.1', resolve));
    const instance = await chromium.launch({
      executablePath: process.env.TEST_CHROMIUM ?? '/usr/bin/chromium',
      args: FLAGS,
    });
    return { instance, site, url: `http://localhost:${site.address().port}/` };
  })();
  return started;
}

const PAGE = '<!doctype html><meta charset="utf-8"><title>peer</title><body><script src="/peer.js"></script></body>';

/** Ends the browser, if there is one. */
export async function closeBrowser() {
  if (!started) return;
  const { instance, site } = await started;
  started = undefined;
  await instance.close();
  site.close();
  site.closeAllConnections();
}

/** A peer in a page of its own. What `page/peer.js` can do is called by name: `await peer.call('publish', 'camera')`. */
export class Peer {
  /** Opens a page and its signalling connection. */
  static async open(server, uid, relay) {
    const { instance, url } = await browser();
    const context = await instance.newContext();
    const peer = new Peer(uid, context, await context.newPage());
    peer.page.on('console', (message) => peer.#console.push(message.text()));
    peer.page.on('pageerror', (error) => peer.#console.push(`error: ${error.message}`));
    await peer.page.goto(url);
    await peer.call('connect', server.ws, relay);
    return peer;
  }

  /** Opens a page and joins room `sid`. */
  static async join(server, sid, uid, config, relay) {
    const peer = await Peer.open(server, uid, relay);
    await peer.call('join', sid, uid, config);
    return peer;
  }

  #console = [];

  constructor(uid, context, page) {
    this.uid = uid;
    this.context = context;
    this.page = page;
  }

  /** Calls a function of `window.peer` in the page. */
  call(name, ...args) {
    return this.page.evaluate(([name, args]) => window.peer[name](...args), [name, args]);
  }

  /** A member of `window.peer`. */
  read(name) {
    return this.page.evaluate((name) => window.peer[name], name);
  }

  /** Calls a method of a remote stream, as `preferLayer` or `mute` of the SDK. */
  remote(streamId, method, ...args) {
    return this.page.evaluate(([id, method, args]) => void window.peer.remotes.get(id).stream[method](...args), [
      streamId,
      method,
      args,
    ]);
  }

  /** The inbound RTP streams that belong to a remote stream, by kind. */
  async inbound(streamId) {
    const streams = (await this.call('inbound')).filter((stream) => stream.streamId === streamId);
    const live = (kind) => streams.filter((stream) => stream.kind === kind).sort((a, b) => b.timestamp - a.timestamp)[0];
    return { audio: live('audio'), video: live('video') };
  }

  /** Waits until the video of a remote stream decodes `frames` more frames; gives the last statistics. */
  async decodes(streamId, { frames = 5, timeout = 20_000 } = {}) {
    let first;
    return until(
      `${this.uid} to decode ${frames} frames of ${streamId}`,
      async () => {
        const { video } = await this.inbound(streamId);
        if (!video) return false;
        first ??= video.framesDecoded;
        return video.framesDecoded >= first + frames && video;
      },
      { timeout, show: () => this.describe() },
    );
  }

  /** Waits until sound of a remote stream is heard: energy that grows. */
  async hears(streamId, { timeout = 20_000 } = {}) {
    let first;
    return until(
      `${this.uid} to hear ${streamId}`,
      async () => {
        const { audio } = await this.inbound(streamId);
        if (!audio) return false;
        first ??= audio.totalAudioEnergy;
        return audio.totalAudioEnergy > first && audio;
      },
      { timeout, show: () => this.describe() },
    );
  }

  /** For failure messages: what this peer has. */
  async describe() {
    const inbound = await this.call('inbound').catch((error) => error.message);
    const brief = Array.isArray(inbound)
      ? inbound.map(({ kind, streamId, packetsReceived, framesDecoded, width, codec, totalAudioEnergy }) => ({
          ...{ kind, streamId, packetsReceived, framesDecoded, width, codec, totalAudioEnergy },
        }))
      : inbound;
    const page = await this.page
      .evaluate(() => ({
        states: window.peer.client?.transports && window.peer.connectionStates(),
        remotes: window.peer.remoteStreams(),
        errors: window.peer.errors,
        closed: window.peer.closed,
      }))
      .catch((error) => error.message);
    return { uid: this.uid, inbound: brief, page, console: this.#console.slice(-10) };
  }

  /** Closes the page, as a closed tab does. */
  close() {
    return this.context.close();
  }
}
