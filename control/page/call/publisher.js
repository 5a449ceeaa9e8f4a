// The peer connection that sends: our camera, microphone and screen, and the channel for chat. We always offer.
// Owns one transceiver per slot. Never asks for a device; tracks come in from above.
//
// Emits `state` (RTCPeerConnectionState), `candidate` (RTCIceCandidate), `open` and `message` (text) of the user channel.

import { Emitter } from "./emitter.js";

export class Publisher extends Emitter {
  #pc = new RTCPeerConnection({ bundlePolicy: "max-bundle" });
  #channel;
  #slots = new Map();
  #ask;
  #queue = Promise.resolve();
  #codec;

  /**
   * @param {(offer: RTCSessionDescriptionInit) => Promise<RTCSessionDescriptionInit>} ask sends later offers to the server
   * @param {string} codec the video codec to send, such as "VP8"
   */
  constructor(ask, codec) {
    super();
    this.#ask = ask;
    this.#codec = codec;
    // The server ignores this channel, but it makes the first offer of someone who sends no media complete.
    this.#pc.createDataChannel("ion-sfu");
    this.#channel = this.#pc.createDataChannel(USER_CHANNEL);
    this.#channel.onopen = () => this.emit("open");
    this.#channel.onmessage = ({ data }) => this.emit("message", data);
    this.#pc.onconnectionstatechange = () => this.emit("state", this.#pc.connectionState);
    this.#pc.onicecandidate = ({ candidate }) => this.emit("candidate", candidate);
  }

  get state() {
    return this.#pc.connectionState;
  }

  /** Offers for the first time, through `join`, with what is in the slots by now. */
  connect(join) {
    return this.#in_turn(() => this.#negotiate(join));
  }

  /**
   * Puts a track (or, with null, none) into a slot. What is sent already is replaced without the server noticing; what is
   * new, and a screen that is no longer shared, is negotiated.
   */
  set(slot, track, stream) {
    return this.#in_turn(async () => {
      const transceiver = this.#slots.get(slot);
      if (transceiver && (track || !SLOTS[slot].ends)) return transceiver.sender.replaceTrack(track);
      if (transceiver) this.#end(slot, transceiver);
      else if (track) this.#add(slot, track, stream);
      else return undefined;
      return this.#pc.remoteDescription ? this.#negotiate(this.#ask) : undefined;
    });
  }

  /** New ICE credentials: the way back when the path is lost. */
  restart() {
    return this.#in_turn(() => {
      this.#pc.restartIce();
      return this.#negotiate(this.#ask);
    });
  }

  /** Sends text to everyone else, if the channel is there and keeps up. */
  say(text) {
    const can = this.#channel.readyState === "open" && this.#channel.bufferedAmount < CHANNEL_BACKLOG_MAX;
    if (can) this.#channel.send(text);
    return can;
  }

  /** Relays to gather candidates from, besides the direct ways. */
  use_relays(iceServers) {
    this.#pc.setConfiguration({ ...this.#pc.getConfiguration(), iceServers });
  }

  stats() {
    return this.#pc.getStats();
  }

  add_candidate(candidate) {
    this.#in_turn(() => this.#pc.addIceCandidate(candidate)).catch(() => {});
  }

  close() {
    this.silence();
    this.#pc.close();
  }

  #add(slot, track, stream) {
    const { encodings } = SLOTS[slot];
    const transceiver = this.#pc.addTransceiver(track, {
      direction: "sendonly",
      streams: [stream],
      sendEncodings: encodings?.(track) ?? [{}],
    });
    this.#slots.set(slot, transceiver);
    const codec = track.kind === "audio" ? "audio/opus" : `video/${this.#codec}`;
    transceiver.setCodecPreferences?.(preferred(track.kind, codec));
  }

  #end(slot, transceiver) {
    this.#slots.delete(slot);
    transceiver.stop();
  }

  async #negotiate(ask) {
    await this.#pc.setLocalDescription(await this.#pc.createOffer());
    const { type, sdp } = this.#pc.localDescription;
    try {
      await this.#pc.setRemoteDescription(await ask({ type, sdp }));
    } catch (error) {
      // A refused offer is taken back, or no later one could be made.
      if (this.#pc.signalingState === "have-local-offer") await this.#pc.setLocalDescription({ type: "rollback" });
      throw error;
    }
  }

  /** One change at a time: an offer must have its answer before the next. */
  #in_turn(step) {
    const turn = this.#queue.then(step);
    this.#queue = turn.catch(() => {});
    return turn;
  }
}

/** The label of the channel that carries chat and what else the pages tell each other. */
export const USER_CHANNEL = "chat";

// A slot that `ends` frees its m-section; the others are kept for the next time.
const SLOTS = {
  audio: { ends: false },
  video: { ends: false, encodings: simulcast },
  screen: { ends: true, encodings: () => [{ maxBitrate: 2_500_000, maxFramerate: 15 }] },
  screen_audio: { ends: true },
};

/** Full, half and quarter size, under the names that ion-sfu's clients use. */
function simulcast(track) {
  const full = { rid: "f", maxBitrate: 1_700_000 };
  const half = { rid: "h", scaleResolutionDownBy: 2, maxBitrate: 550_000 };
  const quarter = { rid: "q", scaleResolutionDownBy: 4, maxBitrate: 160_000 };
  // A quarter of a small picture is no picture.
  return (track.getSettings().height ?? 720) < 360 ? [full, half] : [full, half, quarter];
}

/** The wanted codec with its retransmissions; all that there are when the browser lacks it. */
function preferred(kind, codec) {
  const all = RTCRtpSender.getCapabilities(kind)?.codecs ?? [];
  const wanted = all.filter(({ mimeType }) => mimeType.toLowerCase() === codec.toLowerCase());
  return wanted.length ? [...wanted, ...all.filter(({ mimeType }) => mimeType === "video/rtx")] : all;
}

const CHANNEL_BACKLOG_MAX = 256 * 1024;
