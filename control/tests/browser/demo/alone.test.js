// The page by itself, against a room server that lives inside it: what people see and what the page says to a server.

import assert from "node:assert/strict";
import { after, before, test } from "node:test";
import { launch, serve } from "./browser.js";
import { install } from "./fake_server.js";

let browser;
let site;

before(async () => {
  site = await serve();
  browser = await launch();
});

after(async () => {
  await browser?.close();
  site?.close();
});

const ANN = { uid: "ann", name: "Ann" };
const BOB = { uid: "bob", name: "Bob", audio: false };

test("join offers opus, three layers and a channel, under a name", async (t) => {
  const page = await enter(t, []);
  const [{ sid, uid, info, sdp }] = await page.evaluate(() => fakeRoom.joins);
  assert.equal(sid, "tests");
  assert.match(uid, /^[0-9a-f]{16}$/);
  assert.deepEqual(info, { name: "Dee" });
  assert.match(sdp, /a=simulcast:send f;h;q/);
  assert.match(sdp, /m=application/);
  assert.deepEqual([...sdp.matchAll(/a=rtpmap:\d+ (opus|PCMU|G722)/g)].map(([, codec]) => codec), ["opus"]);
  assert.equal(await page.getByText("Nobody else is here yet").isVisible(), true);
});

test("everyone has a tile with name, picture and mute mark", async (t) => {
  const page = await enter(t, [ANN, BOB, { uid: "cas", name: "Cas", camera: false }]);
  await shows(page, "ann");
  await shows(page, "bob");
  assert.equal(await tile(page, "cas").locator(".avatar").isVisible(), true);
  await tile(page, "bob").getByLabel("Microphone off").waitFor();
  assert.equal(await tile(page, "ann").getByLabel("Microphone off").isVisible(), false);
  assert.deepEqual(await page.evaluate(() => ringmain.peers.map(({ name }) => name)), ["Ann", "Bob", "Cas", "Dee"]);
});

test("who joins later appears, and who leaves goes", async (t) => {
  const page = await enter(t, [ANN]);
  await page.evaluate((peer) => fakeRoom.add(peer), BOB);
  await shows(page, "bob");
  await page.evaluate(() => fakeRoom.leave("ann"));
  await tile(page, "ann").waitFor({ state: "detached" });
  await shows(page, "bob");
});

test("the one who speaks is marked", async (t) => {
  const page = await enter(t, [ANN, BOB]);
  await shows(page, "ann");
  await page.evaluate(() => fakeRoom.speak("ann"));
  await page.locator(".tile.speaking[data-uid=ann]").waitFor();
  await page.evaluate(() => fakeRoom.speak("bob"));
  await page.locator(".tile.speaking[data-uid=ann]").waitFor({ state: "detached" });
});

test("names and messages of others stay text", async (t) => {
  const page = await enter(t, [{ uid: "mallory", name: "<img src=x onerror=alert(1)>" }]);
  await shows(page, "mallory");
  await page.evaluate(() => {
    fakeRoom.say("mallory", "<script>document.title = 'owned'</script>");
    fakeRoom.gossip({ type: "state", uid: "mallory", audio: "yes", streams: [1, { a: null }] });
    fakeRoom.gossip({ type: "chat", uid: "nobody", text: "I am not here" });
    fakeRoom.gossip({ type: "chat", uid: "mallory", text: "x".repeat(20000) });
    for (const text of ["{", "null", "[]", '{"type":"__proto__","id":"1","uid":"mallory"}']) fakeRoom.socket.channel.send(text);
  });
  await page.getByTestId("control-chat").click();
  await page.getByText("<script>document.title").first().waitFor();
  assert.equal(await page.getByTestId("chat-line").count(), 1);
  assert.equal(await page.locator("img").count(), 0);
  assert.equal(await page.title(), "tests · Ringmain");
  assert.equal(await tile(page, "mallory").locator(".tile-name").textContent(), "<img src=x onerror=alert(1)>");
});

test("chat goes both ways and counts what was not read", async (t) => {
  const page = await enter(t, [ANN]);
  await shows(page, "ann");
  await page.evaluate(() => fakeRoom.say("ann", "Morning!"));
  await page.getByTestId("badge-chat").waitFor();
  assert.equal(await page.getByTestId("badge-chat").textContent(), "1");
  await page.getByTestId("control-chat").click();
  assert.equal(await page.getByTestId("badge-chat").isVisible(), false);
  await page.keyboard.type("Good morning");
  await page.keyboard.press("Enter");
  await until(page, () => fakeRoom.said.some(({ type, text }) => type === "chat" && text === "Good morning"));
  assert.equal(await page.getByTestId("chat-line").count(), 2);
});

test("muting tells the others and lets go of the camera", async (t) => {
  const page = await enter(t, [ANN]);
  await shows(page, "ann");
  await page.keyboard.press("m");
  await until(page, () => fakeRoom.said.findLast(({ type }) => type === "state")?.audio === false);
  await page.keyboard.press("v");
  await until(page, () => fakeRoom.said.findLast(({ type }) => type === "state")?.video === false);
  await until(page, () => document.querySelector(".tile[data-self] video").srcObject.getVideoTracks().length === 0);
  await page.keyboard.press("v");
  await until(page, () => fakeRoom.said.findLast(({ type }) => type === "state")?.video === true);
});

test("the menu of a tile chooses a layer by keyboard alone", async (t) => {
  const page = await enter(t, [ANN]);
  await shows(page, "ann");
  const id = await page.evaluate(() => fakeRoom.stream("ann", "camera"));
  const last = () => page.evaluate((stream) => fakeRoom.wishes.findLast(({ streamId }) => streamId === stream), id);
  await until(page, () => fakeRoom.wishes.length > 0);
  assert.deepEqual(await last(), { streamId: id, video: "high", audio: true }, "a large tile");
  await tile(page, "ann").getByTestId("tile-menu").focus();
  await page.keyboard.press("Enter");
  await page.keyboard.press("End");
  await page.keyboard.press("ArrowUp");
  await page.keyboard.press("Enter");
  await until(page, () => fakeRoom.wishes.at(-1).video === "low");
  assert.equal(await page.evaluate(() => document.activeElement.dataset.testid), "tile-menu", "focus comes back");
  await tile(page, "ann").getByTestId("tile-menu").click();
  await page.getByTestId("menu-quality-off").click();
  await until(page, () => fakeRoom.wishes.at(-1).video === "none");
  await tile(page, "ann").locator(".avatar").waitFor({ state: "visible" });
});

test("a shared screen is large, and its end brings the gallery back", async (t) => {
  const page = await enter(t, [ANN, { ...BOB, screen: true }]);
  await page.locator(".tile.large[data-kind=screen][data-uid=bob].has-picture").waitFor();
  await page.evaluate(() => fakeRoom.leave("bob"));
  await page.locator(".tile.large").waitFor({ state: "detached" });
});

test("a lost connection is made again under the same uid", async (t) => {
  const page = await enter(t, [ANN]);
  await shows(page, "ann");
  await page.evaluate(() => {
    fakeRoom.refuse = "connection";
    fakeRoom.drop(1006);
  });
  await page.getByTestId("banner").waitFor();
  await page.evaluate(() => { fakeRoom.refuse = null; });
  await until(page, () => fakeRoom.joins.length === 2 && ringmain.state === "live");
  const [first, second] = await page.evaluate(() => fakeRoom.joins);
  assert.equal(second.uid, first.uid);
  await shows(page, "ann");
  assert.equal(await page.getByTestId("banner").isVisible(), false);
  assert.equal(await page.getByTestId("tile").count(), 2);
});

test("who was replaced does not come back to fight for the place", async (t) => {
  const page = await enter(t, [ANN]);
  await page.evaluate(() => fakeRoom.drop(4001));
  await page.getByTestId("farewell").waitFor();
  await page.waitForTimeout(1500);
  assert.equal(await page.evaluate(() => fakeRoom.joins.length), 1);
});

test("a full room says so in the lobby", async (t) => {
  const page = await lobby(t, []);
  await page.evaluate(() => { fakeRoom.refuse = { code: -32006, message: "the room is full" }; });
  await page.getByTestId("join").click();
  await page.getByText("the room is full").waitFor();
  await page.evaluate(() => { fakeRoom.refuse = null; });
  await page.getByTestId("join").click();
  await page.getByTestId("call").waitFor();
});

test("leaving stops the devices", async (t) => {
  const page = await enter(t, [ANN]);
  await page.evaluate(() => { window.tracks = document.querySelector(".tile[data-self] video").srcObject.getTracks(); });
  await page.getByTestId("control-leave").click();
  await page.getByTestId("farewell").waitFor();
  assert.deepEqual(await page.evaluate(() => window.tracks.map(({ readyState }) => readyState)), ["ended", "ended"]);
  assert.equal(await page.evaluate(() => ringmain.state), "lobby");
});

test("without devices one joins as a viewer", async (t) => {
  const bare = await launch({ devices: false });
  t.after(() => bare.close());
  const page = await lobby(t, [ANN], { from: bare, permissions: [] });
  await page.getByTestId("lobby-message").filter({ hasText: /.+/ }).waitFor();
  await page.getByTestId("join").click();
  await shows(page, "ann");
  const [{ sdp }] = await page.evaluate(() => fakeRoom.joins);
  assert.doesNotMatch(sdp, /m=(audio|video)/);
});

test("nothing is wider than a phone of 360 pixels", async (t) => {
  const page = await lobby(t, [ANN, BOB], { width: 360, height: 640 });
  const fits = () => page.evaluate(() => document.documentElement.scrollWidth <= innerWidth);
  assert.equal(await fits(), true, "lobby");
  await page.getByTestId("join").click();
  await shows(page, "bob");
  assert.equal(await fits(), true, "room");
  for (const name of ["people", "chat", "network"]) {
    await page.getByTestId(`control-${name}`).click();
    assert.equal(await fits(), true, name);
  }
  const box = await page.getByTestId("control-leave").boundingBox();
  assert.ok(box.x >= 0 && box.x + box.width <= 360, `leave is in view: ${JSON.stringify(box)}`);
});

test("numbers come every second", async (t) => {
  const page = await enter(t, [ANN]);
  await shows(page, "ann");
  await page.getByTestId("control-network").click();
  await until(page, () => ringmain.stats?.in_bps > 10_000 && ringmain.stats.received[0]?.height === 360);
  await page.getByTestId("network").getByRole("cell", { name: "Ann" }).waitFor();
  await page.getByTestId("tile-graphs").getByRole("heading", { name: "Ann" }).waitFor();
  assert.match(await tile(page, "ann").getByTestId("tile-stats").textContent(), /640×360/);
});

async function lobby(t, peers, { from = browser, width = 1280, height = 800, permissions = ["camera", "microphone"] } = {}) {
  const context = await from.newContext({ viewport: { width, height }, permissions });
  const page = await context.newPage();
  const faults = [];
  page.on("pageerror", (error) => faults.push(error.stack));
  page.on("console", (message) => message.type() === "error" && faults.push(message.text()));
  t.after(async () => {
    await context.close();
    assert.deepEqual(faults, [], "nothing goes wrong unseen");
  });
  page.setDefaultTimeout(15_000);
  await page.addInitScript(install, peers);
  await page.goto(`${site.url}/?room=tests`);
  await page.getByTestId("name").fill("Dee");
  if (permissions.length) await page.waitForFunction(() => document.querySelector("[data-testid=preview]").videoWidth > 0);
  return page;
}

async function enter(t, peers) {
  const page = await lobby(t, peers);
  await page.getByTestId("join").click();
  await page.getByTestId("call").waitFor();
  await until(page, () => ringmain.state === "live");
  return page;
}

function tile(page, uid) {
  return page.locator(`.tile[data-uid="${uid}"][data-kind=camera]`);
}

function shows(page, uid) {
  return page.locator(`.tile.has-picture[data-uid="${uid}"][data-kind=camera]`).waitFor();
}

function until(page, condition) {
  return page.waitForFunction(condition, null, { polling: 100 });
}
