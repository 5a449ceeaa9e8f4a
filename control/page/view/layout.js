// Where tiles go: arithmetic only, so that tiles can be placed without being moved in the document, which would stop
// their pictures.
//
// A box is {x, y, width, height} in CSS pixels.

/** Boxes for `count` tiles of one rank; `height` of the answer may exceed the room's, which then scrolls. */
export function grid({ width, height }, count) {
  const plans = Array.from({ length: count }, (_, index) => plan(width, height, count, index + 1));
  const best = plans.reduce((a, b) => (b.worth > a.worth ? b : a));
  const { columns, rows } = best;
  const tile = best.tile.width < TILE_WIDTH_MIN ? smallest(width, columns) : best.tile;
  const fits = Math.max(1, Math.floor((width + GAP) / (tile.width + GAP)));
  const across = best.tile.width < TILE_WIDTH_MIN ? fits : columns;
  const down = Math.ceil(count / across) || rows;
  const full_height = down * (tile.height + GAP) - GAP;
  const top = Math.max(0, (height - full_height) / 2);
  const boxes = Array.from({ length: count }, (_, index) => {
    const row = Math.floor(index / across);
    const in_row = Math.min(across, count - row * across);
    const left = (width - (in_row * (tile.width + GAP) - GAP)) / 2;
    return {
      x: left + (index % across) * (tile.width + GAP),
      y: top + row * (tile.height + GAP),
      ...tile,
    };
  });
  return { boxes, height: Math.max(height, full_height) };
}

/**
 * The first tile large, the others in a strip beside it (as many as fit: `boxes` may be fewer than `count`), or, in a tall
 * room, all of them below.
 */
export function spotlight({ width, height }, count) {
  const others = count - 1;
  if (others === 0) return { boxes: [{ x: 0, y: 0, width, height }], height };
  return (width >= height ? beside : below)({ width, height }, others);
}

function beside({ width, height }, others) {
  const side = Math.min(260, Math.max(150, width * 0.2));
  const tile = { width: side, height: side / WIDEST };
  const shown = Math.min(others, Math.max(1, Math.floor((height + GAP) / (tile.height + GAP))));
  const top = Math.max(0, (height - shown * (tile.height + GAP) + GAP) / 2);
  const strip = Array.from({ length: shown }, (_, index) => (
    { x: width - side, y: top + index * (tile.height + GAP), ...tile }));
  return { boxes: [{ x: 0, y: 0, width: width - side - GAP, height }, ...strip], height };
}

function below({ width, height }, others) {
  const large = { x: 0, y: 0, width, height: Math.min(height * 0.6, Math.max(width * 0.7, height * 0.45)) };
  const top = large.height + GAP;
  const rest = grid({ width, height: height - top }, others);
  return { boxes: [large, ...rest.boxes.map((box) => ({ ...box, y: box.y + top }))], height: top + rest.height };
}

function plan(width, height, count, columns) {
  const rows = Math.ceil(count / columns);
  const cell = { width: (width - (columns - 1) * GAP) / columns, height: (height - (rows - 1) * GAP) / rows };
  const tile = fit(cell, width > height ? TALLEST_IN_WIDE : TALLEST);
  return { columns, rows, tile, worth: worth(tile) };
}

/** The largest tile in a cell whose shape is one that a camera's picture survives. */
function fit(cell, tallest) {
  const [width, height] = [Math.max(1, cell.width), Math.max(1, cell.height)];
  const shape = width / height;
  if (shape > WIDEST) return { width: height * WIDEST, height };
  if (shape < tallest) return { width, height: width / tallest };
  return { width, height };
}

/** Area, less a part of what is cropped away when a 16:9 picture fills it. */
function worth({ width, height }) {
  const shown = Math.min(1, width / height / WIDEST);
  return width * height * (0.7 + 0.3 * shown);
}

function smallest(width, columns) {
  const across = Math.max(1, Math.min(columns, Math.floor((width + GAP) / (TILE_WIDTH_MIN + GAP))));
  const tile_width = (width - (across - 1) * GAP) / across;
  return { width: tile_width, height: tile_width / TALLEST_IN_WIDE };
}

const GAP = 8;
const WIDEST = 16 / 9;
const TALLEST = 4 / 5;
const TALLEST_IN_WIDE = 4 / 3;
const TILE_WIDTH_MIN = 104;
