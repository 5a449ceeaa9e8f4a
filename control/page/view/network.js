// The numbers: graphs of the whole connection and of each picture that comes in, and a row for every stream that comes in or
// goes out.

import { bitrate, frames, milliseconds, percent, picture } from "../stats/format.js";
import { Graph } from "../stats/graph.js";
import { arrange, el, write } from "./dom.js";

export class Network {
  #graphs = [
    new Graph("Received", ({ in_bps }) => in_bps, bitrate, 100_000),
    new Graph("Sent", ({ out_bps }) => out_bps, bitrate, 100_000),
    new Graph("Round trip", ({ rtt_ms }) => rtt_ms, milliseconds, 10),
    new Graph("Loss, received", ({ loss }) => loss, percent, 0.02),
  ];
  #pictures = new Map();
  #of_pictures = el("section", { class: "streams", "data-testid": "tile-graphs", hidden: true });
  #received = table("Received streams", ["From", "Rate", "Loss", "Picture", "Codec", "Jitter"]);
  #sent = table("Sent streams", ["What", "Rate", "Picture", "Codec", "Held back by"]);

  constructor() {
    this.element = el("div", { class: "network", "data-testid": "network" },
      el("div", { class: "graphs" }, ...this.#graphs.map(({ element }) => element)),
      this.#of_pictures, this.#received.element, this.#sent.element);
  }

  /** Frame rate, bit rate and loss of each picture that comes in, under the name of its tile. */
  #draw_pictures(history, origin) {
    const rows = history.at(-1).received.filter(({ kind }) => kind === "video").slice(0, PICTURES_MAX);
    for (const id of [...this.#pictures.keys()]) {
      if (!rows.some(({ track_id }) => track_id === id)) this.#pictures.delete(id);
    }
    for (const { track_id } of rows) {
      if (!this.#pictures.has(track_id)) this.#pictures.set(track_id, new Picture(track_id));
    }
    const shown = rows.map(({ track_id }) => this.#pictures.get(track_id));
    this.#of_pictures.hidden = shown.length === 0;
    arrange(this.#of_pictures, shown.map(({ element }) => element));
    for (const picture of shown) picture.draw(history, origin(picture.track_id)?.who ?? "unknown");
  }

  /**
   * @param {object[]} history of samples
   * @param {(track_id: string) => ?{who: string, layer: ?string}} origin whose track it is
   */
  draw(history, origin) {
    for (const graph of this.#graphs) graph.draw(history);
    const last = history.at(-1);
    if (!last) return;
    this.#draw_pictures(history, origin);
    this.#received.fill(last.received.map((row) => {
      const { who, layer } = origin(row.track_id) ?? { who: "unknown" };
      const shown = row.kind === "video" ? [picture(row), layer].filter(Boolean).join(", ") : "sound";
      return [who, bitrate(row.bps), percent(row.loss), shown, row.codec ?? "–", milliseconds(row.jitter_ms)];
    }));
    this.#sent.fill(last.sent.map((row) => [
      row.kind === "audio" ? "Microphone" : RIDS[row.rid] ?? "Screen",
      bitrate(row.bps),
      row.kind === "audio" ? "sound" : picture(row),
      row.codec ?? "–",
      { none: "–", cpu: "this computer", bandwidth: "the network" }[row.limited_by] ?? "–",
    ]));
  }
}

/** The graphs of one picture. */
class Picture {
  #name = el("h3");

  constructor(track_id) {
    this.track_id = track_id;
    const of = (read) => ({ received }) => {
      const row = received.find((row) => row.track_id === track_id);
      return row ? read(row) : null;
    };
    this.graphs = [
      new Graph("Frame rate", of(({ fps }) => fps), frames, 30),
      new Graph("Received", of(({ bps }) => bps), bitrate, 100_000),
      new Graph("Loss", of(({ loss }) => loss), percent, 0.02),
    ];
    this.element = el("div", {}, this.#name, el("div", { class: "graphs" }, ...this.graphs.map(({ element }) => element)));
  }

  draw(history, who) {
    write(this.#name, who);
    for (const graph of this.graphs) graph.draw(history);
  }
}

/** A table that keeps its cells, so that reading it is not interrupted every second. */
function table(title, columns) {
  const body = el("tbody");
  const rows = [];
  const element = el("section", { class: "streams", hidden: true },
    el("h3", { text: title }),
    el("div", { class: "streams-scroll", tabindex: "0", role: "group", "aria-label": title },
      el("table", {}, el("thead", {}, el("tr", {}, ...columns.map((name) => el("th", { scope: "col", text: name })))), body)));
  const fill = (lines) => {
    element.hidden = lines.length === 0;
    while (rows.length < lines.length) rows.push(el("tr", {}, ...columns.map(() => el("td"))));
    arrange(body, rows.slice(0, lines.length));
    lines.forEach((line, at) => line.forEach((text, column) => write(rows[at].children[column], text)));
  };
  return { element, fill };
}

/** Pictures with graphs of their own; beyond, the table has them. */
const PICTURES_MAX = 12;

const RIDS = { f: "Camera, full", h: "Camera, half", q: "Camera, quarter" };
