// People in a room of the real server: what one does, the others see and hear.

import assert from "node:assert/strict";
import { after, before, test } from "node:test";
import { launch } from "./browser.js";
import { start } from "./server.js";

let browser;
let server;

before(async () => {
  server = await start();
  browser = await launch();
});

after(async () => {
  await browser?.close();
  await server?.stop();
});

test("three people see and hear each other", async (t) => {
  const people = [];
  for (const name of ["Ann", "Bob", "Cas"]) people.push(await enter(t, "three", name));
  for (const page of people) {
    await until(page, () => document.querySelectorAll(".tile.has-picture").length === 3);
    await until(page, () => {
      const rows = ringmain.stats?.received ?? [];
      const moving = rows.filter(({ kind, fps }) => kind === "video" && fps > 3);
      const heard = rows.filter(({ kind, bps }) => kind === "audio" && bps > 1000);
      return moving.length === 2 && heard.length === 2;
    });
  }
  await until(people[0], () => ringmain.peers.filter(({ self, speaking }) => !self && speaking).length === 2);
});

test("a muted microphone is marked for those present and those who come later", async (t) => {
  const ann = await enter(t, "mute", "Ann");
  const bob = await enter(t, "mute", "Bob");
  await ann.keyboard.press("m");
  await until(bob, () => ringmain.peers.find(({ name }) => name === "Ann")?.audio === false);
  const cas = await enter(t, "mute", "Cas");
  await until(cas, () => ringmain.peers.find(({ name }) => name === "Ann")?.audio === false);
  await ann.keyboard.press("m");
  await until(cas, () => ringmain.peers.find(({ name }) => name === "Ann")?.audio === true);
});

test("a camera goes off and on again", async (t) => {
  const ann = await enter(t, "camera", "Ann");
  const bob = await enter(t, "camera", "Bob");
  await sees(bob, "Ann");
  await ann.keyboard.press("v");
  await tile(bob, "Ann").locator(".avatar").waitFor({ state: "visible" });
  await ann.keyboard.press("v");
  await sees(bob, "Ann");
  await until(bob, () => (ringmain.stats?.received ?? []).some(({ kind, fps }) => kind === "video" && fps > 3));
});

test("everyone gets a chat line once", async (t) => {
  const ann = await enter(t, "chat", "Ann");
  const bob = await enter(t, "chat", "Bob");
  const cas = await enter(t, "chat", "Cas");
  await until(ann, () => ringmain.peers.length === 3);
  await ann.getByTestId("control-chat").click();
  await ann.keyboard.type("Hello you two");
  await ann.keyboard.press("Enter");
  for (const page of [bob, cas]) {
    await page.getByTestId("control-chat").click();
    await page.getByTestId("chat-line").getByText("Hello you two").waitFor();
    assert.equal(await page.getByTestId("chat-line").count(), 1);
  }
});

test("the layer that is chosen is the layer that comes", async (t) => {
  await enter(t, "layers", "Ann");
  const bob = await enter(t, "layers", "Bob");
  await sees(bob, "Ann");
  for (const [quality, height] of [["low", 180], ["medium", 360], ["high", 720], ["low", 180]]) {
    await tile(bob, "Ann").getByTestId("tile-menu").click();
    await bob.getByTestId(`menu-quality-${quality}`).click();
    await until(bob, (wanted) => (ringmain.stats?.received ?? []).some((row) => row.height === wanted && row.fps > 3), height);
  }
});

test("a shared screen is large for the others, as often as it is shared", async (t) => {
  const ann = await enter(t, "screen", "Ann");
  const bob = await enter(t, "screen", "Bob");
  for (let round = 0; round < 2; round += 1) {
    await ann.getByTestId("control-screen").click();
    await bob.locator(".tile.large.has-picture[data-kind=screen]").waitFor();
    await sees(bob, "Ann");
    await ann.getByTestId("control-screen").click();
    await bob.locator(".tile[data-kind=screen]").waitFor({ state: "detached" });
  }
  assert.equal(await bob.getByTestId("tile").count(), 2);
});

test("who comes without devices sees, is seen in name, and can talk later", async (t) => {
  const ann = await enter(t, "viewer", "Ann");
  const bob = await enter(t, "viewer", "Bob", { devices: false });
  await sees(bob, "Ann");
  await tile(ann, "Bob").locator(".avatar").waitFor({ state: "visible" });
  await bob.keyboard.press("m");
  await until(ann, () => (ringmain.stats?.received ?? []).some(({ kind, bps }) => kind === "audio" && bps > 1000));
  await bob.keyboard.press("v");
  await sees(ann, "Bob");
});

test("restarting ICE changes the credentials and nothing else", async (t) => {
  const ann = await enter(t, "ice", "Ann");
  const [before, after, state] = await ann.evaluate(async () => {
    const { Connection } = await import("/call/connection.js");
    const connection = new Connection("VP8");
    const stream = document.querySelector(".tile[data-self] video").srcObject;
    await connection.publisher.set("video", stream.getVideoTracks()[0], stream);
    await connection.join({ url: `ws://${location.host}/ws`, sid: "ice", uid: "bob", info: { name: "Bob" } });
    const ufrag = async () => [...(await connection.publisher.stats()).values()].find(({ type }) => type === "transport").iceLocalUsernameFragment;
    while (connection.publisher.state !== "connected") await new Promise((done) => setTimeout(done, 50));
    const first = await ufrag();
    await connection.publisher.restart();
    await new Promise((done) => setTimeout(done, 3000));
    window.bob = connection;
    return [first, await ufrag(), connection.publisher.state];
  });
  assert.notEqual(after, before);
  assert.equal(state, "connected");
  await until(ann, () => (ringmain.stats?.received ?? []).some(({ kind, fps }) => kind === "video" && fps > 3));
  await ann.evaluate(() => window.bob.close());
});

test("who leaves is gone at once", async (t) => {
  const ann = await enter(t, "leave", "Ann");
  const bob = await enter(t, "leave", "Bob");
  await sees(ann, "Bob");
  await bob.getByTestId("control-leave").click();
  await tile(ann, "Bob").waitFor({ state: "detached" });
  assert.deepEqual(await ann.evaluate(() => ringmain.peers.map(({ name }) => name)), ["Ann"]);
});

test("rooms do not hear of each other", async (t) => {
  const ann = await enter(t, "one", "Ann");
  await enter(t, "other", "Bob");
  await ann.waitForTimeout(1500);
  assert.deepEqual(await ann.evaluate(() => ringmain.peers.map(({ name }) => name)), ["Ann"]);
});

test("a server that comes back finds everyone again", async (t) => {
  let own = await start();
  t.after(() => own.stop());
  const ann = await enter(t, "restart", "Ann", { at: own });
  const bob = await enter(t, "restart", "Bob", { at: own });
  await sees(ann, "Bob");
  await own.stop("SIGKILL");
  await ann.getByTestId("banner").waitFor();
  own = await start({ ports: own.ports });
  for (const [page, other] of [[ann, "Bob"], [bob, "Ann"]]) {
    await until(page, () => ringmain.state === "live" && ringmain.peers.length === 2);
    await sees(page, other);
    await until(page, () => (ringmain.stats?.received ?? []).some(({ kind, fps }) => kind === "video" && fps > 3));
  }
});

test("the network panel draws the frame rate of every tile", async (t) => {
  const ann = await enter(t, "graphs", "Ann");
  const bob = await enter(t, "graphs", "Bob");
  await sees(ann, "Bob");
  await ann.getByTestId("control-network").click();
  const graphs = ann.getByTestId("tile-graphs");
  await graphs.getByText("Bob").waitFor();
  await until(ann, () => {
    const graph = document.querySelector("[data-testid=tile-graphs] canvas");
    return /^Frame rate: ([4-9]|[1-9]\d) fps$/.test(graph?.getAttribute("aria-label") ?? "");
  });
  await bob.close();
  await graphs.waitFor({ state: "hidden" });
});

async function enter(t, room, name, { at = server, devices = true } = {}) {
  const context = await browser.newContext({ viewport: { width: 1280, height: 800 }, permissions: ["camera", "microphone"] });
  const page = await context.newPage();
  page.setDefaultTimeout(30_000);
  const faults = [];
  page.on("pageerror", (error) => faults.push(error.stack));
  t.after(async () => {
    await context.close();
    assert.deepEqual(faults, [], "nothing goes wrong unseen");
  });
  await page.goto(`${at.url}/?room=${room}`);
  await page.getByTestId("name").fill(name);
  await page.waitForFunction(() => document.querySelector("[data-testid=preview]").videoWidth > 0);
  if (!devices) {
    await page.getByTestId("select-camera").selectOption("");
    await page.getByTestId("select-microphone").selectOption("");
  }
  await page.getByTestId("join").click();
  await page.getByTestId("call").waitFor();
  await until(page, () => ringmain.state === "live");
  return page;
}

function tile(page, name) {
  return page.locator(`.tile[data-kind=camera][aria-label="${name}"]`);
}

function sees(page, name) {
  return page.locator(`.tile.has-picture[data-kind=camera][aria-label="${name}"]`).waitFor();
}

function until(page, condition, value = null) {
  return page.waitForFunction(condition, value, { polling: 200 });
}
