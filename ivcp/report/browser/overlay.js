// Visual tokens drawn over an image: dropped cells dark, kept cells framed by reason, boxes.

const PANEL_SIDE = 640;
const DROPPED = ".";
const TRUE_COLOR = "#3ce15a";
const PREDICTED_COLOR = "#ffeb3c";

/**
 * Draw one panel.
 *
 * @param canvas where
 * @param photo the image, or null for a blank
 * @param size width and height of the image in pixels
 * @param grids the grids of the panel, areas in fractions of the image
 * @param codes a character for each visual token of the image, or null where they are not known
 * @param options reasons ([name, color] each), tokens and boxes (whether to draw them), truth,
 *   predicted (boxes in pixels of the image), side (pixels of the longer side)
 */
function drawPanel(canvas, photo, size, grids, codes, options) {
  const edge = (index, pick) => pick(...grids.map((grid) => grid.area[index]));
  const left = Math.min(0, edge(0, Math.min));
  const top = Math.min(0, edge(1, Math.min));
  const wide = Math.max(1, edge(2, Math.max)) - left;
  const high = Math.max(1, edge(3, Math.max)) - top;
  const scale = (options.side ?? PANEL_SIDE) / Math.max(wide * size[0], high * size[1]);
  const unit = [size[0] * scale, size[1] * scale]; // pixels of the canvas for the whole image
  canvas.width = Math.max(1, Math.round(wide * unit[0]));
  canvas.height = Math.max(1, Math.round(high * unit[1]));
  const pen = canvas.getContext("2d");
  const at = (x, y) => [(x - left) * unit[0], (y - top) * unit[1]];
  pen.fillStyle = "#787878"; // padding, and the blank that stands for an image
  pen.fillRect(0, 0, canvas.width, canvas.height);
  if (photo) pen.drawImage(photo, ...at(0, 0), ...unit);
  else {
    pen.fillStyle = "#d4d4d4";
    pen.fillRect(...at(0, 0), ...unit);
  }
  if (options.tokens && codes) {
    for (const grid of grids) drawGrid(pen, grid, codes, options.reasons, at);
  }
  if (options.boxes) {
    const frame = { at, size, limit: [canvas.width, canvas.height] };
    drawBox(pen, options.truth, TRUE_COLOR, [], frame);
    drawBox(pen, options.predicted, PREDICTED_COLOR, [12, 8], frame);
  }
}

function drawGrid(pen, grid, codes, reasons, at) {
  const [x1, y1, x2, y2] = grid.area;
  const x = (column) => x1 + ((x2 - x1) * column) / grid.columns;
  const y = (row) => y1 + ((y2 - y1) * row) / grid.rows;
  for (let row = 0; row < grid.rows; row++) {
    for (let column = 0; column < grid.columns; column++) {
      const code = codes[grid.start + row * grid.columns + column];
      const [a, b] = at(x(column), y(row)).map(Math.round);
      const [c, d] = at(x(column + 1), y(row + 1)).map(Math.round);
      if (code === DROPPED) {
        pen.fillStyle = "rgba(8, 10, 14, .7)";
        pen.fillRect(a, b, c - a, d - b);
      } else if (Math.min(c - a, d - b) >= 4) {
        const reason = code.charCodeAt(0) - 97;
        const width = Math.max(1.5, Math.min(c - a, d - b) / 11);
        pen.strokeStyle = reasons[reason]?.[1] ?? "#ffffff";
        pen.lineWidth = width;
        pen.strokeRect(a + 1 + width / 2, b + 1 + width / 2, c - a - 2 - width, d - b - 2 - width);
        drawSign(pen, reason, (a + c) / 2, (b + d) / 2, Math.min(c - a, d - b) / 7);
      }
    }
  }
}

/** A sign for a reason, so that reasons differ without their colors: none, dot, cross, bar. */
function drawSign(pen, reason, x, y, size) {
  const sign = reason % 4;
  if (!sign || size < 1.5) return;
  pen.beginPath();
  if (sign === 1) pen.arc(x, y, size / 2, 0, 7);
  if (sign === 2) {
    pen.moveTo(x - size, y - size);
    pen.lineTo(x + size, y + size);
    pen.moveTo(x + size, y - size);
    pen.lineTo(x - size, y + size);
  }
  if (sign === 3) {
    pen.moveTo(x - size, y);
    pen.lineTo(x + size, y);
  }
  pen.stroke();
}

/** A box with a dark halo; edges outside of the image are drawn along its border. */
function drawBox(pen, box, color, dash, frame) {
  if (!box) return;
  const inside = (value, most) => Math.min(Math.max(value, 2), most - 2);
  const corner = (x, y) =>
    frame.at(x / frame.size[0], y / frame.size[1]).map((v, axis) => inside(v, frame.limit[axis]));
  const [a, b] = corner(box[0], box[1]);
  const [c, d] = corner(box[2], box[3]);
  for (const [style, width] of [["rgba(0, 0, 0, .8)", 7], [color, 3.5]]) {
    pen.setLineDash(dash);
    pen.strokeStyle = style;
    pen.lineWidth = width;
    pen.strokeRect(a, b, c - a, d - b);
  }
  pen.setLineDash([]);
}
