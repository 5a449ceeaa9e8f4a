// Runs in Chromium: one peer of a room, on the unmodified ion-sdk-js. The tests drive it through `window.peer`.

import { Client, LocalStream } from 'ion-sdk-js';
import { IonSFUJSONRPCSignal } from 'ion-sdk-js/lib/signal/json-rpc-impl';

const CONFIG = { codec: 'vp8', iceServers: [] };

async function relayOnly(signal, relay) {
  const { iceServers } = await signal.call('iceServers', {});
  const chosen = iceServers.map((server) => ({ ...server, urls: server.urls.filter((url) => new RegExp(relay).test(url)) }));
  return { iceServers: chosen, iceTransportPolicy: 'relay' };
}

const peer = {
  /** By stream id: what came from others. */
  remotes: new Map(),
  /** Streams of our own, by the name that the test gave them. */
  locals: new Map(),
  channels: new Map(),
  notifications: [],
  speakers: [],
  activeLayers: [],
  errors: [],

  /** Opens the signalling connection. With `relay`, media may go by those of the server's relays only whose URLs match it. */
  async connect(url, relay) {
    const signal = new IonSFUJSONRPCSignal(url);
    peer.signal = signal;
    await new Promise((resolve, reject) => {
      signal.onopen = resolve;
      signal.onerror = () => reject(new Error('the WebSocket failed'));
    });
    signal.onclose = (event) => (peer.closed = event.code);
    for (const method of ['peerevent', 'trackevent', 'iceconnectionstate']) {
      signal.on_notify(method, (params) => peer.notifications.push({ method, params }));
    }
    const client = new Client(signal, relay ? { ...CONFIG, ...(await relayOnly(signal, relay)) } : CONFIG);
    client.ontrack = onTrack;
    client.onspeaker = (streams) => peer.speakers.push(streams);
    client.onactivelayer = (params) => peer.activeLayers.push(params);
    client.ondatachannel = ({ channel }) => keepChannel(channel);
    client.onerrnegotiate = (role, error) => peer.errors.push(`negotiation of ${role}: ${error.message ?? error}`);
    peer.client = client;
  },

  /** Joins; `config` is ion's JoinConfig, which the SDK itself never sends. */
  async join(sid, uid, config) {
    peer.joinCalledAt = performance.now();
    if (config) {
      const { signal } = peer;
      const call = signal.call.bind(signal);
      signal.call = (method, params) => call(method, method === 'join' ? { ...params, config } : params);
    }
    const joined = peer.client.join(sid, uid);
    const { pc } = peer.client.transports[0];
    if (config?.NoSubscribe) {
      // Without a subscriber connection there is no channel whose opening would end the SDK's join.
      await new Promise((resolve, reject) => {
        joined.catch(reject);
        pc.addEventListener('connectionstatechange', () => pc.connectionState === 'connected' && resolve());
      });
    } else {
      await joined;
    }
  },

  /** Joins as one who only receives, which the SDK has no call for: its signalling and a connection of our own. */
  async joinToReceive(sid, uid, config) {
    peer.joinCalledAt = performance.now();
    const pc = new RTCPeerConnection(CONFIG);
    peer.receiver = pc;
    const opened = new Promise((resolve) => {
      pc.ondatachannel = ({ channel }) => {
        if (channel.label !== 'ion-sfu') return keepChannel(channel);
        channel.onopen = resolve;
        if (channel.readyState === 'open') resolve();
      };
    });
    pc.ontrack = ({ track, streams }) => onTrack(track, streams[0]);
    peer.signal.onnegotiate = async (offer) => {
      await pc.setRemoteDescription(offer);
      await pc.setLocalDescription(await pc.createAnswer());
      peer.signal.answer(pc.localDescription);
    };
    const result = await peer.signal.call('join', { sid, uid, config: { NoPublish: true, ...config } });
    await opened;
    return result;
  },

  /** Publishes a stream of our own under a name: see `sourceOf`. */
  async publish(name, options = {}) {
    const { encodings, ...rest } = options;
    const stream = await sourceOf(rest);
    peer.locals.set(name, stream);
    peer.client.publish(stream, encodings);
    return stream.id;
  },

  unpublish(name) {
    peer.locals.get(name).unpublish();
    peer.locals.delete(name);
  },

  openChannel(label) {
    keepChannel(peer.client.createDataChannel(label));
  },

  send(label, data) {
    peer.channels.get(label).channel.send(Array.isArray(data) ? new Uint8Array(data) : data);
  },

  received(label) {
    return peer.channels.get(label)?.messages ?? null;
  },

  connectionStates() {
    const { transports } = peer.client;
    return [0, 1].map((role) => transports[role].pc.connectionState);
  },

  /** The server's address on the path that a connection uses. */
  async remoteAddress(role) {
    const stats = await peer.client.transports[role].pc.getStats();
    const transport = [...stats.values()].find(({ type }) => type === 'transport');
    return stats.get(stats.get(transport.selectedCandidatePairId).remoteCandidateId).address;
  },

  /** Type, protocol and relay protocol of the candidate of ours that a connection's media goes by. */
  async localCandidate(role) {
    const stats = await peer.client.transports[role].pc.getStats();
    const transport = [...stats.values()].find(({ type }) => type === 'transport');
    const pair = stats.get(transport.selectedCandidatePairId);
    const { candidateType, protocol, relayProtocol } = stats.get(pair.localCandidateId);
    return { candidateType, protocol, relayProtocol };
  },

  /** A summary of what came in and how it decodes. */
  async inbound() {
    const pc = peer.receiver ?? peer.client.transports[1].pc;
    const stats = await pc.getStats();
    const streams = [];
    for (const report of stats.values()) {
      if (report.type !== 'inbound-rtp') continue;
      const remote = [...peer.remotes.values()].find((remote) =>
        remote.stream.getTracks().some((track) => track.id === report.trackIdentifier),
      );
      const codec = stats.get(report.codecId)?.mimeType;
      streams.push({ ...report, codec, streamId: remote?.stream.id ?? null, width: report.frameWidth ?? 0 });
    }
    return streams;
  },

  /** What we send, by stream of RTP. */
  async outbound() {
    const stats = await peer.client.transports[0].pc.getStats();
    const streams = [];
    for (const report of stats.values()) {
      if (report.type !== 'outbound-rtp') continue;
      streams.push({ ...report, codec: stats.get(report.codecId)?.mimeType });
    }
    return streams;
  },

  /** The picture of a remote stream as it is now: its mean colour and a fingerprint of coarse pixels. */
  picture(streamId) {
    const remote = peer.remotes.get(streamId);
    const canvas = document.createElement('canvas');
    [canvas.width, canvas.height] = [16, 9];
    const context = canvas.getContext('2d', { willReadFrequently: true });
    context.drawImage(remote.video, 0, 0, 16, 9);
    const { data } = context.getImageData(0, 0, 16, 9);
    const mean = [0, 1, 2].map((channel) => {
      let sum = 0;
      for (let index = channel; index < data.length; index += 4) sum += data[index];
      return sum / (data.length / 4);
    });
    return { mean, pixels: [...data].filter((_, index) => index % 4 !== 3) };
  },

  /** What is known of every remote stream, as plain values. */
  remoteStreams() {
    return [...peer.remotes.values()].map(({ stream, events, trackAt, frameAt }) => ({
      id: stream.id,
      tracks: stream.getTracks().map(({ kind, muted, readyState }) => ({ kind, muted, readyState })),
      events,
      trackAt,
      frameAt,
    }));
  },
};

function onTrack(track, stream) {
  let remote = peer.remotes.get(stream.id);
  if (!remote) {
    const video = document.createElement('video');
    video.srcObject = stream;
    Object.assign(video, { autoplay: true, playsInline: true, width: 160, height: 90 });
    document.body.append(video);
    video.play().catch(() => {});
    remote = { stream, video, events: [], trackAt: performance.now(), frameAt: null };
    peer.remotes.set(stream.id, remote);
    follow(remote);
    const firstFrame = () => (remote.frameAt ??= performance.now());
    video.requestVideoFrameCallback(firstFrame);
  } else if (remote.stream !== stream) {
    // All its tracks went and came again: the id is the same, the object is another one.
    remote.stream = stream;
    remote.video.srcObject = stream;
    follow(remote);
  }
  remote.events.push(`track ${track.kind}`);
  for (const name of ['mute', 'unmute', 'ended']) {
    track.addEventListener(name, () => remote.events.push(`${name} ${track.kind}`));
  }
}

function follow(remote) {
  remote.stream.addEventListener('removetrack', ({ track }) => remote.events.push(`removetrack ${track.kind}`));
}

function keepChannel(channel) {
  const messages = [];
  channel.binaryType = 'arraybuffer';
  channel.onmessage = ({ data }) =>
    messages.push(typeof data === 'string' ? { text: data } : { bytes: [...new Uint8Array(data)] });
  peer.channels.set(channel.label, { channel, messages });
}

/**
 * A stream to publish. `hue`: a moving picture of that colour, of our own drawing. `tone`: a steady sound, `tone: 0`:
 * silence, both of our own making. Without them the SDK's `getUserMedia`, that is Chromium's test camera and beep.
 */
async function sourceOf({ hue, tone, width = 320, height = 180, ...constraints }) {
  const settings = { resolution: 'vga', codec: 'vp8', audio: true, video: true, simulcast: false, ...constraints };
  if (hue === undefined && tone === undefined) return LocalStream.getUserMedia(settings);
  const stream = new MediaStream();
  if (hue !== undefined) stream.addTrack(painted(hue, width, height));
  if (tone !== undefined) stream.addTrack(sounding(tone));
  return new LocalStream(stream, settings);
}

function painted(hue, width, height) {
  const canvas = Object.assign(document.createElement('canvas'), { width, height });
  const context = canvas.getContext('2d');
  let step = 0;
  setInterval(() => {
    step = (step + 1) % 32;
    context.fillStyle = `hsl(${hue} 100% 40%)`;
    context.fillRect(0, 0, width, height);
    context.fillStyle = `hsl(${hue} 100% 70%)`;
    context.fillRect((step * width) / 32, 0, width / 4, height);
  }, 50);
  return canvas.captureStream(20).getVideoTracks()[0];
}

function sounding(tone) {
  const audio = new AudioContext();
  const source = new OscillatorNode(audio, { frequency: tone || 440 });
  const gain = new GainNode(audio, { gain: tone ? 0.5 : 0 });
  const out = audio.createMediaStreamDestination();
  source.connect(gain).connect(out);
  source.start();
  return out.stream.getAudioTracks()[0];
}

window.peer = peer;
