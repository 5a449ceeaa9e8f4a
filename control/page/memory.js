// What the page remembers from one visit to the next: the name and the devices. Nothing of it leaves the browser.

const KEY = "ringmain";

/** What was remembered; empty where the browser keeps nothing. */
export function recall() {
  try {
    return JSON.parse(localStorage.getItem(KEY)) ?? {};
  } catch {
    return {};
  }
}

export function remember(more) {
  try {
    localStorage.setItem(KEY, JSON.stringify({ ...recall(), ...more }));
  } catch {
    // Private windows may refuse; then the next visit begins afresh.
  }
}
