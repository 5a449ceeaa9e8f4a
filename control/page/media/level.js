// How loud a track is, for the meter of the lobby. Owns an audio graph that ends in nothing: it is never heard.

export class Level {
  #context;
  #analyser;
  #samples;

  constructor(track) {
    this.#context = new AudioContext();
    this.#analyser = new AnalyserNode(this.#context, { fftSize: 1024 });
    this.#samples = new Float32Array(this.#analyser.fftSize);
    new MediaStreamAudioSourceNode(this.#context, { mediaStream: new MediaStream([track]) }).connect(this.#analyser);
    // Browsers hold audio back until the person has touched the page.
    this.#context.resume().catch(() => {});
  }

  /** 0 (silence, or below 60 dB under full scale) to 1. */
  read() {
    this.#analyser.getFloatTimeDomainData(this.#samples);
    const power = this.#samples.reduce((sum, sample) => sum + sample * sample, 0) / this.#samples.length;
    return Math.min(1, Math.max(0, 1 + (10 * Math.log10(power + 1e-9)) / 60));
  }

  close() {
    this.#context.close().catch(() => {});
  }
}
