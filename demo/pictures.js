// What is painted: images, what was seen of them, the glimpses' boxes, and the curve.

// As dtram_env/rendering.py has them.
const COLOURS = ["#e6194b", "#3cb44b", "#ffc800", "#0082ff", "#f58230", "#c83cdc", "#00c8c8", "#a06e3c"];
const UNSEEN = [90, 90, 100];
const SVG = "http://www.w3.org/2000/svg";

/** A canvas of its own with an image's or a crop's pixels. */
function bitmap(pixels, width, height) {
  const channels = pixels.length / (width * height);
  const data = new ImageData(width, height);
  for (let i = 0; i < width * height; i++) {
    for (let c = 0; c < 3; c++) data.data[4 * i + c] = pixels[i * channels + (channels === 3 ? c : 0)];
    data.data[4 * i + 3] = 255;
  }
  const made = new OffscreenCanvas(width, height);
  made.getContext("2d").putImageData(data, 0, 0);
  return made;
}

/** The part of a canvas that a crop covers: left, top, width, height. */
function place(context, image, part) {
  const [x, y] = [context.canvas.width / image.width, context.canvas.height / image.height];
  const height = part.whole ? image.height : part.side;
  return [part.left * x, part.top * y, part.side * x, height * y];
}

/** The crops of some glimpses, so that finer ones are painted over coarser ones. */
const coarsestFirst = (glimpses) => (
  glimpses.flat().sort((a, b) => b.side / b.size - a.side / a.size));

/** An image, greyed where no glimpse saw it; `glimpses` null greys nothing. */
export function paintImage(context, image, glimpses) {
  const { width, height } = context.canvas;
  context.imageSmoothingEnabled = false;
  context.drawImage(bitmap(image.pixels, image.width, image.height), 0, 0, width, height);
  if (!glimpses) return;
  // What covers the image: dense where nothing was seen, thinner where it was seen coarsely.
  const cover = new OffscreenCanvas(width, height).getContext("2d");
  const dense = (alpha) => `rgb(${UNSEEN.join(" ")} / ${alpha})`;
  cover.fillStyle = dense(0.8);
  cover.fillRect(0, 0, width, height);
  for (const part of coarsestFirst(glimpses)) {
    const box = place(context, image, part);
    cover.clearRect(...box);
    if (part.side === part.size) continue;
    cover.fillStyle = dense(0.45);
    cover.fillRect(...box);
  }
  context.drawImage(cover.canvas, 0, 0);
}

/** Only what the glimpses saw, finer crops over coarser ones. */
export function paintSeen(context, image, glimpses) {
  context.imageSmoothingEnabled = false;
  context.fillStyle = `rgb(${UNSEEN.join(" ")})`;
  context.fillRect(0, 0, context.canvas.width, context.canvas.height);
  for (const part of coarsestFirst(glimpses)) {
    const seen = bitmap(part.pixels, part.size, part.size);
    context.drawImage(seen, ...place(context, image, part));
  }
}

/** A numbered box around the finest crop of each glimpse; none around a whole image. */
export function paintBoxes(context, image, glimpses, { dashed = false }) {
  context.setLineDash(dashed ? [8, 8] : []);
  glimpses.forEach(([part], number) => {
    if (part.whole) return;
    const [left, top, width, height] = place(context, image, part);
    context.strokeStyle = dashed ? "#ccc" : COLOURS[number % COLOURS.length];
    context.lineWidth = dashed ? 3 : 5;
    context.strokeRect(left, top, width, height);
    if (dashed) return;
    const [x, y] = [Math.max(left, 0), Math.max(top, 0)];
    context.fillStyle = context.strokeStyle;
    context.fillRect(x, y, 26, 30);
    context.fillStyle = "black";
    context.font = "bold 24px sans-serif";
    context.fillText(number + 1, x + 6, y + 24);
  });
  context.setLineDash([]);
}

/** Error against mean glimpses of an agent that learned to stop, beside fixed numbers of glimpses. */
export function drawCurve(svg, curve, fixed, chosen, text) {
  const [left, bottom, width, height] = [46, 200, 360, 176];
  const rows = [...curve].sort((a, b) => a.mean_glimpses - b.mean_glimpses);
  const most = Math.max(...fixed.map((row) => row.mean_glimpses));
  const errors = [...rows, ...fixed.slice(1)].map((row) => row.test_error);
  const top = Math.max(...errors) * 1.05;
  const x = (glimpses) => left + (glimpses - 1) / (most - 1) * width;
  const y = (error) => bottom - error / top * height;
  const add = (tag, attributes, content = "") => {
    const made = svg.appendChild(document.createElementNS(SVG, tag));
    for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
    made.textContent = content;
  };
  svg.replaceChildren();
  svg.setAttribute("aria-label", text);
  add("path", { class: "axis", d: `M${left} 20V${bottom}H${left + width}` });
  for (let glimpses = 1; glimpses <= most; glimpses++) {
    add("text", { x: x(glimpses), y: bottom + 16, "text-anchor": "middle" }, glimpses);
  }
  for (const share of [0, 0.5, 1]) {
    const error = share * top;
    add("text", { x: left - 6, y: y(error) + 4, "text-anchor": "end" }, error.toFixed(1));
  }
  add("text", { x: left + width, y: bottom + 34, "text-anchor": "end" }, "mean glimpses");
  add("text", { x: left, y: 12 }, "test error, %");
  const path = rows.map((row) => `${x(row.mean_glimpses)} ${y(row.test_error)}`).join("L");
  add("path", { class: "learned", d: `M${path}` });
  for (const row of fixed) {
    if (row.test_error > top) continue;
    add("circle", { class: "fixed", cx: x(row.mean_glimpses), cy: y(row.test_error), r: 4 });
  }
  add("circle", { class: "chosen", cx: x(chosen.mean_glimpses), cy: y(chosen.test_error), r: 7 });
  const legend = bottom + 34;
  add("path", { class: "learned", d: `M${left} ${legend - 4}h20` });
  add("text", { x: left + 26, y: legend }, "stops by itself");
  add("circle", { class: "fixed", cx: left + 136, cy: legend - 4, r: 4 });
  add("text", { x: left + 146, y: legend }, "a fixed number");
}
