// The sensor and the agent in the browser: crops as dtram_env/sensor.py cuts them, and the exported
// step of agents/export.py, run by onnxruntime-web.

import * as ort from "./ort/ort.wasm.min.mjs";

ort.env.wasm.numThreads = 1; // more would need headers that not every server sends
ort.env.wasm.wasmPaths = new URL("./ort/", import.meta.url).href;

/** First column (or row) of a crop of `side` pixels about x in [-1, 1] in an image of `size`. */
export const corner = (x, size, side) => Math.floor((x + 1) * size / 2 - side / 2 + 0.5);

/** A coordinate in [-1, 1], as float32 has it. */
export const clipped = (x) => Math.fround(Math.min(Math.max(x, -1), 1));

/** An image: `pixels` is a Uint8Array of height * width * channels. */
export function makeImage(pixels, [height, width, channels], thumbnail = null) {
  return { pixels, height, width, channels, thumbnail };
}

/** The crops of a glimpse, finest first, each {left, top, side, size, pixels} with size * size pixels. */
export function crops(image, [x, y], { glimpse_size: size, num_scales: scales }) {
  return Array.from({ length: scales }, (_, scale) => {
    const side = size * 2 ** scale;
    const [left, top] = [corner(x, image.width, side), corner(y, image.height, side)];
    return { left, top, side, size, pixels: average(image, left, top, size, 2 ** scale) };
  });
}

/** A crop of size * factor pixels a side, shrunk by `factor`: (sum + n // 2) // n; 0 is outside. */
function average(image, left, top, size, factor) {
  const { width, height, channels, pixels } = image;
  const made = new Uint8Array(size * size * channels);
  const n = factor * factor;
  for (let row = 0; row < size; row++) {
    for (let column = 0; column < size; column++) {
      for (let channel = 0; channel < channels; channel++) {
        let sum = n >> 1;
        for (let y = top + row * factor; y < top + (row + 1) * factor; y++) {
          for (let x = left + column * factor; x < left + (column + 1) * factor; x++) {
            const inside = x >= 0 && x < width && y >= 0 && y < height;
            if (inside) sum += pixels[(y * width + x) * channels + channel];
          }
        }
        made[(row * size + column) * channels + channel] = Math.floor(sum / n);
      }
    }
  }
  return made;
}

/** The crops as one array (size, size, channels * scales), the last axis scale by scale. */
function stacked(parts, channels) {
  if (parts.length === 1) return parts[0].pixels;
  const made = new Uint8Array(parts.length * parts[0].pixels.length);
  parts.forEach((part, scale) => part.pixels.forEach((value, i) => {
    const [pixel, channel] = [Math.floor(i / channels), i % channels];
    made[(pixel * parts.length + scale) * channels + channel] = value;
  }));
  return made;
}

/** An exported DT-RAM; `about` is its description, see agents/export.py. */
export class Agent {
  constructor(session, about) {
    Object.assign(this, { session, about });
  }

  /** The agent of an ONNX file, given as a Uint8Array. */
  static async load(bytes, about) {
    return new Agent(await ort.InferenceSession.create(bytes), about);
  }

  /** Looks until the budget is used: for each glimpse {location, probs, stop}, `stop` p(stop). */
  async run(image) {
    const { about } = this;
    const [side, , channels] = about.glimpse_shape;
    const first = about.first_size;
    let state = Object.fromEntries(Object.entries(about.state).map(([name, part]) => {
      const length = part.shape.reduce((a, b) => a * b, 1);
      const zeros = part.type === "int64" ? new BigInt64Array(length) : new Float32Array(length);
      return [name, new ort.Tensor(part.type, zeros, [1, ...part.shape])];
    }));
    let location = [0, 0];
    const steps = [];
    for (let time = 0; time < about.max_glimpses; time++) {
      const whole = first && time === 0; // the first look is the thumbnail
      const seen = whole ? new Uint8Array(side * side * channels)
        : stacked(crops(image, location, about.sensor), image.channels);
      const inputs = {
        glimpse: new ort.Tensor("uint8", seen, [1, side, side, channels]),
        location: new ort.Tensor("float32", Float32Array.from(location), [1, 2]),
        ...state,
      };
      if (first) {
        const thumbnail = whole ? image.thumbnail : new Uint8Array(image.thumbnail.length);
        inputs.first_glimpse = new ort.Tensor("uint8", thumbnail, [1, first, first, image.channels]);
      }
      const found = await this.session.run(inputs);
      steps.push({ location, probs: [...found.probs.data], stop: found.stop_probability.data[0] });
      location = [...found.next_location.data].map(clipped);
      state = Object.fromEntries(Object.keys(state).map((name) => [name, found[`next_${name}`]]));
    }
    return steps;
  }
}

/** Number of glimpses that an agent takes which stops when p(stop) > threshold. */
export function glimpsesTaken(steps, threshold) {
  const stops = steps.findIndex((step) => step.stop > threshold);
  return stops < 0 ? steps.length : stops + 1;
}

/** Index of the largest value, the first of equal ones. */
export const argmax = (values) => values.indexOf(Math.max(...values));
