// Short messages that appear, are read out, and go by themselves.

import { el } from "./dom.js";

const SHOWN_MS = 6000;
const COUNT_MAX = 3;

export class Notices {
  element = el("div", { class: "notices", role: "status", "aria-live": "polite", "data-testid": "notices" });

  say(text) {
    const notice = el("p", { class: "notice", text });
    this.element.append(notice);
    while (this.element.childElementCount > COUNT_MAX) this.element.firstElementChild.remove();
    setTimeout(() => notice.remove(), SHOWN_MS);
  }
}
