// One picture in the gallery: a person (with or without camera) or a shared screen.
// Owns its video element, which also plays the stream's sound, and the wish that its size and its menu make.

import { Emitter } from "../call/emitter.js";
import { picture } from "../stats/format.js";
import { el, set, write } from "./dom.js";
import { icon } from "./icons.js";
import { menu } from "./menu.js";

/** Emits `wish` when what it wants may have changed, `pin`, and `blocked` when the browser refuses to play sound. */
export class Tile extends Emitter {
  #video = el("video", { playsinline: true, "aria-hidden": "true" });
  #initials = el("span");
  #avatar = el("div", { class: "avatar" }, this.#initials);
  #name = el("span", { class: "tile-name" });
  #muted = el("span", { class: "tile-muted", role: "img", "aria-label": "Microphone off" }, icon("microphone_off"));
  #numbers = el("p", { class: "tile-numbers", "data-testid": "tile-stats" });
  #menu_button = el("button", { type: "button", class: "tile-menu", "data-testid": "tile-menu" }, icon("more"));
  #box = { width: 0, height: 0 };
  #peer = null;
  #deaf = false;
  #mirrored = true;

  quality = "auto";
  pinned = false;
  stream = null;

  constructor({ key, kind, self }) {
    super();
    Object.assign(this, { key, kind, self });
    this.#video.muted = self;
    this.#video.addEventListener("resize", () => this.#show_picture());
    this.#video.addEventListener("playing", () => this.#show_picture());
    menu(this.#menu_button, () => this.#items());
    this.element = el("figure", {
      class: `tile tile-${kind}`,
      "data-testid": "tile",
      "data-kind": kind,
      "data-self": self,
      on: { dblclick: () => this.emit("pin") },
    }, this.#avatar, this.#video, this.#numbers, this.#menu_button,
    el("figcaption", { class: "tile-plate" }, this.#muted, this.#name));
  }

  /** @param {{peer: object, stream: ?MediaStream, layer: ?object}} what is to be shown now */
  update({ peer, stream, layer }) {
    this.#peer = peer;
    this.layer = layer;
    set(this.element, "data-uid", peer.uid);
    this.element.style.setProperty("--hue", hue_of(peer.uid));
    const whose = this.kind === "screen" ? (peer.self ? "Your screen" : `${peer.name}'s screen`) : peer.name;
    write(this.#name, peer.self && this.kind === "camera" ? `${whose} (you)` : whose);
    write(this.#initials, initials(peer.name));
    set(this.element, "aria-label", whose);
    set(this.#menu_button, "aria-label", `Options for ${whose}`);
    this.#muted.hidden = this.kind === "screen" || peer.audio;
    this.#play(stream);
    this.#show_picture();
    this.speaking(peer.speaking);
  }

  /** Marks the person as speaking, or not. */
  speaking(on) {
    this.element.classList.toggle("speaking", on && this.kind === "camera");
  }

  /** Puts the tile into its box, or out of sight with null. */
  place(box, is_large) {
    this.element.hidden = !box;
    this.#box = box ?? { width: 0, height: 0 };
    if (!box) return;
    const { style } = this.element;
    style.transform = `translate(${Math.round(box.x)}px, ${Math.round(box.y)}px)`;
    style.width = `${Math.floor(box.width)}px`;
    style.height = `${Math.floor(box.height)}px`;
    this.element.classList.toggle("large", is_large);
    this.element.classList.toggle("small", box.width < 200 || box.height < 140);
  }

  /** What of the stream is worth sending here; a picture much larger than its box is not. */
  get wanted() {
    const pixels = this.#box.height * devicePixelRatio;
    const automatic = this.kind === "screen" || pixels > 450 ? "high" : pixels > 225 ? "medium" : "low";
    const chosen = { auto: automatic, off: "none" }[this.quality] ?? this.quality;
    return { video: chosen, audio: !this.#deaf };
  }

  /** Shows the numbers of the last sample over the picture; null hides them. */
  numbers(row) {
    const parts = row && [picture(row), row.codec, this.layer?.activeLayer];
    write(this.#numbers, parts ? parts.filter((part) => part && part !== "–").join(" · ") : "");
    this.#numbers.hidden = !parts;
  }

  /** Tries again after the browser refused to play. */
  resume() {
    if (this.stream && this.#video.paused) this.#start();
  }

  close() {
    this.silence();
    this.#video.srcObject = null;
    this.element.remove();
  }

  #play(stream) {
    if (this.stream === stream) return;
    this.stream = stream;
    this.#video.srcObject = stream;
    if (stream) this.#start();
  }

  #start() {
    this.#video.play().catch(({ name }) => {
      if (name === "NotAllowedError") this.emit("blocked");
    });
  }

  #show_picture() {
    const tracks = (this.stream?.getVideoTracks() ?? []).filter(({ readyState }) => readyState === "live");
    const is_on = this.kind === "screen" || this.#peer?.video;
    const shown = is_on && this.quality !== "off" && tracks.length > 0 && this.#video.videoWidth > 0;
    this.element.classList.toggle("has-picture", shown);
    this.element.classList.toggle("mirrored", this.self && this.kind === "camera" && this.#mirrored);
  }

  #items() {
    const pin = { label: this.pinned ? "Unpin" : "Pin", id: "pin", run: () => this.emit("pin") };
    if (this.self) {
      const mirror = () => {
        this.#mirrored = !this.#mirrored;
        this.#show_picture();
      };
      return this.kind === "camera"
        ? [pin, { label: "Mirror my picture", checked: this.#mirrored, id: "mirror", run: mirror }]
        : [pin];
    }
    const choices = this.kind === "screen" ? ["auto", "off"] : QUALITIES;
    const qualities = choices.map((quality) => ({
      label: LABELS[quality],
      group: "quality",
      checked: quality === this.quality,
      id: `quality-${quality}`,
      run: () => this.#choose(quality),
    }));
    const deafen = () => {
      this.#deaf = !this.#deaf;
      this.emit("wish");
    };
    const hear = { label: "Mute for me", checked: this.#deaf, id: "mute-for-me", run: deafen };
    return [pin, hear, { heading: "Picture" }, ...qualities];
  }

  #choose(quality) {
    this.quality = quality;
    this.#show_picture();
    this.emit("wish");
  }
}

/** A colour for someone, the same on every screen. */
export function hue_of(uid) {
  return [...uid].reduce((hash, letter) => (hash * 31 + letter.codePointAt(0)) % 360, 7);
}

export function initials(name) {
  const words = name.split(/\s+/u).filter(Boolean);
  const letters = words.length > 1 ? [words[0], words.at(-1)] : words;
  return letters.map((word) => [...word][0]).join("").toLocaleUpperCase();
}

const QUALITIES = ["auto", "high", "medium", "low", "off"];
const LABELS = { auto: "Automatic", high: "High", medium: "Medium", low: "Low", off: "Off" };
