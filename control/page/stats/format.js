// Numbers as people read them.

export function bitrate(bps) {
  if (bps === null || bps === undefined) return "–";
  if (bps >= 999_500) return `${(bps / 1e6).toFixed(1)} Mbit/s`;
  return `${Math.round(bps / 1000)} kbit/s`;
}

export function percent(share) {
  if (share === null || share === undefined) return "–";
  return `${(100 * share).toFixed(share > 0 && share < 0.1 ? 1 : 0)} %`;
}

export function milliseconds(ms) {
  if (ms === null || ms === undefined) return "–";
  if (ms < 0.95) return "< 1 ms";
  return `${Math.round(ms)} ms`;
}

export function frames(fps) {
  if (fps === null || fps === undefined) return "–";
  return `${Math.round(fps)} fps`;
}

export function picture({ width, height, fps }) {
  if (!width || !height) return "–";
  return fps ? `${width}×${height}, ${Math.round(fps)} fps` : `${width}×${height}`;
}
