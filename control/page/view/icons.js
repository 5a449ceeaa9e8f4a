// The page's icons: strokes on a 24 by 24 grid, drawn here so that nothing is fetched for them.

import { svg } from "./dom.js";

/** The icon of this name; decoration only, so the button around it must have a label. */
export function icon(name) {
  return svg("svg", { class: "icon", viewBox: "0 0 24 24", "aria-hidden": "true", focusable: "false" },
    ...SHAPES[name].map((d) => svg("path", { d })));
}

const MICROPHONE = ["M12 3a3 3 0 0 1 3 3v5a3 3 0 0 1-6 0V6a3 3 0 0 1 3-3z", "M5.5 11a6.5 6.5 0 0 0 13 0", "M12 17.5V21"];
const CAMERA = ["M5 6.5h8.5a2 2 0 0 1 2 2v7a2 2 0 0 1-2 2H5a2 2 0 0 1-2-2v-7a2 2 0 0 1 2-2z", "M15.5 10.8l5.5-3v8.4l-5.5-3"];
const STRIKE = "M4 3.5l16.5 17";

const SHAPES = {
  microphone: MICROPHONE,
  microphone_off: [...MICROPHONE, STRIKE],
  camera: CAMERA,
  camera_off: [...CAMERA, STRIKE],
  screen: ["M4 5h16a1 1 0 0 1 1 1v10a1 1 0 0 1-1 1H4a1 1 0 0 1-1-1V6a1 1 0 0 1 1-1z", "M9 20.5h6", "M12 14V8.5", "M9.5 10.8L12 8.3l2.5 2.5"],
  people: ["M9 11.5a3.5 3.5 0 1 0 0-7 3.5 3.5 0 0 0 0 7z", "M2.8 19.5c.6-3.3 3-5 6.2-5s5.6 1.7 6.2 5", "M15.5 4.9a3.3 3.3 0 0 1 0 6.2", "M17.5 14.8c2 .6 3.3 2.2 3.7 4.7"],
  chat: ["M5 4.5h14a2 2 0 0 1 2 2v8a2 2 0 0 1-2 2h-7.5L7 20.5v-4H5a2 2 0 0 1-2-2v-8a2 2 0 0 1 2-2z", "M8 9h8", "M8 12.5h5"],
  graph: ["M4 4v15a1 1 0 0 0 1 1h15", "M7.5 15.5l3.5-5 3 3 5-7"],
  link: ["M10 14a4 4 0 0 0 5.7.3l3-3a4 4 0 0 0-5.7-5.7l-1.2 1.2", "M14 10a4 4 0 0 0-5.7-.3l-3 3A4 4 0 0 0 11 18.4l1.2-1.2"],
  leave: ["M3.2 13.8c5-4.7 12.6-4.7 17.6 0 .5.5.4 1.2 0 1.7l-1.4 1.4c-.4.4-1 .5-1.5.2l-2.4-1.4a1.2 1.2 0 0 1-.6-1.2l.2-1.7a9.8 9.8 0 0 0-6.2 0l.2 1.7a1.2 1.2 0 0 1-.6 1.2l-2.4 1.4c-.5.3-1.1.2-1.5-.2l-1.4-1.4c-.4-.5-.5-1.2 0-1.7z"],
  more: ["M12 5.5v.01", "M12 12v.01", "M12 18.5v.01"],
  pin: ["M9 3.5h6l-1 6 3.5 3.5v1.5h-11V13L10 9.5z", "M12 14.5V21"],
  close: ["M6 6l12 12", "M18 6L6 18"],
  check: ["M5 12.5l4.5 4.5L19 7.5"],
  send: ["M4 12L20.5 4.5 15 20l-3.5-6.5z", "M11.5 13.5l4-4"],
};
