// The panel beside the gallery (over it, on a phone), with one page at a time (WAI-ARIA tabs pattern).

import { Emitter } from "../call/emitter.js";
import { el } from "./dom.js";
import { icon } from "./icons.js";

/** Emits `change` (the name of the open page, or null). */
export class Panel extends Emitter {
  #pages;
  #tabs = new Map();

  open = null;

  /** @param {Record<string, {label: string, element: HTMLElement}>} pages */
  constructor(pages) {
    super();
    this.#pages = pages;
    for (const [name, { label, element }] of Object.entries(pages)) {
      this.#tabs.set(name, el("button", {
        type: "button",
        role: "tab",
        id: `tab-${name}`,
        "aria-controls": `page-${name}`,
        "data-testid": `tab-${name}`,
        text: label,
        on: { click: () => this.show(name) },
      }));
      element.id = `page-${name}`;
      element.setAttribute("role", "tabpanel");
      element.setAttribute("aria-labelledby", `tab-${name}`);
    }
    const close = el("button", {
      type: "button", class: "round quiet", "aria-label": "Close panel", "data-testid": "panel-close",
      on: { click: () => this.show(null) },
    }, icon("close"));
    const tabs = el("div", { role: "tablist", "aria-label": "Panel", on: { keydown: (event) => this.#handle_key(event) } },
      ...this.#tabs.values());
    this.element = el("aside", {
      class: "panel",
      hidden: true,
      "data-testid": "panel",
      on: { keydown: (event) => event.key === "Escape" && this.show(null) },
    }, el("div", { class: "panel-head" }, tabs, close), ...Object.values(pages).map(({ element }) => element));
  }

  /** Opens a page; null closes the panel. */
  show(name) {
    this.open = name;
    this.element.hidden = name === null;
    for (const [each, tab] of this.#tabs) {
      tab.setAttribute("aria-selected", String(each === name));
      tab.tabIndex = each === name ? 0 : -1;
      this.#pages[each].element.hidden = each !== name;
    }
    this.emit("change", name);
  }

  toggle(name) {
    this.show(this.open === name ? null : name);
  }

  #handle_key(event) {
    const names = [...this.#tabs.keys()];
    const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
    if (!step) return;
    event.preventDefault();
    const next = names.at((names.indexOf(this.open) + step) % names.length);
    this.show(next);
    this.#tabs.get(next).focus();
  }
}
