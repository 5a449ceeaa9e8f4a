// The gallery: a tile for everyone, and one for every shared screen. Owns the tiles, which of them is large, and tells
// the room what each is worth.

import { Emitter } from "../call/emitter.js";
import { el } from "./dom.js";
import { grid, spotlight } from "./layout.js";
import { Tile } from "./tile.js";

/** Emits `blocked` when the browser will not play sound before it is touched. */
export class Stage extends Emitter {
  #room;
  #tiles = new Map();
  #pinned = null;
  #canvas = el("div", { class: "stage-canvas" });
  #alone = el("p", { class: "stage-alone", text: "Nobody else is here yet. Copy the invite link and send it to someone." });
  #more = el("p", { class: "stage-more" });
  #wish_timer = null;
  #observer = new ResizeObserver(() => this.#lay_out());
  #numbers_shown = false;

  constructor(room) {
    super();
    this.#room = room;
    this.element = el("section", { class: "stage", "aria-label": "Participants", "data-testid": "stage" },
      this.#canvas, this.#alone, this.#more);
    this.#observer.observe(this.element);
  }

  get tiles() {
    return [...this.#tiles.values()];
  }

  /** Brings the tiles in line with the room. */
  update() {
    const wanted = this.#wanted();
    for (const [key, tile] of this.#tiles) {
      if (!wanted.has(key)) this.#drop(key, tile);
    }
    for (const [key, { peer, stream, kind }] of wanted) {
      const tile = this.#tiles.get(key) ?? this.#add({ key, kind, self: peer.self });
      tile.update({ peer, stream, layer: stream && this.#room.layers.get(stream.id) });
    }
    this.#alone.hidden = this.#room.roster.others.length > 0;
    this.#lay_out();
  }

  update_speakers() {
    for (const { peer, key } of this.#wanted().values()) this.#tiles.get(key)?.speaking(peer.speaking);
  }

  /** Shows numbers over every picture, or over none. */
  show_numbers(on) {
    this.#numbers_shown = on;
    if (!on) for (const tile of this.tiles) tile.numbers(null);
  }

  update_numbers(sample) {
    if (!this.#numbers_shown) return;
    for (const tile of this.tiles) tile.numbers(this.numbers_of(tile, sample));
  }

  /** The row of a sample that belongs to a tile's picture. */
  numbers_of(tile, sample) {
    if (tile.self) {
      const sent = sample.sent.filter(({ kind, bps }) => kind === "video" && bps > 0);
      const own = sent.filter(({ rid }) => (tile.kind === "camera") === (rid !== null));
      return own.sort((a, b) => (b.height ?? 0) - (a.height ?? 0))[0] ?? null;
    }
    const ids = new Set(tile.stream?.getVideoTracks().map(({ id }) => id));
    return sample.received.find(({ track_id }) => ids.has(track_id)) ?? null;
  }

  /** Plays what was refused; to be called when the person touched the page. */
  resume() {
    for (const tile of this.tiles) tile.resume();
  }

  close() {
    this.silence();
    this.#observer.disconnect();
    clearTimeout(this.#wish_timer);
    for (const tile of this.tiles) tile.close();
  }

  #wanted() {
    const { roster, local, uid } = this.#room;
    const wanted = new Map();
    const want = (key, peer, stream, kind) => wanted.set(key, { key, peer, stream, kind });
    const all_media = roster.all_media();
    const { others } = roster;
    const senders_first = others.length <= PEOPLE_MAX ? others
      : [...others.filter(({ uid }) => all_media.has(uid)), ...others.filter(({ uid }) => !all_media.has(uid))];
    for (const peer of senders_first.slice(0, PEOPLE_MAX)) {
      const media = all_media.get(peer.uid) ?? [];
      const camera = media.find(({ kind }) => kind === "camera");
      want(`${peer.uid} camera`, peer, camera?.stream ?? null, "camera");
      for (const { stream, kind } of media) {
        if (kind === "screen") want(`${peer.uid} ${stream.id}`, peer, stream, "screen");
      }
    }
    const self = { uid, name: this.#room.name, self: true, audio: local.microphone_on, video: local.camera_on };
    self.speaking = (roster.peer(uid)?.speaking ?? false) && self.audio;
    want(`${uid} camera`, self, local.stream, "camera");
    if (local.screen) want(`${uid} screen`, self, local.screen, "screen");
    return wanted;
  }

  #add(what) {
    const tile = new Tile(what);
    tile.on("pin", () => this.#pin(tile));
    tile.on("wish", () => this.#wish());
    tile.on("blocked", () => this.emit("blocked"));
    this.#tiles.set(what.key, tile);
    this.#canvas.append(tile.element);
    return tile;
  }

  #drop(key, tile) {
    tile.close();
    this.#tiles.delete(key);
    if (this.#pinned === key) this.#pinned = null;
  }

  #pin(tile) {
    this.#pinned = this.#pinned === tile.key ? null : tile.key;
    for (const { key, element } of this.tiles) element.classList.toggle("pinned", key === this.#pinned);
    for (const each of this.tiles) each.pinned = each.key === this.#pinned;
    this.#lay_out();
  }

  #lay_out() {
    const ordered = this.#ordered();
    const large = this.#large(ordered);
    const style = getComputedStyle(this.element);
    const room = {
      width: this.element.clientWidth - parseFloat(style.paddingLeft) - parseFloat(style.paddingRight),
      height: this.element.clientHeight - parseFloat(style.paddingTop) - parseFloat(style.paddingBottom),
    };
    if (ordered.length === 0 || room.width <= 0) return;
    const tiles = large ? [large, ...ordered.filter((tile) => tile !== large)] : ordered;
    const { boxes, height } = (large ? spotlight : grid)(room, tiles.length);
    this.#canvas.style.height = `${height}px`;
    tiles.forEach((tile, index) => tile.place(boxes[index] ?? null, tile === large));
    const left_out = tiles.length - boxes.length + Math.max(0, this.#room.roster.others.length - PEOPLE_MAX);
    this.#more.hidden = left_out === 0;
    this.#more.textContent = `and ${left_out} more`;
    this.#wish();
  }

  /** Others in the order in which they came, then oneself; in a strip, who speaks must not be left out. */
  #ordered() {
    const keys = [...this.#wanted().keys()];
    const tiles = keys.map((key) => this.#tiles.get(key)).filter(Boolean);
    if (!this.#large(tiles)) return tiles;
    const is_speaking = (tile) => tile.element.classList.contains("speaking");
    return [...tiles.filter(is_speaking), ...tiles.filter((tile) => !is_speaking(tile))];
  }

  /** The pinned tile, or else the screen that someone else shares. */
  #large(tiles) {
    return this.#tiles.get(this.#pinned) ?? tiles.findLast(({ kind, self }) => kind === "screen" && !self) ?? null;
  }

  /** A window that is being dragged wider changes its mind many times a second. */
  #wish() {
    if (this.#wish_timer) return;
    this.#wish_timer = setTimeout(() => {
      this.#wish_timer = null;
      for (const { self, stream, wanted } of this.tiles) {
        if (!self && stream) this.#room.wish(stream.id, wanted);
      }
    }, WISH_DELAY_MS);
  }
}

const WISH_DELAY_MS = 300;
// More faces than that are no longer faces; the list of people has everyone.
const PEOPLE_MAX = 48;
