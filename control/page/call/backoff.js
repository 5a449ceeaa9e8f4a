// How long to wait before the next attempt: twice as long each time, up to a bound, and never at the same moment as
// everyone else, so that a server that comes back is not met by all its clients at once.

export class Backoff {
  #attempts = 0;

  /** Milliseconds until the next attempt. */
  next_ms() {
    const ceiling_ms = Math.min(FIRST_MS * 2 ** this.#attempts, LONGEST_MS);
    this.#attempts += 1;
    return ceiling_ms * (0.5 + Math.random() / 2);
  }

  reset() {
    this.#attempts = 0;
  }
}

const FIRST_MS = 500;
const LONGEST_MS = 15_000;
