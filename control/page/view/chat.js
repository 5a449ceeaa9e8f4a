// The chat: lines of others and our own, and the field to write one. Owns at most `LINES_MAX` of them.

import { Emitter } from "../call/emitter.js";
import { CHAT_LENGTH_MAX } from "../call/gossip.js";
import { el } from "./dom.js";
import { icon } from "./icons.js";
import { hue_of } from "./tile.js";

/** Emits `say` (text); the listener returns nothing and calls `refuse` when it could not be sent. */
export class Chat extends Emitter {
  #lines = el("ol", { class: "chat-lines", role: "log", "aria-label": "Messages", "data-testid": "chat-lines" });
  #empty = el("p", { class: "empty", text: "No messages yet. What is written here is seen by everyone in the room now, and kept nowhere." });
  #field = el("textarea", {
    id: "chat-field",
    rows: "1",
    maxlength: String(CHAT_LENGTH_MAX),
    placeholder: "Message everyone",
    "aria-label": "Message everyone",
    "data-testid": "chat-field",
    on: { keydown: (event) => this.#handle_key(event) },
  });
  #last = null;

  constructor() {
    super();
    const send = el("button", { type: "submit", class: "round accent", "aria-label": "Send", "data-testid": "chat-send" }, icon("send"));
    this.element = el("div", { class: "chat" }, this.#empty, this.#lines, el("form", {
      class: "chat-form",
      on: {
        submit: (event) => {
          event.preventDefault();
          this.#submit();
        },
      },
    }, this.#field, send));
  }

  /** Adds a line of `peer`. */
  add({ peer, text, self = false }) {
    const now = new Date();
    const follows = this.#last?.uid === peer.uid && now - this.#last.at < JOINED_WITHIN_MS;
    this.#last = { uid: peer.uid, at: now };
    const head = follows ? null : el("p", { class: "chat-head" },
      el("b", { text: self ? "You" : peer.name }),
      el("time", { text: now.toLocaleTimeString([], { hour: "2-digit", minute: "2-digit" }) }));
    const at_end = this.#lines.scrollHeight - this.#lines.scrollTop - this.#lines.clientHeight < 60;
    this.#lines.append(el("li", {
      class: self ? "chat-line own" : "chat-line",
      "data-testid": "chat-line",
      vars: { hue: hue_of(peer.uid) },
    }, head, el("p", { class: "chat-text", text })));
    while (this.#lines.childElementCount > LINES_MAX) this.#lines.firstElementChild.remove();
    this.#empty.hidden = true;
    // Who reads further up is not pulled away from it.
    if (at_end || self) this.#lines.scrollTop = this.#lines.scrollHeight;
  }

  /** Puts a line that could not be sent back into the field. */
  refuse(text) {
    this.#field.value = text;
  }

  focus() {
    this.#field.focus();
  }

  #handle_key(event) {
    if (event.key !== "Enter" || event.shiftKey || event.isComposing) return;
    event.preventDefault();
    this.#submit();
  }

  #submit() {
    const text = this.#field.value.trim();
    if (!text) return;
    this.#field.value = "";
    this.emit("say", text);
  }
}

const LINES_MAX = 300;
const JOINED_WITHIN_MS = 120_000;
