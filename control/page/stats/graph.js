// A line over the last minute and a half, on a canvas. Owns the canvas; colours come from the style sheet.

import { el } from "../view/dom.js";
import { HISTORY_MAX } from "./sampler.js";

export class Graph {
  #title;
  #read;
  #format;
  #floor;
  #canvas = el("canvas", { role: "img" });
  #value = el("output", { class: "graph-value" });

  /**
   * @param {string} title
   * @param {(sample: object) => ?number} read the number of a sample that is drawn
   * @param {(value: number) => string} format
   * @param {number} floor the least full scale, so that noise is not drawn as mountains
   */
  constructor(title, read, format, floor) {
    this.#title = title;
    this.#read = read;
    this.#format = format;
    this.#floor = floor;
    this.element = el("figure", { class: "graph" },
      el("figcaption", {}, el("span", { text: title }), this.#value),
      this.#canvas);
  }

  draw(history) {
    const values = history.map(this.#read);
    const now = values.at(-1) ?? null;
    this.#value.textContent = this.#format(now);
    this.#canvas.setAttribute("aria-label", `${this.#title}: ${this.#format(now)}`);
    const { clientWidth: width, clientHeight: height } = this.#canvas;
    if (!width) return;
    const scale = devicePixelRatio;
    this.#canvas.width = Math.round(width * scale);
    this.#canvas.height = Math.round(height * scale);
    const context = this.#canvas.getContext("2d");
    context.scale(scale, scale);
    const top = ceiling(Math.max(this.#floor, ...values.filter((value) => value !== null)));
    const style = getComputedStyle(this.#canvas);
    paint_scale(context, width, height, this.#format(top), style);
    paint_line(context, width, height, values.map((value) => (value === null ? null : value / top)), style);
  }
}

function paint_scale(context, width, height, label, style) {
  context.strokeStyle = style.getPropertyValue("--line");
  context.lineWidth = 1;
  for (const y of [0.5, height / 2, height - 0.5]) {
    context.beginPath();
    context.moveTo(0, Math.round(y) + 0.5);
    context.lineTo(width, Math.round(y) + 0.5);
    context.stroke();
  }
  context.fillStyle = style.getPropertyValue("--text-soft");
  context.font = `10px ${style.fontFamily}`;
  context.textBaseline = "top";
  context.fillText(label, 4, 4);
}

/** `points` are shares of the height; null is a gap. The newest is at the right edge. */
function paint_line(context, width, height, points, style) {
  const x = (index) => width - ((points.length - 1 - index) * width) / (HISTORY_MAX - 1);
  const y = (point) => height - 1.5 - point * (height - 4);
  const runs = [];
  points.forEach((point, index) => {
    if (point === null) return;
    if (index === 0 || points[index - 1] === null) runs.push([]);
    runs.at(-1).push([x(index), y(point)]);
  });
  context.strokeStyle = style.getPropertyValue("--accent");
  context.fillStyle = style.getPropertyValue("--accent-wash");
  context.lineWidth = 1.75;
  context.lineJoin = "round";
  for (const run of runs) {
    const line = new Path2D();
    run.forEach(([at, level], index) => (index ? line.lineTo(at, level) : line.moveTo(at, level)));
    const area = new Path2D(line);
    area.lineTo(run.at(-1)[0], height);
    area.lineTo(run[0][0], height);
    context.fill(area);
    context.stroke(line);
  }
}

/** The next 1, 2 or 5 times a power of ten. */
function ceiling(value) {
  const power = 10 ** Math.floor(Math.log10(value));
  return [1, 2, 5, 10].map((step) => step * power).find((step) => step >= value * 0.999) ?? value;
}
