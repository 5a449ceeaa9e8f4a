// What `getStats` counts, made into rates: once a second both peer connections are read and compared with the reading
// before. Owns the last readings and a history of the totals. Draws nothing.
//
// Emits `sample` (see `Sample` below).

import { Emitter } from "../call/emitter.js";

/**
 * @typedef {{at: number, in_bps: number, out_bps: number, loss: number, rtt_ms: ?number, jitter_ms: ?number,
 *   received: Received[], sent: Sent[]}} Sample `loss` is a share of 0 to 1
 * @typedef {{track_id: string, kind: string, bps: number, loss: number, jitter_ms: ?number, width: ?number,
 *   height: ?number, fps: ?number, codec: ?string, freezes: ?number}} Received
 * @typedef {{kind: string, rid: ?string, bps: number, width: ?number, height: ?number, fps: ?number, codec: ?string,
 *   limited_by: ?string, active: boolean}} Sent
 */
export class Sampler extends Emitter {
  #room;
  #timer;
  #before = new Map();

  /** The last samples, oldest first. */
  history = [];

  constructor(room) {
    super();
    this.#room = room;
    this.#timer = setInterval(() => this.#read(), INTERVAL_MS);
  }

  get last() {
    return this.history.at(-1) ?? null;
  }

  close() {
    clearInterval(this.#timer);
    this.silence();
  }

  async #read() {
    const reports = await this.#room.stats().catch(() => null);
    if (!reports) return;
    const now = performance.now();
    const sample = { at: now, ...this.#totals(reports) };
    sample.received = this.#each(reports.received, "inbound-rtp", (row, get) => this.#received(row, get, now));
    sample.sent = this.#each(reports.sent, "outbound-rtp", (row, get) => this.#sent(row, get, now));
    Object.assign(sample, sum(sample));
    this.history.push(sample);
    if (this.history.length > HISTORY_MAX) this.history.shift();
    this.#forget(now);
    this.emit("sample", sample);
  }

  #each(report, type, read) {
    const rows = [...report.values()].filter((row) => row.type === type);
    return rows.map((row) => read(row, (id) => report.get(id)));
  }

  #received(row, get, now) {
    const rates = this.#rates(`in ${row.ssrc}`, row, now, ["bytesReceived", "packetsReceived", "packetsLost"]);
    return {
      track_id: row.trackIdentifier,
      kind: row.kind,
      bps: 8 * rates.bytesReceived,
      packets_per_s: rates.packetsReceived,
      lost_per_s: Math.max(0, rates.packetsLost),
      loss: share(rates.packetsLost, rates.packetsReceived),
      jitter_ms: to_ms(row.jitter),
      width: row.frameWidth ?? null,
      height: row.frameHeight ?? null,
      fps: row.framesPerSecond ?? null,
      freezes: row.freezeCount ?? null,
      codec: codec_name(get(row.codecId)),
    };
  }

  #sent(row, get, now) {
    const rates = this.#rates(`out ${row.ssrc}`, row, now, ["bytesSent"]);
    const remote = get(row.remoteId);
    return {
      kind: row.kind,
      rid: row.rid ?? null,
      bps: 8 * rates.bytesSent,
      loss: remote?.fractionLost ?? null,
      width: row.frameWidth ?? null,
      height: row.frameHeight ?? null,
      fps: row.framesPerSecond ?? null,
      codec: codec_name(get(row.codecId)),
      limited_by: row.qualityLimitationReason ?? null,
      active: row.active ?? true,
    };
  }

  #totals({ sent, received }) {
    const round_trips = [sent, received].map((report) => {
      const rows = [...report.values()];
      const { selectedCandidatePairId } = rows.find(({ type }) => type === "transport") ?? {};
      const pair = report.get(selectedCandidatePairId)
        ?? rows.find(({ type, nominated, state }) => type === "candidate-pair" && nominated && state === "succeeded");
      return to_ms(pair?.currentRoundTripTime);
    });
    return { rtt_ms: round_trips.find((rtt_ms) => rtt_ms !== null) ?? null };
  }

  /** Per second, since the last reading of the same stream; a counter that went back began anew. */
  #rates(key, row, now, names) {
    const before = this.#before.get(key);
    const seconds = before ? (now - before.at) / 1000 : 0;
    const rates = names.map((name) => {
      const grown = (row[name] ?? 0) - (before?.values[name] ?? 0);
      return [name, seconds > 0 && grown > 0 ? grown / seconds : 0];
    });
    this.#before.set(key, { at: now, values: Object.fromEntries(names.map((name) => [name, row[name] ?? 0])) });
    return Object.fromEntries(rates);
  }

  #forget(now) {
    for (const [key, { at }] of this.#before) {
      if (now - at > 10 * INTERVAL_MS) this.#before.delete(key);
    }
  }
}

function sum({ received, sent }) {
  const total = (rows, name) => rows.reduce((so_far, row) => so_far + (row[name] ?? 0), 0);
  const jitters = received.map(({ jitter_ms }) => jitter_ms).filter((jitter_ms) => jitter_ms !== null);
  return {
    in_bps: total(received, "bps"),
    out_bps: total(sent, "bps"),
    loss: share(total(received, "lost_per_s"), total(received, "packets_per_s")),
    jitter_ms: jitters.length ? Math.max(...jitters) : null,
  };
}

function share(lost, arrived) {
  return lost > 0 ? lost / (lost + arrived) : 0;
}

function to_ms(seconds) {
  return typeof seconds === "number" ? seconds * 1000 : null;
}

function codec_name(codec) {
  return codec?.mimeType?.split("/")[1] ?? null;
}

const INTERVAL_MS = 1000;
/** Samples that are kept: a minute and a half. */
export const HISTORY_MAX = 90;
