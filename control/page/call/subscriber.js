// The peer connection that receives: everyone else's media, and the `ion-sfu` channel. The server always offers.
//
// Emits `state` (RTCPeerConnectionState), `candidate` (RTCIceCandidate), `track` (track, stream), `ended` (track, stream),
// `api_open`, `speakers` (stream ids, loudest first), `layer` ({streamId, activeLayer, availableLayers}) and `message`
// (text) of the user channel.

import { Emitter } from "./emitter.js";
import { USER_CHANNEL } from "./publisher.js";

export class Subscriber extends Emitter {
  #pc = new RTCPeerConnection({ bundlePolicy: "max-bundle" });
  #api = null;
  #queue = Promise.resolve();

  constructor() {
    super();
    this.#pc.onconnectionstatechange = () => this.emit("state", this.#pc.connectionState);
    this.#pc.onicecandidate = ({ candidate }) => this.emit("candidate", candidate);
    this.#pc.ondatachannel = ({ channel }) => this.#handle_channel(channel);
    this.#pc.ontrack = ({ track, streams: [stream] }) => {
      if (!stream) return;
      stream.onremovetrack = ({ track: gone }) => this.emit("ended", gone, stream);
      this.emit("track", track, stream);
    };
  }

  get state() {
    return this.#pc.connectionState;
  }

  /** Whether wishes can be sent. */
  get api_is_open() {
    return this.#api?.readyState === "open";
  }

  /** Resolves with the answer to an offer of the server. */
  answer(offer) {
    return this.#in_turn(async () => {
      await this.#pc.setRemoteDescription(offer);
      await this.#pc.setLocalDescription(await this.#pc.createAnswer());
      const { type, sdp } = this.#pc.localDescription;
      return { type, sdp };
    });
  }

  /** Says what of a stream is wanted: `video` high, medium, low or none; `audio` true or false. */
  wish(stream_id, { video, audio }) {
    if (this.api_is_open) this.#api.send(JSON.stringify({ streamId: stream_id, video, audio }));
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

  #handle_channel(channel) {
    if (channel.label === USER_CHANNEL) {
      channel.onmessage = ({ data }) => this.emit("message", data);
    } else if (channel.label === "ion-sfu") {
      this.#api = channel;
      channel.onmessage = ({ data }) => this.#handle_api(data);
      // In `ondatachannel` the channel may be open already, and then there is no `open` event.
      if (channel.readyState === "open") this.emit("api_open");
      else channel.onopen = () => this.emit("api_open");
    }
  }

  #handle_api(text) {
    let message;
    try {
      message = JSON.parse(text);
    } catch {
      return;
    }
    if (message?.method === "audioLevels" && Array.isArray(message.params)) this.emit("speakers", message.params);
    if (message?.method === "activeLayer" && message.params) this.emit("layer", message.params);
  }

  #in_turn(step) {
    const turn = this.#queue.then(step);
    this.#queue = turn.catch(() => {});
    return turn;
  }
}
