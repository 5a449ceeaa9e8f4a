// A menu that drops from a button (WAI-ARIA menu button pattern): arrows move, Escape closes, focus comes back.
// Owns at most one open list in the whole page.

import { el } from "./dom.js";
import { icon } from "./icons.js";

let open_menu = null;

/**
 * Makes `button` open a menu. `items()` is asked each time: rows of `{label, checked, group, run}`; `checked` undefined
 * is a plain command, true or false a choice (one of its `group`, or by itself), and `{heading}` a title.
 */
export function menu(button, items) {
  button.setAttribute("aria-haspopup", "menu");
  button.setAttribute("aria-expanded", "false");
  button.addEventListener("click", (event) => {
    event.stopPropagation();
    if (open_menu?.button === button) close();
    else show(button, items());
  });
  button.addEventListener("keydown", (event) => {
    if (event.key !== "ArrowDown") return;
    event.preventDefault();
    show(button, items());
  });
}

/** Closes whatever menu is open. */
export function close({ refocus = true } = {}) {
  if (!open_menu) return;
  const { button, list } = open_menu;
  open_menu = null;
  const held_focus = list.contains(document.activeElement);
  list.remove();
  button.setAttribute("aria-expanded", "false");
  if (refocus && held_focus) button.focus();
}

function show(button, items) {
  close({ refocus: false });
  const list = el("div", {
    class: "menu",
    role: "menu",
    "aria-label": button.getAttribute("aria-label"),
    "data-testid": "menu",
    on: { keydown: handle_key, click: (event) => event.stopPropagation() },
  }, ...items.map(row));
  document.body.append(list);
  place(list, button);
  open_menu = { button, list };
  button.setAttribute("aria-expanded", "true");
  entries(list)[0]?.focus();
}

function row({ heading, label, checked, group, run, id }) {
  if (heading) return el("div", { class: "menu-heading", role: "presentation", text: heading });
  const role = checked === undefined ? "menuitem" : group ? "menuitemradio" : "menuitemcheckbox";
  return el("button", {
    type: "button",
    role,
    tabindex: "-1",
    "aria-checked": checked === undefined ? null : String(checked),
    "data-testid": id ? `menu-${id}` : null,
    on: {
      click: () => {
        close();
        run();
      },
    },
  }, el("span", { class: "menu-mark" }, checked ? icon("check") : null), el("span", { text: label }));
}

function place(list, button) {
  const anchor = button.getBoundingClientRect();
  const { offsetWidth: width, offsetHeight: height } = list;
  const below = anchor.bottom + 6;
  const top = below + height <= innerHeight - 8 ? below : Math.max(8, anchor.top - height - 6);
  const left = Math.min(Math.max(8, anchor.right - width), innerWidth - width - 8);
  list.style.top = `${top}px`;
  list.style.left = `${left}px`;
}

function handle_key(event) {
  const all = entries(event.currentTarget);
  const at = all.indexOf(document.activeElement);
  const moves = {
    ArrowDown: () => all[(at + 1) % all.length]?.focus(),
    ArrowUp: () => all.at(at - 1)?.focus(),
    Home: () => all[0]?.focus(),
    End: () => all.at(-1)?.focus(),
    Escape: () => close(),
    Tab: () => close(),
  };
  if (!moves[event.key]) return;
  if (event.key !== "Tab") event.preventDefault();
  event.stopPropagation();
  moves[event.key]();
}

function entries(list) {
  return [...list.querySelectorAll("button")];
}

addEventListener("click", () => close({ refocus: false }));
addEventListener("resize", () => close({ refocus: false }));
