// The name and its mark: a ring with a way in.

import { el, svg } from "./dom.js";

export function brand() {
  return el("span", { class: "brand" },
    svg("svg", { class: "brand-mark", viewBox: "0 0 32 32", "aria-hidden": "true" },
      svg("circle", { class: "brand-ring", cx: "16", cy: "16", r: "11.5" }),
      svg("circle", { class: "brand-arc", cx: "16", cy: "16", r: "11.5", pathLength: "100", "stroke-dasharray": "28 72" }),
      svg("circle", { class: "brand-dot", cx: "16", cy: "16", r: "3.6" })),
    el("span", { text: "Ringmain" }));
}
