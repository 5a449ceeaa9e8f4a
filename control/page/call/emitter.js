// Who wants to know is told: the one way in which a part of the page speaks to those above it.
// Owns listeners, nothing else.

export class Emitter {
  #listeners = new Map();

  /** Calls `listener` on every `name`; the returned function ends that. */
  on(name, listener) {
    const listeners = this.#listeners.get(name) ?? new Set();
    this.#listeners.set(name, listeners.add(listener));
    return () => listeners.delete(listener);
  }

  emit(name, ...values) {
    for (const listener of [...(this.#listeners.get(name) ?? [])]) listener(...values);
  }

  /** Nobody is told anything any more. */
  silence() {
    this.#listeners.clear();
  }
}
