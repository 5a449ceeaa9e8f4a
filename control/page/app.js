// The page: a lobby, then a room, then perhaps a lobby again. Reads downwards; each part has its file.
//
//     address, memory    the room's name in the URL; what is remembered between visits
//     call/              the protocol: signalling, the two peer connections, who is there
//     media/             camera, microphone, screen
//     stats/             getStats made into rates and graphs
//     view/              what is seen

import * as address from "./address.js";
import { Room } from "./call/room.js";
import { LocalMedia } from "./media/local.js";
import { Call } from "./view/call.js";
import { el } from "./view/dom.js";
import { Lobby } from "./view/lobby.js";

const root = document.getElementById("app");
const now = { room: null, call: null };

enter_lobby();
expose();

function enter_lobby(said = "") {
  const local = new LocalMedia();
  const lobby = new Lobby(local);
  root.replaceChildren(lobby.element);
  document.title = "Ringmain";
  if (said) lobby.refuse(said);
  lobby.on("join", async ({ name, sid }) => {
    if (!can_call()) return lobby.refuse("This browser has no WebRTC, which calls are made of.");
    const room = new Room({ sid, name, codec: address.codec() }, local);
    try {
      await room.join();
    } catch (error) {
      return lobby.refuse(error.message);
    }
    lobby.close();
    return enter_room(room, local);
  });
}

function enter_room(room, local) {
  address.enter(room.sid);
  document.title = `${room.sid} · Ringmain`;
  const call = new Call(room, local);
  Object.assign(now, { room, call });
  root.replaceChildren(call.element);
  room.on("status", ({ state, why }) => state === "over" && end(why));
  call.on("leave", () => room.leave());
  addEventListener("pagehide", () => room.leave(), { once: true });

  function end(why) {
    Object.assign(now, { room: null, call: null });
    call.close();
    local.close();
    enter_farewell(why);
  }
}

function enter_farewell(why) {
  const again = el("button", { type: "button", class: "primary", text: "Join again", "data-testid": "rejoin", on: { click: () => enter_lobby() } });
  root.replaceChildren(el("main", { class: "farewell", "data-testid": "farewell" },
    el("h1", { text: why }),
    el("p", { text: "Camera and microphone are off." }),
    again));
  again.focus();
}

function can_call() {
  return "RTCPeerConnection" in window && "WebSocket" in window;
}

/** `window.ringmain`: copies of what is going on, for tests and the curious. Writing to them changes nothing. */
function expose() {
  const roster = () => now.room?.roster;
  const peer_of = (peer) => {
    const { uid, name, self, speaking } = peer;
    const { microphone_on, camera_on } = now.room.local;
    const [audio, video] = self ? [microphone_on, camera_on] : [peer.audio, peer.video];
    const streams = roster().media(peer).map(({ stream, kind }) => ({ id: stream.id, kind }));
    return { uid, name, self, audio, video, speaking, streams };
  };
  const view = {
    get state() { return now.room?.state ?? "lobby"; },
    get uid() { return now.room?.uid ?? null; },
    get room() { return now.room?.sid ?? null; },
    get peers() { return roster()?.peers.map(peer_of) ?? []; },
    get layers() { return now.room ? Object.fromEntries(structuredClone(now.room.layers)) : {}; },
    get stats() { return structuredClone(now.call?.sampler.last ?? null); },
  };
  Object.defineProperty(window, "ringmain", { value: Object.freeze(view) });
}
