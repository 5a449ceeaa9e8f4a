// A room server inside the page itself, so that the page can be tested with nothing else running: it stands where
// `WebSocket` was, speaks the same dialect, and answers with peer connections of its own that loop back to the page's.
// Runs in the browser before any script of the page. What happens in the room is up to the test, through `fakeRoom`.

export function install(peers) {
  const sockets = [];
  const room = {
    peers: new Map(),
    joins: [],
    wishes: [],
    said: [],
    refuse: null,
    get socket() { return sockets.at(-1); },
    add(peer) {
      const made = { name: peer.uid, camera: true, audio: true, ...peer, streams: new Map() };
      room.peers.set(peer.uid, made);
      if (made.camera) made.streams.set("camera", paint(made, 640, 360));
      if (made.screen) made.streams.set("screen", paint(made, 1280, 720, true));
      return room.socket?.publish(made);
    },
    leave(uid) {
      const peer = room.peers.get(uid);
      room.peers.delete(uid);
      room.socket?.unpublish(peer);
    },
    speak(...uids) {
      const streams = uids.flatMap((uid) => [...(room.peers.get(uid)?.streams.values() ?? [])]);
      room.socket?.tell_api({ method: "audioLevels", params: streams.map(({ id }) => id) });
    },
    layer(uid, activeLayer) {
      const streamId = room.peers.get(uid).streams.get("camera").id;
      room.socket?.tell_api({ method: "activeLayer", params: { streamId, activeLayer, availableLayers: ["high", "medium", "low"] } });
    },
    say(uid, text) { room.gossip({ type: "chat", uid, text }); },
    gossip(message) { room.socket?.gossip({ id: crypto.randomUUID(), ...message }); },
    stream(uid, which) { return room.peers.get(uid).streams.get(which).id; },
    drop(code = 4000, reason = "") { room.socket?.end(code, reason); },
  };

  class FakeSocket {
    static OPEN = 1;
    readyState = 0;

    constructor(url) {
      this.url = url;
      sockets.push(this);
      setTimeout(() => {
        if (room.refuse === "connection") return this.end(1006);
        this.readyState = 1;
        this.onopen?.();
      }, 5);
    }

    send(text) {
      const { id, method, params } = JSON.parse(text);
      const handlers = {
        join: () => this.join(id, params),
        offer: () => this.answer(id, params.desc),
        answer: () => this.down.setRemoteDescription(params.desc).then(() => this.negotiated?.()),
        trickle: () => this.trickle(params),
      };
      if (handlers[method]) handlers[method]();
      else if (id !== undefined) this.reply(id, { error: { code: -32601, message: "no such method" } });
    }

    close() { this.end(1000); }

    end(code, reason = "") {
      if (this.readyState === 3) return;
      this.readyState = 3;
      this.up?.close();
      this.down?.close();
      this.onclose?.({ code, reason });
    }

    tell(method, params) {
      if (this.readyState === 1) this.onmessage?.({ data: JSON.stringify({ jsonrpc: "2.0", method, params }) });
    }

    reply(id, body) { this.onmessage?.({ data: JSON.stringify({ jsonrpc: "2.0", id, ...body }) }); }

    async join(id, { sid, uid, offer, info }) {
      room.joins.push({ sid, uid, info, sdp: offer.sdp });
      if (room.refuse) return this.reply(id, { error: room.refuse });
      this.uid = uid;
      this.up = new RTCPeerConnection();
      this.down = new RTCPeerConnection();
      this.early = [[], []];
      this.up.ondatachannel = ({ channel }) => this.take(channel);
      await this.answer(id, offer);
      this.api = this.down.createDataChannel("ion-sfu");
      this.api.onmessage = ({ data }) => room.wishes.push(JSON.parse(data));
      for (const peer of room.peers.values()) this.attach(peer);
      await this.offer();
      this.tell("peerevent", { state: "join", peers: [...[...room.peers.values()].map(row), { uid, info }] });
      this.tell("trackevent", { state: "add", tracks: [...room.peers.values()].flatMap(tracks) });
      return undefined;
    }

    async answer(id, offer) {
      await this.up.setRemoteDescription(offer);
      await this.up.setLocalDescription(await this.up.createAnswer());
      await gathered(this.up);
      for (const candidate of this.early[0].splice(0)) this.up.addIceCandidate(candidate);
      this.reply(id, { result: this.up.localDescription.toJSON() });
    }

    async offer() {
      await this.down.setLocalDescription(await this.down.createOffer());
      await gathered(this.down);
      this.tell("offer", this.down.localDescription.toJSON());
      await new Promise((resolve) => { this.negotiated = resolve; });
    }

    trickle({ target, candidate }) {
      const pc = target === 0 ? this.up : this.down;
      if (pc?.remoteDescription) pc.addIceCandidate(candidate).catch(() => {});
      else this.early[target].push(candidate);
    }

    attach(peer) {
      for (const stream of peer.streams.values()) {
        for (const track of stream.getTracks()) this.down.addTransceiver(track, { direction: "sendonly", streams: [stream] });
      }
    }

    async publish(peer) {
      this.tell("peerevent", { state: "join", peers: [row(peer)] });
      this.tell("trackevent", { state: "add", tracks: tracks(peer) });
      this.attach(peer);
      await this.offer();
    }

    async unpublish(peer) {
      this.tell("trackevent", { state: "remove", tracks: tracks(peer) });
      this.tell("peerevent", { state: "leave", peers: [row(peer)] });
      const own = [...peer.streams.values()].flatMap((stream) => stream.getTracks());
      for (const transceiver of this.down.getTransceivers()) {
        if (own.includes(transceiver.sender.track)) transceiver.direction = "inactive";
      }
      await this.offer();
    }

    take(channel) {
      if (channel.label === "ion-sfu") return;
      this.channel = channel;
      channel.onmessage = ({ data }) => {
        const message = JSON.parse(data);
        room.said.push(message);
        if (message.type !== "hello") return;
        for (const { uid, audio, camera, streams } of room.peers.values()) {
          const kinds = Object.fromEntries([...streams].map(([kind, { id }]) => [id, kind]));
          room.gossip({ type: "state", uid, audio, video: camera, streams: kinds });
        }
      };
    }

    gossip(message) {
      if (this.channel?.readyState === "open") this.channel.send(typeof message === "string" ? message : JSON.stringify(message));
    }

    tell_api(message) {
      if (this.api?.readyState === "open") this.api.send(JSON.stringify(message));
    }
  }

  const row = ({ uid, name }) => ({ uid, info: { name } });
  const tracks = ({ uid, streams }) => [...streams.values()].flatMap((stream) => (
    stream.getTracks().map(({ id, kind }) => ({ uid, streamId: stream.id, trackId: id, kind }))));

  function gathered(pc) {
    return new Promise((resolve) => {
      const check = () => pc.iceGatheringState === "complete" && resolve();
      pc.addEventListener("icegatheringstatechange", check);
      check();
    });
  }

  /** A picture of someone: a slowly moving portrait, or a screen full of text. */
  function paint({ uid }, width, height, is_screen = false) {
    const canvas = Object.assign(document.createElement("canvas"), { width, height });
    const context = canvas.getContext("2d");
    const hue = [...uid].reduce((sum, letter) => sum + letter.codePointAt(0) * 47, 0) % 360;
    let turn = 0;
    const step = () => {
      turn += 1;
      if (is_screen) screen(context, width, height, turn);
      else portrait(context, width, height, hue, turn);
    };
    step();
    setInterval(step, 66);
    return canvas.captureStream(15);
  }

  function portrait(context, width, height, hue, turn) {
    const sky = context.createLinearGradient(0, 0, width, height);
    sky.addColorStop(0, `hsl(${hue} 40% 62%)`);
    sky.addColorStop(1, `hsl(${hue + 50} 45% 30%)`);
    context.fillStyle = sky;
    context.fillRect(0, 0, width, height);
    const sway = Math.sin(turn / 12) * width * 0.02;
    context.fillStyle = `hsl(${hue + 180} 25% 22%)`;
    context.beginPath();
    context.ellipse(width / 2 + sway, height * 1.08, width * 0.24, height * 0.4, 0, 0, 7);
    context.fill();
    context.fillStyle = `hsl(${20 + (hue % 20)} 45% ${50 + (hue % 25)}%)`;
    context.beginPath();
    context.ellipse(width / 2 + sway, height * 0.46, height * 0.17, height * 0.22, 0, 0, 7);
    context.fill();
  }

  function screen(context, width, height, turn) {
    context.fillStyle = "#f7f7f2";
    context.fillRect(0, 0, width, height);
    context.fillStyle = "#2d3a55";
    context.fillRect(0, 0, width, 64);
    for (let line = 0; line < 14; line += 1) {
      context.fillStyle = line % 5 === 0 ? "#2d3a55" : "#b9bfca";
      context.fillRect(90, 120 + line * 40, 300 + ((line * 137) % 700), 16);
    }
    context.fillStyle = "#cf2f3c";
    context.fillRect(90 + (turn % 500), 690, 12, 12);
  }

  for (const peer of peers) room.add(peer);
  window.WebSocket = FakeSocket;
  window.fakeRoom = room;
}
