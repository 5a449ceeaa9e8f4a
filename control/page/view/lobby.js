// The way in: a name, a room, and a look at oneself before others have it.
// Owns the preview. Turns devices on and off, but they belong to `LocalMedia` and go on into the room.

import * as address from "../address.js";
import { Emitter } from "../call/emitter.js";
import { Level } from "../media/level.js";
import { devices_are_allowed, list_devices } from "../media/local.js";
import { recall, remember } from "../memory.js";
import { el, set } from "./dom.js";
import { icon } from "./icons.js";
import { brand } from "./brand.js";

/** Emits `join` ({name, sid}). */
export class Lobby extends Emitter {
  #local;
  #level = null;
  #frame = 0;
  #ends = [];
  #video = el("video", { muted: true, playsinline: true, "aria-label": "Your camera", "data-testid": "preview" });
  #nothing = el("p", { class: "preview-nothing", text: "Your camera is off" });
  #meter = el("div", { class: "meter", "aria-hidden": "true", "data-testid": "meter" }, el("div", { class: "meter-bar" }));
  #microphone = this.#toggle("microphone", "lobby-microphone", () => this.#toggle_microphone());
  #camera = this.#toggle("camera", "lobby-camera", () => this.#toggle_camera());
  #cameras = el("select", { id: "camera", "data-testid": "select-camera", on: { change: () => this.#pick("video") } });
  #microphones = el("select", { id: "microphone", "data-testid": "select-microphone", on: { change: () => this.#pick("audio") } });
  #message = el("p", { class: "lobby-message", role: "status", "data-testid": "lobby-message" });
  #name = el("input", { id: "name", autocomplete: "name", maxlength: "48", placeholder: "How others see you", "data-testid": "name" });
  #room = el("input", { id: "room", autocomplete: "off", spellcheck: "false", required: true, maxlength: String(address.ROOM_LENGTH_MAX), "data-testid": "room" });
  #join = el("button", { type: "submit", class: "primary", text: "Join", "data-testid": "join" });

  constructor(local) {
    super();
    this.#local = local;
    this.#video.muted = true;
    this.#name.value = recall().name ?? "";
    this.#room.value = address.room() || address.suggestion();
    this.element = el("main", { class: "lobby", "data-testid": "lobby" },
      el("header", { class: "lobby-head" }, brand()),
      el("section", { class: "preview", "aria-label": "Preview" },
        this.#video, this.#nothing, this.#meter,
        el("div", { class: "preview-controls" }, this.#microphone, this.#camera)),
      this.#form());
    this.#ends.push(local.on("change", () => this.#update()));
    const changed = () => this.#list();
    navigator.mediaDevices?.addEventListener("devicechange", changed);
    this.#ends.push(() => navigator.mediaDevices?.removeEventListener("devicechange", changed));
    this.#update();
    this.#open();
  }

  /** Says what went wrong with joining, and lets the person try again. */
  refuse(why) {
    this.#busy(false);
    this.#say(why, "error");
  }

  close() {
    this.silence();
    for (const end of this.#ends.splice(0)) end();
    this.#stop_meter();
    this.#video.srcObject = null;
    this.element.remove();
  }

  #form() {
    return el("form", {
      class: "lobby-form",
      on: {
        submit: (event) => {
          event.preventDefault();
          this.#submit();
        },
      },
    },
    el("h1", { text: "Ready to join?" }),
    field("Your name", this.#name),
    field("Room", this.#room),
    el("div", { class: "fields" }, field("Camera", this.#cameras), field("Microphone", this.#microphones)),
    this.#message,
    this.#join,
    el("p", { class: "lobby-note", text: "Media runs through this server only. Rooms open with the first person and vanish with the last." }));
  }

  #toggle(name, testid, run) {
    return el("button", { type: "button", class: "round glass", "data-testid": testid, on: { click: run } }, icon(name));
  }

  /** Devices of the last visit, unless the person then had none. */
  async #open() {
    const { devices = {}, without = false } = recall();
    this.#local.remember(devices);
    if (without) return this.#list();
    const said = await this.#local.start();
    if (said) this.#say(said, "hint");
    return this.#list();
  }

  async #list() {
    const { video, audio } = await list_devices();
    this.#options(this.#cameras, video, "No camera", "Camera", this.#local.camera_on, this.#local.device_id("video"));
    this.#options(this.#microphones, audio, "No microphone", "Microphone", this.#local.microphone !== null, this.#local.device_id("audio"));
  }

  #options(select, devices, none, noun, is_on, current) {
    const options = devices.map(({ id, label }, index) => el("option", { value: id, text: label || `${noun} ${index + 1}` }));
    select.replaceChildren(el("option", { value: "", text: none }), ...options);
    select.value = is_on ? current : "";
    if (select.selectedIndex < 0) select.selectedIndex = is_on && options.length ? 1 : 0;
    select.disabled = !devices_are_allowed();
  }

  async #pick(kind) {
    const { value } = kind === "video" ? this.#cameras : this.#microphones;
    await this.#try(() => {
      if (kind === "video") return value ? this.#local.start_camera(value) : this.#local.stop_camera();
      return value ? this.#local.start_microphone(value) : this.#local.stop_microphone();
    });
  }

  #toggle_microphone() {
    return this.#try(() => this.#local.set_microphone(!this.#local.microphone_on));
  }

  #toggle_camera() {
    return this.#try(() => (this.#local.camera_on ? this.#local.stop_camera() : this.#local.start_camera()));
  }

  async #try(step) {
    this.#say("");
    try {
      await step();
    } catch (error) {
      this.#say(error.message, "hint");
    }
    await this.#list();
  }

  #update() {
    const { camera_on, microphone_on, microphone, stream } = this.#local;
    paint(this.#camera, camera_on, "camera", "camera_off", camera_on ? "Turn the camera off" : "Turn the camera on");
    paint(this.#microphone, microphone_on, "microphone", "microphone_off", microphone_on ? "Mute the microphone" : "Unmute the microphone");
    this.#video.hidden = !camera_on;
    this.#nothing.hidden = camera_on;
    if (camera_on && this.#video.srcObject !== stream) this.#video.srcObject = stream;
    if (camera_on) this.#video.play().catch(() => {});
    this.#stop_meter();
    if (microphone && microphone_on) this.#start_meter(microphone);
    this.#meter.hidden = !microphone_on;
  }

  #start_meter(track) {
    this.#level = new Level(track);
    const step = () => {
      this.#meter.style.setProperty("--level", this.#level.read().toFixed(3));
      this.#frame = requestAnimationFrame(step);
    };
    step();
  }

  #stop_meter() {
    cancelAnimationFrame(this.#frame);
    this.#level?.close();
    this.#level = null;
  }

  #submit() {
    const name = this.#name.value.trim();
    const sid = this.#room.value.trim();
    if (!sid) return this.refuse("A room needs a name.");
    remember({
      name,
      without: !this.#local.camera && !this.#local.microphone && devices_are_allowed(),
      devices: { audio: this.#local.device_id("audio"), video: this.#local.device_id("video") },
    });
    this.#say("");
    this.#busy(true);
    return this.emit("join", { name, sid });
  }

  #busy(on) {
    this.#join.disabled = on;
    this.#join.textContent = on ? "Joining…" : "Join";
  }

  #say(text, kind = "") {
    this.#message.textContent = text;
    this.#message.className = `lobby-message ${kind}`;
  }
}

function field(label, control) {
  return el("div", { class: "field" }, el("label", { for: control.id, text: label }), control);
}

function paint(button, on, shape, shape_off, label) {
  button.replaceChildren(icon(on ? shape : shape_off));
  button.classList.toggle("off", !on);
  set(button, "aria-label", label);
  button.title = label;
}
