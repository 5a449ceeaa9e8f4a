// The list of who is here.

import { arrange, el, write } from "./dom.js";
import { icon } from "./icons.js";
import { hue_of, initials } from "./tile.js";

export class People {
  #rows = new Map();

  element = el("ul", { class: "people", "data-testid": "people" });

  /** @param {object[]} peers of the roster, oneself with the state of the local devices */
  update(peers) {
    const uids = new Set(peers.map(({ uid }) => uid));
    for (const uid of [...this.#rows.keys()]) {
      if (!uids.has(uid)) this.#rows.delete(uid);
    }
    arrange(this.element, peers.map((peer) => this.#row(peer).element));
  }

  #row(peer) {
    const row = this.#rows.get(peer.uid) ?? this.#make(peer);
    write(row.name, peer.self ? `${peer.name} (you)` : peer.name);
    write(row.initials, initials(peer.name));
    row.element.classList.toggle("speaking", Boolean(peer.speaking));
    row.microphone.replaceChildren(icon(peer.audio ? "microphone" : "microphone_off"));
    row.microphone.setAttribute("aria-label", peer.audio ? "Microphone on" : "Microphone off");
    row.microphone.classList.toggle("off", !peer.audio);
    row.camera.replaceChildren(icon(peer.video ? "camera" : "camera_off"));
    row.camera.setAttribute("aria-label", peer.video ? "Camera on" : "Camera off");
    row.camera.classList.toggle("off", !peer.video);
    return row;
  }

  #make({ uid }) {
    const row = {
      initials: el("span", { class: "person-mark", "aria-hidden": "true", vars: { hue: hue_of(uid) } }),
      name: el("span", { class: "person-name" }),
      microphone: el("span", { class: "person-sign", role: "img" }),
      camera: el("span", { class: "person-sign", role: "img" }),
    };
    row.element = el("li", { class: "person", "data-testid": "person", "data-uid": uid },
      row.initials, row.name, row.microphone, row.camera);
    this.#rows.set(uid, row);
    return row;
  }
}
