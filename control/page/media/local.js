// Our own camera, microphone and screen. Owns the tracks and asks for devices; says in words why one cannot be had.
//
// A camera that is off is released, so that its light goes out. A microphone that is off stays open and sends silence:
// it must be back at once.
//
// Emits `change` (slot) when what is to be sent changed, and `lost` (message) when a device went away by itself.

import { Emitter } from "../call/emitter.js";

export class LocalMedia extends Emitter {
  /** Under this stream, camera and microphone are published: it keeps its id whatever is on. */
  stream = new MediaStream();
  screen = null;
  microphone = null;
  camera = null;
  #ids = { audio: "", video: "" };

  get microphone_on() {
    return this.microphone?.enabled ?? false;
  }

  get camera_on() {
    return this.camera !== null;
  }

  /** What is to be sent, by the publisher's slots. */
  get slots() {
    return {
      audio: { track: this.microphone, stream: this.stream },
      video: { track: this.camera, stream: this.stream },
      screen: { track: this.screen?.getVideoTracks()[0] ?? null, stream: this.screen },
      screen_audio: { track: this.screen?.getAudioTracks()[0] ?? null, stream: this.screen },
    };
  }

  /** The id of the device in use, "" when none was chosen. */
  device_id(kind) {
    const track = kind === "audio" ? this.microphone : this.camera;
    return track?.getSettings().deviceId ?? this.#ids[kind];
  }

  /**
   * Camera and microphone with one question to the person; what cannot be had stays off. Resolves with what there is to
   * say about it, null when both are on.
   */
  async start() {
    if (!devices_are_allowed()) return INSECURE;
    const video = { ...CAMERA, ...exactly(this.#ids.video) };
    const audio = { ...MICROPHONE, ...exactly(this.#ids.audio) };
    try {
      const both = await navigator.mediaDevices.getUserMedia({ audio, video });
      this.#put("microphone", both.getAudioTracks()[0], "audio");
      this.#put("camera", both.getVideoTracks()[0], "video");
      return null;
    } catch (error) {
      if (error.name === "NotAllowedError") return DENIED;
    }
    const tries = await Promise.allSettled([this.start_microphone(), this.start_camera()]);
    const missing = tries.filter(({ reason }) => reason).map(({ reason }) => reason.message);
    return missing.length ? [...missing, "You can join all the same."].join(" ") : null;
  }

  /** Devices to begin with, from an earlier visit. */
  remember({ audio = "", video = "" }) {
    this.#ids = { audio, video };
  }

  async start_camera(device_id = this.#ids.video) {
    const track = await capture("video", { ...CAMERA, ...exactly(device_id) });
    this.#put("camera", track, "video", device_id);
  }

  stop_camera() {
    this.#put("camera", null, "video");
  }

  async start_microphone(device_id = this.#ids.audio) {
    const track = await capture("audio", { ...MICROPHONE, ...exactly(device_id) });
    this.#put("microphone", track, "audio", device_id);
  }

  /** Mutes or unmutes, asking for the microphone when there is none yet. */
  async set_microphone(on) {
    if (on && !this.microphone) return this.start_microphone();
    if (this.microphone) this.microphone.enabled = on;
    this.emit("change", "audio");
    return undefined;
  }

  stop_microphone() {
    this.#put("microphone", null, "audio");
  }

  async start_screen() {
    require_devices("getDisplayMedia");
    this.screen = await navigator.mediaDevices.getDisplayMedia(SCREEN).catch((error) => {
      throw new Error(explain(error, "screen"));
    });
    const [video] = this.screen.getVideoTracks();
    video.contentHint = "detail";
    video.onended = () => this.stop_screen();
    this.emit("change", "screen");
    this.emit("change", "screen_audio");
  }

  stop_screen() {
    if (!this.screen) return;
    for (const track of this.screen.getTracks()) release(track);
    this.screen = null;
    this.emit("change", "screen");
    this.emit("change", "screen_audio");
  }

  close() {
    this.silence();
    this.stop_screen();
    this.stop_camera();
    this.stop_microphone();
  }

  #put(name, track, kind, device_id) {
    const before = this[name];
    if (before) {
      this.stream.removeTrack(before);
      release(before);
    }
    this[name] = track;
    if (device_id !== undefined) this.#ids[kind] = device_id;
    if (track) {
      this.stream.addTrack(track);
      track.onended = () => {
        this.#put(name, null, kind);
        this.emit("lost", `The ${name} went away.`);
      };
    }
    this.emit("change", kind);
  }
}

/** Whether the browser lets this page ask for devices at all: it must have come by HTTPS, or from this very machine. */
export function devices_are_allowed() {
  return Boolean(navigator.mediaDevices?.getUserMedia);
}

export function screen_can_be_shared() {
  return Boolean(navigator.mediaDevices?.getDisplayMedia);
}

/** Cameras and microphones, `{id, label}` each; without labels until one was allowed. */
export async function list_devices() {
  const all = (await navigator.mediaDevices?.enumerateDevices?.()) ?? [];
  const of = (kind) => all
    .filter((device) => device.kind === kind && device.deviceId)
    .map(({ deviceId, label }) => ({ id: deviceId, label }));
  return { audio: of("audioinput"), video: of("videoinput") };
}

async function capture(kind, wanted) {
  require_devices("getUserMedia");
  const name = kind === "audio" ? "microphone" : "camera";
  try {
    const stream = await navigator.mediaDevices.getUserMedia({ [kind]: wanted });
    return stream.getTracks()[0];
  } catch (error) {
    // A device that was chosen once and is gone now: any other will do.
    if (error.name === "OverconstrainedError" && wanted.deviceId) {
      const { deviceId, ...any } = wanted;
      return capture(kind, any);
    }
    throw new Error(explain(error, name));
  }
}

function require_devices(method) {
  if (!navigator.mediaDevices?.[method]) throw new Error(INSECURE);
}

function explain({ name }, device) {
  const said = {
    NotAllowedError: device === "screen"
      ? "The screen is not shared."
      : `The ${device} is not allowed. Allow it in the browser's address bar, then try again.`,
    NotFoundError: `There is no ${device}.`,
    NotReadableError: `The ${device} is in use by another program.`,
    AbortError: `The ${device} could not be started.`,
  };
  return said[name] ?? `The ${device} cannot be used (${name}).`;
}

function release(track) {
  track.onended = null;
  track.stop();
}

function exactly(device_id) {
  return device_id ? { deviceId: { exact: device_id } } : {};
}

const INSECURE = "Browsers allow camera and microphone only on pages that came by HTTPS (or from this very machine). "
  + "You can still watch and listen.";
const DENIED = "Camera and microphone are not allowed. You can join without them, or allow them in the browser's address bar.";
const CAMERA = { width: { ideal: 1280 }, height: { ideal: 720 }, frameRate: { ideal: 30 } };
const MICROPHONE = { echoCancellation: true, noiseSuppression: true, autoGainControl: true };
const SCREEN = { video: { frameRate: { ideal: 15 } }, audio: true };
