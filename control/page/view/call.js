// The room on the screen: gallery, controls and panel, kept in step with `Room`, `LocalMedia` and the numbers.
// Owns the views and tells them apart; decides nothing about the call itself.

import * as address from "../address.js";
import { Emitter } from "../call/emitter.js";
import { milliseconds } from "../stats/format.js";
import { Sampler } from "../stats/sampler.js";
import { brand } from "./brand.js";
import { Chat } from "./chat.js";
import { Controls } from "./controls.js";
import { el, write } from "./dom.js";
import { Network } from "./network.js";
import { Notices } from "./notices.js";
import { Panel } from "./panel.js";
import { People } from "./people.js";
import { Stage } from "./stage.js";

/** Emits `leave`. */
export class Call extends Emitter {
  #room;
  #local;
  #ends = [];
  #chat = new Chat();
  #people = new People();
  #network = new Network();
  #controls = new Controls();
  #notices = new Notices();
  #panel;
  #stage;
  #unread = 0;
  #due = false;
  #status_text = el("span");
  #status = el("span", { class: "status", role: "status", "data-testid": "status" }, el("i", { class: "status-dot" }), this.#status_text);
  #banner = el("p", { class: "banner", role: "alert", hidden: true, "data-testid": "banner" });

  sampler;

  constructor(room, local) {
    super();
    this.#room = room;
    this.#local = local;
    this.sampler = new Sampler(room);
    this.#stage = new Stage(room);
    this.#panel = new Panel({
      people: { label: "People", element: this.#people.element },
      chat: { label: "Chat", element: this.#chat.element },
      network: { label: "Network", element: this.#network.element },
    });
    this.element = el("main", { class: "call", "data-testid": "call" },
      el("header", { class: "call-head" }, brand(),
        el("h1", { class: "call-room", text: room.sid, title: room.sid, "data-testid": "room-name" }), this.#status),
      this.#banner,
      el("div", { class: "call-body" }, this.#stage.element, this.#panel.element),
      this.#controls.element,
      this.#notices.element);
    this.#wire();
    this.#panel.show(null);
    this.#show_status({ state: room.state, why: "" });
    this.#update();
  }

  close() {
    this.silence();
    for (const end of this.#ends.splice(0)) end();
    this.sampler.close();
    this.#stage.close();
    this.element.remove();
  }

  #wire() {
    const [room, controls] = [this.#room, this.#controls];
    this.#ends.push(
      room.on("change", () => this.#update_soon()),
      room.on("speakers", () => this.#update_speakers()),
      room.on("status", (status) => this.#show_status(status)),
      room.on("chat", (line) => this.#hear(line)),
      room.on("refused", (error) => this.#notices.say(`The server did not accept that: ${error.message}`)),
      this.#local.on("change", () => this.#update_soon()),
      this.#local.on("lost", (message) => this.#notices.say(message)),
    );
    const pages = ["people", "chat", "network"];
    for (const page of pages) controls.on(page, () => this.#panel.toggle(page));
    controls.on("microphone", () => this.#try(() => this.#local.set_microphone(!this.#local.microphone_on)));
    controls.on("camera", () => this.#try(() => (this.#local.camera_on ? this.#local.stop_camera() : this.#local.start_camera())));
    controls.on("screen", () => this.#try(() => (this.#local.screen ? this.#local.stop_screen() : this.#local.start_screen())));
    controls.on("invite", () => this.#invite());
    controls.on("leave", () => this.emit("leave"));
    this.#panel.on("change", (page) => this.#handle_page(page));
    this.#chat.on("say", (text) => this.#say(text));
    this.#stage.on("blocked", () => this.#ask_for_touch());
    this.sampler.on("sample", (sample) => this.#draw(sample));
    const key = (event) => this.#handle_key(event);
    document.addEventListener("keydown", key);
    this.#ends.push(() => document.removeEventListener("keydown", key));
  }

  /** Once per frame, however many things changed in it. */
  #update_soon() {
    if (this.#due) return;
    this.#due = true;
    setTimeout(() => {
      this.#due = false;
      this.#update();
    }, 0);
  }

  #update() {
    const { microphone_on, camera_on, screen } = this.#local;
    this.#controls.update({ microphone: microphone_on, camera: camera_on, screen: Boolean(screen) });
    this.#controls.badge("people", this.#room.roster.peers.length);
    this.#stage.update();
    this.#people.update(this.#everyone());
  }

  #update_speakers() {
    this.#stage.update_speakers();
    this.#people.update(this.#everyone());
  }

  #everyone() {
    const { microphone_on, camera_on } = this.#local;
    return this.#room.roster.peers.map((peer) => (
      peer.self ? { ...peer, audio: microphone_on, video: camera_on } : peer));
  }

  #show_status({ state, why }) {
    this.#status.dataset.state = state;
    write(this.#status_text, STATUS[state] ?? "");
    const is_trouble = state === "reconnecting" && why;
    this.#banner.hidden = !is_trouble;
    write(this.#banner, is_trouble ? `${why.replace(/\.?$/, ".")} Reconnecting…` : "");
    this.#update_soon();
  }

  #draw(sample) {
    const rtt = sample.rtt_ms === null ? "" : ` · ${milliseconds(sample.rtt_ms)}`;
    if (this.#room.state === "live") write(this.#status_text, STATUS.live + rtt);
    this.#stage.update_numbers(sample);
    if (this.#panel.open === "network") this.#network.draw(this.sampler.history, (id) => this.#origin(id));
  }

  #origin(track_id) {
    const { roster, layers } = this.#room;
    for (const peer of roster.others) {
      for (const { stream, kind } of roster.media(peer)) {
        if (!stream.getTracks().some(({ id }) => id === track_id)) continue;
        return { who: kind === "screen" ? `${peer.name}'s screen` : peer.name, layer: layers.get(stream.id)?.activeLayer };
      }
    }
    return null;
  }

  #handle_page(page) {
    this.#controls.open(page);
    this.#stage.show_numbers(page === "network");
    if (page === "chat") {
      this.#unread = 0;
      this.#controls.badge("chat", 0);
      this.#chat.focus();
    }
    if (page === "network" && this.sampler.last) this.#draw(this.sampler.last);
  }

  #hear(line) {
    this.#chat.add(line);
    if (this.#panel.open === "chat") return;
    this.#unread += 1;
    this.#controls.badge("chat", this.#unread);
    this.#notices.say(`${line.peer.name}: ${[...line.text].slice(0, 80).join("")}`);
  }

  #say(text) {
    if (this.#room.say(text)) {
      this.#chat.add({ peer: { uid: this.#room.uid, name: this.#room.name }, text, self: true });
    } else {
      this.#chat.refuse(text);
      this.#notices.say("The message could not be sent. Try again when the connection is back.");
    }
  }

  async #invite() {
    const link = address.invite(this.#room.sid);
    try {
      await navigator.clipboard.writeText(link);
      this.#notices.say("The invite link is copied.");
    } catch {
      // Pages that came without HTTPS may not write to the clipboard.
      this.#notices.say(`Send this link: ${link}`);
    }
  }

  async #try(step) {
    try {
      await step();
    } catch (error) {
      this.#notices.say(error.message);
    }
  }

  #ask_for_touch() {
    this.#notices.say("Click anywhere to hear the others.");
    addEventListener("click", () => this.#stage.resume(), { once: true });
  }

  #handle_key(event) {
    const is_typing = event.target.closest("input, textarea, select, [role=menu]");
    if (is_typing || event.ctrlKey || event.metaKey || event.altKey || event.repeat) return;
    if (event.key === "m") this.#controls.emit("microphone");
    if (event.key === "v") this.#controls.emit("camera");
  }
}

const STATUS = {
  joining: "Joining…",
  connecting: "Connecting…",
  live: "Connected",
  reconnecting: "Reconnecting…",
  over: "Left",
};
