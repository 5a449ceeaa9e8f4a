// Waiting for something that will be so, and saying what it was when it never is.

export const sleep = (ms) => new Promise((resolve) => setTimeout(resolve, ms));

/** Asks `probe` until it gives something truthy, and gives that; fails after `timeout` ms with `what` and the last answer. */
export async function until(what, probe, { timeout = 20_000, every = 50, show = undefined } = {}) {
  const deadline = Date.now() + timeout;
  let last;
  for (;;) {
    const found = await probe();
    if (found) return found;
    last = found;
    if (Date.now() > deadline) {
      const seen = show ? await show() : last;
      throw new Error(`waited ${timeout} ms for ${what}; last seen: ${JSON.stringify(seen)}`);
    }
    await sleep(every);
  }
}
