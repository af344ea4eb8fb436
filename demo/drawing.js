// A drawn digit becomes an image like MNIST's: shrunk into a box of 20 pixels, with its centre of
// mass in the middle of 28.

import { makeImage } from "./agent.js";

const BOX = 20;
const FIELD = 28;

/** The drawing on a canvas as an image (height, width, 1), or null if the canvas is black.
 *
 * In an image larger than a digit's 28 pixels the digit lies where it was drawn.
 */
export function centred(canvas, [height, width]) {
  const drawn = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height).data;
  let [left, top, right, bottom] = [canvas.width, canvas.height, -1, -1];
  for (let i = 0; i < drawn.length; i += 4) {
    if (drawn[i] < 128) continue;
    const [x, y] = [(i / 4) % canvas.width, Math.floor(i / 4 / canvas.width)];
    [left, right] = [Math.min(left, x), Math.max(right, x)];
    [top, bottom] = [Math.min(top, y), Math.max(bottom, y)];
  }
  if (right < 0) return null;
  const zoom = BOX / (Math.max(right - left, bottom - top) + 1);
  const ink = (x, y) => { // mean of the canvas' pixels that become pixel (x, y) of the box
    let [sum, n] = [0, 0];
    for (let v = Math.floor(top + y / zoom); v < top + (y + 1) / zoom; v++) {
      for (let u = Math.floor(left + x / zoom); u < left + (x + 1) / zoom; u++, n++) {
        const inside = u >= 0 && v >= 0 && u < canvas.width && v < canvas.height;
        if (inside) sum += drawn[4 * (v * canvas.width + u)];
      }
    }
    return n ? sum / n : 0;
  };
  const small = Float64Array.from({ length: BOX * BOX }, (_, i) => ink(i % BOX, Math.floor(i / BOX)));
  const mass = small.reduce((a, b) => a + b, 0);
  const middle = (f) => small.reduce((sum, v, i) => sum + v * f(i), 0) / mass;
  const [x, y] = [middle((i) => i % BOX), middle((i) => Math.floor(i / BOX))];
  const corner = (drawnMiddle, canvasSize, size, within) => { // of the box, in the image
    const free = size - FIELD; // pixels that the field of 28 can move
    const field = Math.round(drawnMiddle / canvasSize * size - FIELD / 2);
    return Math.min(Math.max(field, 0), free) + Math.round((FIELD - 1) / 2 - within);
  };
  const column = corner((left + right) / 2, canvas.width, width, x);
  const row = corner((top + bottom) / 2, canvas.height, height, y);
  const pixels = new Uint8Array(height * width);
  small.forEach((value, i) => {
    const [u, v] = [column + (i % BOX), row + Math.floor(i / BOX)];
    if (u >= 0 && v >= 0 && u < width && v < height) pixels[v * width + u] = Math.round(value);
  });
  return makeImage(pixels, [height, width, 1]);
}
