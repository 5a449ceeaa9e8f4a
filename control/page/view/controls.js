// The row of buttons under the gallery. Owns how they look; what they do is told to whoever listens.

import { Emitter } from "../call/emitter.js";
import { screen_can_be_shared } from "../media/local.js";
import { el } from "./dom.js";
import { icon } from "./icons.js";

/** Emits the name of the button that was pressed. */
export class Controls extends Emitter {
  #buttons = new Map();

  constructor() {
    super();
    this.element = el("div", { class: "controls", role: "toolbar", "aria-label": "Call", "data-testid": "controls" },
      this.#button("microphone", "M"),
      this.#button("camera", "V"),
      screen_can_be_shared() ? this.#button("screen") : null,
      el("span", { class: "controls-gap" }),
      this.#button("people"),
      this.#button("chat"),
      this.#button("network"),
      this.#button("invite"),
      el("span", { class: "controls-gap" }),
      this.#button("leave"));
    this.#paint("people", { shape: "people", label: "People" });
    this.#paint("chat", { shape: "chat", label: "Chat" });
    this.#paint("network", { shape: "graph", label: "Network" });
    this.#paint("invite", { shape: "link", label: "Invite", title: "Copy invite link" });
    this.#paint("leave", { shape: "leave", label: "Leave", danger: true });
  }

  /** @param {{microphone: boolean, camera: boolean, screen: boolean}} on what is being sent */
  update({ microphone, camera, screen }) {
    this.#paint("microphone", microphone
      ? { shape: "microphone", label: "Mute", title: "Mute the microphone" }
      : { shape: "microphone_off", label: "Unmute", title: "Unmute the microphone", off: true });
    this.#paint("camera", camera
      ? { shape: "camera", label: "Stop video", title: "Turn the camera off" }
      : { shape: "camera_off", label: "Start video", title: "Turn the camera on", off: true });
    this.#paint("screen", { shape: "screen", label: screen ? "Stop share" : "Share", title: screen ? "Stop sharing the screen" : "Share the screen", active: screen });
  }

  /** Marks the button of the panel's open page. */
  open(page) {
    for (const name of ["people", "chat", "network"]) {
      const button = this.#buttons.get(name).element;
      button.setAttribute("aria-pressed", String(name === page));
      button.classList.toggle("active", name === page);
    }
  }

  /** Shows a small number at a button; 0 takes it away. */
  badge(name, count) {
    const { badge } = this.#buttons.get(name);
    badge.hidden = count === 0;
    badge.textContent = count > 99 ? "99+" : String(count);
  }

  #button(name, key = null) {
    const face = el("span", { class: "control-face" });
    const label = el("span", { class: "control-label" });
    const badge = el("span", { class: "badge", hidden: true, "data-testid": `badge-${name}` });
    const element = el("button", {
      type: "button",
      class: `control control-${name}`,
      "data-testid": `control-${name}`,
      "aria-keyshortcuts": key,
      on: { click: () => this.emit(name) },
    }, face, label, badge);
    this.#buttons.set(name, { element, face, label, badge, key });
    return element;
  }

  #paint(name, { shape, label, title = label, off = false, active = false, danger = false }) {
    const button = this.#buttons.get(name);
    if (!button) return;
    const { element, face, label: text, key } = button;
    if (element.dataset.shape !== shape) face.replaceChildren(icon(shape));
    element.dataset.shape = shape;
    text.textContent = label;
    element.setAttribute("aria-label", title);
    element.title = key ? `${title} (${key})` : title;
    element.classList.toggle("off", off);
    element.classList.toggle("active", active);
    element.classList.toggle("danger", danger);
  }
}
