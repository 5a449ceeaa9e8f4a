// The numbers: graphs of the whole connection, and a row for every stream that comes in or goes out.

import { bitrate, milliseconds, percent, picture } from "../stats/format.js";
import { Graph } from "../stats/graph.js";
import { arrange, el, write } from "./dom.js";

export class Network {
  #graphs = [
    new Graph("Received", ({ in_bps }) => in_bps, bitrate, 100_000),
    new Graph("Sent", ({ out_bps }) => out_bps, bitrate, 100_000),
    new Graph("Round trip", ({ rtt_ms }) => rtt_ms, milliseconds, 10),
    new Graph("Loss, received", ({ loss }) => loss, percent, 0.02),
  ];
  #received = table("Received streams", ["From", "Rate", "Loss", "Picture", "Codec", "Jitter"]);
  #sent = table("Sent streams", ["What", "Rate", "Picture", "Codec", "Held back by"]);

  constructor() {
    this.element = el("div", { class: "network", "data-testid": "network" },
      el("div", { class: "graphs" }, ...this.#graphs.map(({ element }) => element)),
      this.#received.element, this.#sent.element);
  }

  /**
   * @param {object[]} history of samples
   * @param {(track_id: string) => ?{who: string, layer: ?string}} origin whose track it is
   */
  draw(history, origin) {
    for (const graph of this.#graphs) graph.draw(history);
    const last = history.at(-1);
    if (!last) return;
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

const RIDS = { f: "Camera, full", h: "Camera, half", q: "Camera, quarter" };
