// The page: what is shown, and what clicks and keys do.

import { argmax, clipped, crops, glimpsesTaken } from "./agent.js";
import { centred } from "./drawing.js";
import { drawCurve, paintBoxes, paintImage, paintSeen } from "./pictures.js";
import { Task } from "./task.js";

const find = (selector) => document.querySelector(selector);
const canvas = find("#image");
canvas.getContext("2d", { willReadFrequently: true }); // by drawing.js
const percent = (share, digits = 0) => `${(100 * share).toFixed(digits)} %`;
// Milliseconds between two glimpses.
const PAUSE = matchMedia("(prefers-reduced-motion: reduce)").matches ? 0 : 700;
const MOVES = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };
const CANVAS = {
  watch: "The image and the agent's glimpses",
  draw: "A field to draw a digit on",
  beat: "What you have seen of the image",
};
const HELP = {
  watch: "Grey: never seen. Lighter grey: seen only coarsely. The boxes are the glimpses, in order.",
  draw: "Draw with the mouse or a finger; or with the arrow keys, Space lowers and lifts the pen.",
  beat: "Click where to look, or move by the arrow keys and press Enter. Then answer: a button, or a"
    + " digit's key. A right answer pays less with every glimpse.",
};

const page = {
  task: null,
  wanted: "", // name of the task that was chosen last
  mode: "watch",
  index: 0, // of the test image
  image: null,
  steps: [], // of the agent, to the end of its budget
  shown: 0, // glimpses shown
  threshold: 0, // index in task.curve
  cursor: [0, 0], // moved by the arrow keys, in [-1, 1]
  pen: false,
  own: [], // locations of the player's glimpses
  answered: null,
  games: [], // of this task: {mine: [right, glimpses], agent: [right, glimpses]}
  run: 0, // number of the last run; an older one that ends later is dropped
};

const taken = () => glimpsesTaken(page.steps, page.task.curve[page.threshold].threshold);

// -- what happens ------------------------------------------------------------------------------

async function chooseTask(name) {
  say("Loading the agent …");
  page.wanted = name;
  enable(false);
  const task = await Task.load(name);
  if (page.wanted !== name) return;
  enable(true);
  Object.assign(page, { task, index: 0, games: [] });
  page.threshold = task.curve.findIndex((row) => row.threshold === task.threshold);
  find("#threshold").max = task.curve.length - 1;
  find('input[value="draw"]').disabled = !task.draws;
  if (page.mode === "draw" && !task.draws) {
    find('input[value="watch"]').checked = true;
    page.mode = "watch";
  }
  makeAnswers();
  await begin();
}

/** Enables all controls but the choice of the task, which loads one. */
function enable(on) {
  for (const control of document.querySelectorAll("button, input:not([name=task])")) {
    control.disabled = !on;
  }
}

/** Begins with image `page.index`, or with an empty one to draw on. */
async function begin() {
  Object.assign(page, { image: null, steps: [], shown: 0, own: [], answered: null });
  Object.assign(page, { cursor: [0, 0], pen: false });
  page.run += 1;
  if (page.mode === "draw") {
    strokes.lines = [];
    show();
    return;
  }
  page.image = page.task.image(page.index);
  if (page.mode === "beat") page.own.push([0, 0]);
  await look(page.mode === "watch");
}

/** Lets the agent look at `page.image`, glimpse by glimpse if `slowly`. */
async function look(slowly) {
  const run = ++page.run;
  const steps = await page.task.agent.run(page.image);
  if (run !== page.run) return;
  page.steps = steps;
  page.shown = slowly && PAUSE ? 1 : taken();
  show();
  while (slowly && page.shown < taken()) {
    await new Promise((resolve) => setTimeout(resolve, PAUSE));
    if (run !== page.run) return;
    page.shown += 1;
    show();
  }
}

function chooseImage(index) {
  page.index = (index + page.task.count) % page.task.count;
  attempt(begin());
}

function lookAt(x, y) {
  const left = page.task.about.max_glimpses - page.own.length;
  if (page.answered !== null || left < 1) return;
  page.own.push([clipped(x), clipped(y)]);
  show();
}

function answer(label) {
  if (page.answered !== null || !page.steps.length) return;
  page.answered = label;
  const truth = page.task.labels[page.index];
  const steps = taken();
  const said = argmax(page.steps[steps - 1].probs);
  page.games.push({ mine: [label === truth, page.own.length], agent: [said === truth, steps] });
  show();
}

// -- what is shown -----------------------------------------------------------------------------

const say = (text) => {
  find("#status").textContent = text;
};

function show() {
  const { mode, task } = page;
  document.body.dataset.mode = mode;
  find("#help").textContent = HELP[mode];
  showImage();
  showBelief();
  showTime();
  showScore();
  showCurve();
  say(status());
  canvas.setAttribute("aria-label", `${CANVAS[mode]}. ${status()}`);
}

function status() {
  const { mode, task, image, steps, shown, own, answered } = page;
  if (mode === "draw" && !image) return "Draw a digit.";
  const name = (label) => task.about.class_names[label];
  if (mode === "beat" && answered === null) {
    const budget = task.about.max_glimpses;
    const end = own.length === budget ? ": the last one, answer now" : "";
    return `Image ${page.index + 1}: glimpse ${own.length} of ${budget}${end}.`;
  }
  if (!steps.length) return "";
  const number = mode === "beat" ? taken() : shown;
  const best = argmax(steps[number - 1].probs);
  const right = mode === "draw" ? "" : best === task.labels[page.index] ? ", and it is right"
    : `, and it is wrong: ${name(task.labels[page.index])}`;
  const glimpses = `${number} ${number === 1 ? "glimpse" : "glimpses"}`;
  if (mode === "beat") {
    const mine = answered === task.labels[page.index] ? "Right" : "Wrong";
    return `${mine}, after ${own.length}: it is ${name(task.labels[page.index])}. The agent says `
      + `${name(best)} after ${glimpses}.`;
  }
  const which = mode === "draw" ? "Your digit" : `Image ${page.index + 1}`;
  if (number < taken()) return `${which}: ${glimpses}; it looks on.`;
  return `${which}: ${name(best)} after ${glimpses}${right}.`;
}

function showImage() {
  const context = canvas.getContext("2d");
  const { mode, task, image, steps } = page;
  if (mode === "draw" && (!image || strokes.edited)) {
    strokes.paint(context);
    paintCursor(context);
    return;
  }
  const over = mode === "beat" && page.answered !== null;
  const locations = mode === "beat" ? page.own : steps.slice(0, page.shown).map((s) => s.location);
  const sensor = task.about.sensor;
  const parts = locations.map((location, time) => (
    time === 0 && image.thumbnail ? whole(image, task.about.first_size)
      : crops(image, location, sensor)));
  if (mode === "beat" && !over) paintSeen(context, image, parts);
  else paintImage(context, image, parts);
  if (over) {
    const agent = steps.slice(image.thumbnail ? 1 : 0, taken());
    paintBoxes(context, image, agent.map((s) => crops(image, s.location, sensor)), { dashed: true });
  }
  paintBoxes(context, image, parts, {});
  if (mode === "beat" && !over) paintCursor(context);
}

/** The first look, as the crop that it is: the whole image, shrunk. */
const whole = (image, size) => [
  { left: 0, top: 0, side: image.width, size, pixels: image.thumbnail, whole: true }];

function paintCursor(context) {
  if (document.activeElement !== canvas) return;
  const [x, y] = page.cursor.map((c) => (c + 1) / 2 * canvas.width);
  context.strokeStyle = page.pen ? "#e6194b" : "#888";
  context.lineWidth = 3;
  context.beginPath();
  for (const [a, b] of [[12, 0], [0, 12]]) {
    context.moveTo(x - a, y - b);
    context.lineTo(x + a, y + b);
  }
  context.stroke();
}

function showBelief() {
  const { mode, task, steps } = page;
  const hidden = mode === "beat" && page.answered === null;
  const number = mode === "beat" ? taken() : page.shown;
  const step = hidden || !number ? null : steps[number - 1];
  find("#beliefs-title").textContent = hidden ? "Your answer" : "What it thinks";
  find("#answers").hidden = !hidden;
  find("#beliefs").hidden = hidden;
  find("#stop").hidden = hidden;
  if (hidden) return;
  const names = task.about.class_names;
  const probs = step ? step.probs : names.map(() => 0);
  let order = [...names.keys()];
  if (names.length > 10) order = order.sort((a, b) => probs[b] - probs[a]).slice(0, 8);
  const best = argmax(probs);
  find("#beliefs").replaceChildren(...order.map((label) => {
    const row = document.createElement("li");
    row.className = step && label === best ? "best" : "";
    const [name, meter, output] = ["span", "meter", "output"].map((tag) => (
      row.appendChild(document.createElement(tag))));
    name.textContent = names[label];
    meter.value = probs[label];
    meter.setAttribute("aria-label", names[label]);
    output.textContent = step ? percent(probs[label]) : "";
    return row;
  }));
  const threshold = task.curve[page.threshold].threshold;
  find("#stop meter").value = step ? step.stop : 0;
  find("#stop meter").setAttribute("aria-label", "probability of stopping");
  const last = number === task.about.max_glimpses ? "budget used"
    : step && step.stop > threshold ? "enough" : "look on";
  find("#stop output").textContent = step ? `${percent(step.stop)}: ${last}` : "";
}

function showTime() {
  const number = page.steps.length && page.mode !== "beat" ? taken() : 0;
  find("#time").hidden = number < 2;
  find("#time span").textContent = `glimpse ${page.shown} of ${number}`;
  find("#time input").max = number;
  find("#time input").value = page.shown;
  find("#choice").hidden = false;
  for (const name of ["previous", "next", "random"]) find(`#${name}`).hidden = page.mode === "draw";
  find("#clear").hidden = page.mode !== "draw";
}

function makeAnswers() {
  const { task } = page;
  find("#answers").replaceChildren(...task.about.class_names.map((name, label) => {
    const button = document.createElement("button");
    button.addEventListener("click", () => answer(label));
    if (task.examples) {
      const picture = button.appendChild(document.createElement("canvas"));
      const image = task.image(task.count + label);
      [picture.width, picture.height] = [image.width, image.height];
      paintImage(picture.getContext("2d"), image, null);
    }
    button.append(name);
    return button;
  }));
}

function showScore() {
  const { games } = page;
  const sum = (whose) => {
    const mean = (f) => games.reduce((total, game) => total + f(game[whose]), 0) / games.length;
    return `mean return ${mean(([right, t]) => (right ? page.task.discount ** t : 0)).toFixed(3)}, `
      + `${percent(mean(([right]) => !right))} wrong, ${mean(([, t]) => t).toFixed(2)} glimpses`;
  };
  const shown = page.mode === "beat" && games.length > 0;
  find("#score").textContent = shown
    ? `Games: ${games.length}. You: ${sum("mine")}. The agent: ${sum("agent")}.` : "";
}

function showCurve() {
  const { task } = page;
  const row = task.curve[page.threshold];
  find("#threshold").value = page.threshold;
  const p = row.threshold > 0.999 ? `1 - ${(1 - row.threshold).toExponential(1)}`
    : row.threshold.toFixed(3);
  const images = task.images.toLocaleString("en");
  const chosen = row.threshold === task.threshold ? ", the agent's own" : "";
  const text = `Stops if p > ${p}${chosen}: ${row.test_error.toFixed(2)} % error with `
    + `${row.mean_glimpses.toFixed(2)} glimpses on average, ${images} test images.`;
  find("#chosen").textContent = text;
  drawCurve(find("#curve"), task.curve, task.fixed, row, text);
}

// -- drawing -----------------------------------------------------------------------------------

const strokes = {
  lines: [], // each a list of [x, y] in pixels of the canvas
  edited: false, // whether they are shown, not what the agent saw of them

  paint(context) {
    context.fillStyle = "black";
    context.fillRect(0, 0, canvas.width, canvas.height);
    Object.assign(context, { strokeStyle: "white", lineCap: "round", lineJoin: "round" });
    context.lineWidth = canvas.width / 13;
    for (const line of this.lines) {
      context.beginPath();
      context.moveTo(...line[0]);
      for (const point of line) context.lineTo(...point);
      context.stroke();
    }
  },

  /** Gives what is drawn to the agent. */
  async end() {
    if (!this.lines.length) return;
    const context = canvas.getContext("2d");
    this.paint(context);
    page.image = centred(canvas, page.task.image_shape);
    const run = ++page.run;
    await new Promise((resolve) => setTimeout(resolve, PAUSE)); // for another stroke
    if (run !== page.run || !page.image) return;
    this.edited = false;
    await look(true);
  },
};

function place(event) {
  const box = canvas.getBoundingClientRect();
  return [(event.clientX - box.left) / box.width, (event.clientY - box.top) / box.height];
}

function startLine(point) {
  page.run += 1; // what the agent does with the drawing so far is dropped
  page.image = null;
  page.steps = [];
  page.shown = 0;
  strokes.edited = true;
  strokes.lines.push([point]);
}

// -- events ------------------------------------------------------------------------------------

canvas.addEventListener("pointerdown", (event) => {
  if (!page.task || !event.isPrimary || event.button) return;
  const [x, y] = place(event);
  if (page.mode === "beat") lookAt(2 * x - 1, 2 * y - 1);
  if (page.mode !== "draw") return;
  canvas.setPointerCapture(event.pointerId);
  startLine([x * canvas.width, y * canvas.height]);
  show();
});
canvas.addEventListener("pointermove", (event) => {
  if (page.mode !== "draw" || !canvas.hasPointerCapture(event.pointerId)) return;
  const [x, y] = place(event);
  strokes.lines.at(-1)?.push([x * canvas.width, y * canvas.height]);
  showImage();
});
for (const end of ["pointerup", "pointercancel"]) {
  canvas.addEventListener(end, (event) => {
    if (page.mode === "draw" && event.isPrimary) attempt(strokes.end());
  });
}
canvas.addEventListener("focus", () => page.task && showImage());
canvas.addEventListener("blur", () => page.task && showImage());
canvas.addEventListener("keydown", (event) => {
  const { mode } = page;
  if (!page.task || mode === "watch") return;
  const move = MOVES[event.key];
  if (move) {
    const step = mode === "draw" ? 0.05 : 0.1;
    strokes.edited = true; // the cursor is shown on them
    page.cursor = page.cursor.map((c, i) => clipped(c + step * move[i]));
    if (page.pen) strokes.lines.at(-1)?.push(page.cursor.map((c) => (c + 1) / 2 * canvas.width));
    showImage();
  } else if (event.key === "Enter" && mode === "beat") lookAt(...page.cursor);
  else if (event.key === " " && mode === "draw") {
    page.pen = !page.pen;
    if (page.pen) startLine(page.cursor.map((c) => (c + 1) / 2 * canvas.width));
    else attempt(strokes.end());
    show();
  } else return;
  event.preventDefault();
});
document.addEventListener("keydown", (event) => {
  const digit = page.mode === "beat" && /^\d$/.test(event.key) && !event.ctrlKey && !event.metaKey;
  if (digit && page.task?.about.class_names.includes(event.key)) answer(Number(event.key));
});
for (const [name, change] of [["previous", -1], ["next", 1]]) {
  find(`#${name}`).addEventListener("click", () => chooseImage(page.index + change));
}
find("#random").addEventListener("click", () => (
  chooseImage(page.index + 1 + Math.floor(Math.random() * (page.task.count - 1)))));
find("#clear").addEventListener("click", () => attempt(begin()));
find("#modes").addEventListener("change", (event) => {
  page.mode = event.target.value;
  if (page.task) attempt(begin());
});
find("#tasks").addEventListener("change", (event) => attempt(chooseTask(event.target.value), event.target.value));
find("#time input").addEventListener("input", (event) => {
  page.run += 1; // ends the slow show, which has all steps
  page.shown = Number(event.target.value);
  show();
});
find("#threshold").addEventListener("input", (event) => {
  page.threshold = Number(event.target.value);
  if (page.steps.length) {
    page.run += 1;
    page.shown = taken();
  }
  show();
});

/** Says what went wrong, unless another task was chosen since. */
function attempt(promise, task = page.wanted) {
  promise.catch((error) => {
    if (task === page.wanted) say(`This did not work: ${error.message}`);
  });
}

async function start() {
  const tasks = await (await fetch("models/tasks.json")).json();
  find("#tasks").append(...Object.entries(tasks).map(([name, title], i) => {
    const label = document.createElement("label");
    const input = document.createElement("input");
    Object.assign(input, { type: "radio", name: "task", value: name, checked: i === 0 });
    label.append(input, ` ${title}`);
    return label;
  }));
  const [first] = Object.keys(tasks);
  attempt(chooseTask(first), first);
}

attempt(start());
