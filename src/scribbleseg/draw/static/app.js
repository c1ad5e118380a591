// The page: which case and slice are shown, what pointer and keys do, and what is in the panels.

import * as api from "./api.js";
import { NOT_DRAWN, alongLine, difference, inside } from "./pixels.js";
import { Saver } from "./saver.js";
import { View } from "./view.js";

const $ = (id) => document.getElementById(id);
const MOST_PLANES = 60; // kept in memory per kind
const MOST_UNDO = 300;
const RING = "Ring: draw around everything that you want to segment. The line closes by itself. It says that what lies " +
  "outside is background. Draw one on every slice that you draw on.";
const CT_PRESETS = { "Soft tissue": [-160, 240], Liver: [-45, 105], Lung: [-1350, 150], Bone: [-450, 1050], Brain: [0, 80] };

const state = {
  session: null, case: null, slice: 0, cross: [0, 0, 0], // cross: array indices D, H, W
  tool: "brush", value: 1, size: 3, fill: false, overwrite: false, channel: 0, windows: [],
  show: { strokes: true, prediction: true, uncertainty: false }, opacity: 0.3, update: { phase: "idle" },
};
const view = new View($("canvas"));
const sides = [new View($("side1")), new View($("side2"))];
let kept = { image: new Map(), strokes: new Map(), prediction: new Map(), uncertainty: new Map() }; // planes of the case
let undone = [], done = []; // changes: {case, slice, at, before, after}, or {case, accepted: true}
let stroke = null; // what is being drawn
let opening = 0; // how many cases were opened
const pointers = new Map();
let pinch = null, drag = null, penSeen = false;
const ctWindows = []; // grey window per channel, kept from case to case: Hounsfield units mean the same in all
let channelChosen = null; // until then the first one is shown, or the colours of a picture
let sizeChosen = false; // until then the brush is so wide that no stroke is lost when slices are made smaller

const saver = new Saver({
  onSaved: (name, answer) => {
    if (name === state.case?.id) state.case.drawn = answer.drawn;
    const row = state.session.cases.find((each) => each.id === name);
    row.voxels = answer.drawn[0].map((_, value) => answer.drawn.reduce((sum, slice) => sum + slice[value], 0));
    row.slices = answer.drawn.flatMap((slice, index) => (slice.some(Boolean) ? [index] : []));
    showCases();
    showClasses();
    showStrip();
    showUpdate();
    showSides();
  },
  onConflict: settleConflict,
  onState: (text, kind) => { $("saved").textContent = text; $("saved").className = kind; },
});

// --- small things

function element(tag, properties = {}, ...children) {
  const made = Object.assign(document.createElement(tag), properties);
  made.append(...children);
  return made;
}

function say(text, seconds = 6) {
  const line = element("p", { textContent: text });
  $("toasts").append(line);
  setTimeout(() => line.remove(), seconds * 1000);
}

// Runs what a button or key started; its error becomes a message.
const attempt = (action) => async (...given) => {
  try { return await action(...given); } catch (error) { say(error.message, 12); }
};

function ask(title, text, answers) {
  const dialog = $("ask");
  dialog.querySelector("h2").textContent = title;
  dialog.querySelector("p").textContent = text;
  dialog.querySelector(".buttons").replaceChildren(
    ...answers.map((answer, index) => element("button", { value: answer, textContent: answer, className: index ? "" : "primary" })));
  dialog.returnValue = "";
  dialog.showModal();
  return new Promise((resolve) => dialog.addEventListener("close", () => resolve(dialog.returnValue), { once: true }));
}

const colours = () => state.session.classes.map((row) => row.colour);

// --- planes

async function plane(kind, axis, index) {
  const store = kept[kind], key = `${axis} ${index} ${kind === "image" ? state.channel : ""}`;
  if (!store.has(key)) {
    const loading = api.getPlane(state.case.id, kind, axis, index, state.channel);
    store.set(key, loading);
    loading.then((loaded) => store.get(key) === loading && store.set(key, loaded), () => store.delete(key));
    if (store.size > MOST_PLANES) store.delete([...store.keys()].find((each) => each !== key && !inUse(kind, each)));
    return loading;
  }
  const found = store.get(key);
  store.delete(key);
  store.set(key, found); // the oldest is the one that was asked for longest ago
  return found;
}

function inUse(kind, key) {
  const [axis, index] = key.split(" ").map(Number);
  return kind === "strokes" && axis === 0 && (index === state.slice || saver.waiting.get(state.case.id)?.has(index));
}

// The strokes of a slice if they are loaded: drawing starts only then.
const strokesHere = () => {
  const found = kept.strokes.get(`0 ${state.slice} `);
  return found?.data ? found : null;
};

const kinds = () => {
  const predicted = state.case.prediction !== null;
  return ["image", "strokes", ...(predicted ? ["prediction"] : []), ...(predicted && state.show.uncertainty ? ["uncertainty"] : [])];
};

async function planesOf(axis, index) {
  const loaded = await Promise.all(kinds().map((kind) => plane(kind, axis, index)));
  return Object.fromEntries(kinds().map((kind, place) => [kind, loaded[place]]));
}

async function showSlice() {
  const { case: shown, slice } = state;
  $("slice").value = slice;
  showStrip();
  placeCross();
  const planes = await planesOf(0, slice);
  if (shown !== state.case || slice !== state.slice) return;
  view.set(planes, shown.planes[0].spacing_mm);
  showWhere();
  for (const next of [slice + 1, slice - 1, slice + 2, slice - 2]) {
    if (next >= 0 && next < shown.shape[0]) planesOf(0, next).catch(() => {});
  }
}

let sidesWait = null;
function showSides() {
  clearTimeout(sidesWait);
  sidesWait = setTimeout(attempt(async () => {
    const shown = state.case;
    for (const axis of [1, 2]) {
      for (const key of kept.strokes.keys()) if (key.startsWith(`${axis} `)) kept.strokes.delete(key);
      const planes = await planesOf(axis, state.cross[axis]);
      if (shown !== state.case) return;
      sides[axis - 1].set(planes, shown.planes[axis].spacing_mm);
    }
    placeCross();
  }), 150);
}

// The array indices [D, H, W] of a pixel of a plane, and back.
function arrayAt(axis, column, row) {
  const { planes, shape } = state.case, { rows, columns, flip_rows, flip_columns } = planes[axis];
  const found = [...state.cross];
  found[rows] = flip_rows ? shape[rows] - 1 - row : row;
  found[columns] = flip_columns ? shape[columns] - 1 - column : column;
  return found;
}

function pixelAt(axis, indices) {
  const { planes, shape } = state.case, { rows, columns, flip_rows, flip_columns } = planes[axis];
  return [flip_columns ? shape[columns] - 1 - indices[columns] : indices[columns],
    flip_rows ? shape[rows] - 1 - indices[rows] : indices[rows]];
}

function placeCross() {
  state.cross[0] = state.slice;
  sides.forEach((side, index) => { side.cross = pixelAt(index + 1, state.cross); side.redraw(); });
}

// --- cases and slices

const openCase = attempt(async (name, slice = null) => {
  if (stroke) return;
  const turn = ++opening;
  const opened = await api.getCase(name).catch((error) => {
    state.session.cases.find((row) => row.id === name).error = error.message;
    showCases();
    throw error;
  });
  if (turn !== opening) return; // another case was chosen meanwhile
  state.case = opened;
  if (!saver.waiting.has(name)) saver.versions.set(name, opened.version);
  kept = { image: new Map(), strokes: new Map(), prediction: new Map(), uncertainty: new Map() };
  for (const [index, { data }] of saver.waiting.get(name) ?? []) {
    const { rows, columns } = sizeOfSlice();
    kept.strokes.set(`0 ${index} `, { data: data.slice(), rows, columns });
  }
  state.windows = opened.windows.map(({ low, high, ct }, channel) => (ct ? ctWindows[channel] : null) ?? { low, high });
  state.channel = Math.min(channelChosen ?? (opened.coloured ? opened.windows.length - 1 : 0), opened.windows.length - 1);
  const firstDrawn = opened.drawn.findIndex((counts) => counts.some(Boolean));
  state.slice = slice ?? (firstDrawn >= 0 ? firstDrawn : opened.shape[0] >> 1);
  state.cross = opened.shape.map((size) => size >> 1);
  $("slice").max = opened.shape[0] - 1;
  document.querySelectorAll(".edge").forEach((edge, index) => { edge.textContent = opened.planes[0].edges[index]; });
  view.fitted = true;
  sides.forEach((side) => { side.fitted = true; side.set({}, [1, 1]); });
  document.querySelector(".views").hidden = $("slices").hidden = opened.shape[0] < 2;
  if (!sizeChosen) setSize(Math.max(3, Math.ceil(Math.max(...Object.values(sizeOfSlice())) / 100)));
  showPresets();
  restyle();
  showCases();
  showClasses();
  showButtons();
  await showSlice();
  if (opened.shape[0] > 1) showSides();
});

function sizeOfSlice() {
  const { planes, shape } = state.case;
  return { rows: shape[planes[0].rows], columns: shape[planes[0].columns] };
}

const goTo = attempt(async (slice) => {
  if (stroke || !state.case) return;
  state.slice = Math.max(0, Math.min(state.case.shape[0] - 1, slice));
  await showSlice();
});

function nextCase(step) {
  const order = sorted(), at = order.findIndex((row) => row.id === state.case?.id);
  const next = order[at + step];
  if (next) return openCase(next.id);
}

// --- drawing

const radius = () => (state.size / 2) * Math.min(...state.case.planes[0].spacing_mm);

function beginStroke(place) {
  const strokes = strokesHere();
  if (!strokes) return;
  const value = state.tool === "erase" ? NOT_DRAWN : state.tool === "ring" ? 0 : state.value;
  stroke = { plane: strokes, slice: state.slice, before: strokes.data.slice(), value, points: [place] };
  extendStroke(place);
}

function put(pixel) {
  const { plane: { data }, before, value } = stroke, was = before[pixel];
  if (value === NOT_DRAWN || was === NOT_DRAWN || was === value || state.overwrite) data[pixel] = value;
}

function extendStroke(place) {
  const last = stroke.points.at(-1);
  alongLine(stroke.plane, last, place, radius(), state.case.planes[0].spacing_mm, put);
  stroke.points.push(place);
  view.changed("strokes");
}

function endStroke() {
  if (state.tool === "ring") extendStroke(stroke.points[0]);
  else if (state.fill) inside(stroke.plane, stroke.points, put);
  const { plane: { data }, before, slice } = stroke;
  stroke = null;
  view.changed("strokes");
  remember(slice, before, data);
}

function cancelStroke() {
  if (!stroke) return;
  stroke.plane.data.set(stroke.before);
  stroke = null;
  view.changed("strokes");
}

// A slice of the open case was changed from `before` to `after`: to the disk, and to the list for undo.
function remember(slice, before, after) {
  const change = difference(before, after);
  if (!change.at.length) return;
  done.push({ case: state.case.id, slice, ...change });
  if (done.length > MOST_UNDO) done.shift();
  undone = [];
  saver.change(state.case.id, slice, after, before);
  showButtons();
}

async function changeSlice(slice, change) {
  const strokes = await plane("strokes", 0, slice);
  const before = strokes.data.slice();
  change(strokes.data);
  if (slice === state.slice) view.changed("strokes");
  return { before, after: strokes.data };
}

const stepBack = (from, to, old, now, what) => attempt(async () => {
  const change = from().pop();
  if (!change || stroke) return;
  if (state.case.id !== change.case) await openCase(change.case, change.slice ?? null);
  if (change.accepted) {
    await changeWholeCase(what);
  } else {
    await goTo(change.slice);
    const { before, after } = await changeSlice(change.slice, (data) => {
      change.at.forEach((pixel, index) => { if (data[pixel] === change[now][index]) data[pixel] = change[old][index]; });
    });
    saver.change(change.case, change.slice, after, before);
  }
  to().push(change);
  showButtons();
});
const undo = stepBack(() => done, () => undone, "before", "after", "restore");
const redo = stepBack(() => undone, () => done, "after", "before", "accept");

async function changeWholeCase(what) {
  await saver.settled();
  const name = state.case.id;
  const answer = await api.changeCase(name, what, saver.versions.get(name));
  saver.versions.set(name, answer.version);
  state.session.cases.find((row) => row.id === name).reviewed ||= what === "accept";
  kept.strokes = new Map();
  saver.onSaved(name, answer);
  showButtons();
  await showSlice();
}

const acceptCase = attempt(async () => {
  if (!state.case || state.case.prediction === null) return say("This case is not predicted yet.");
  const answer = await ask("Accept the whole case?",
    "Every voxel without a stroke becomes labelled as predicted, and the next update learns from it. Undo takes it back.",
    ["Accept", "Cancel"]);
  if (answer !== "Accept") return;
  await changeWholeCase("accept");
  done.push({ case: state.case.id, accepted: true });
  undone = [];
  showButtons();
});

const acceptSlice = attempt(async () => {
  if (!state.case || state.case.prediction === null) return say("This case is not predicted yet.");
  const slice = state.slice, predicted = await plane("prediction", 0, slice);
  const { before, after } = await changeSlice(slice, (data) => {
    data.forEach((value, pixel) => { if (value === NOT_DRAWN) data[pixel] = predicted.data[pixel]; });
  });
  remember(slice, before, after);
});

const copyStrokes = attempt(async () => {
  const slice = state.slice;
  const drawn = state.case.drawn.flatMap((counts, index) => (index !== slice && counts.some(Boolean) ? [index] : []));
  if (!drawn.length) return say("No other slice of this case has strokes.");
  const nearest = drawn.reduce((one, other) => (Math.abs(other - slice) < Math.abs(one - slice) ? other : one));
  const from = (await plane("strokes", 0, nearest)).data;
  const { before, after } = await changeSlice(slice, (data) => {
    data.forEach((value, pixel) => { if (value === NOT_DRAWN || state.overwrite) data[pixel] = from[pixel] === NOT_DRAWN ? value : from[pixel]; });
  });
  remember(slice, before, after);
  say(`Copied from slice ${nearest + 1}. Move or erase what does not fit here.`);
});

// Asks again if the server does not answer: the strokes are kept until then.
function settleConflict(name, slices) {
  resolveConflict(name, slices).catch((error) => {
    say(error.message);
    setTimeout(settleConflict, 2000, name, slices);
  });
}

async function resolveConflict(name, slices) {
  $("saved").textContent = "Not saved: changed elsewhere";
  $("saved").className = "bad";
  const drop = "Show theirs";
  const answer = await ask("These strokes were changed elsewhere",
    `Another tab, person or program has written the strokes of ${name}. Your last strokes are not saved yet. ` +
    "They can be added where the others drew nothing.", ["Show theirs and add mine", drop]);
  if (stroke) endStroke();
  const { version } = await api.getCase(name);
  const mine = [...slices].map(([slice, { data, base }]) => ({ slice, ...difference(base, data) }));
  if (name === state.case?.id) kept.strokes = new Map(); // nothing can be drawn on the old ones any more
  saver.resolve(name, version);
  done = done.filter((change) => change.case !== name);
  undone = undone.filter((change) => change.case !== name);
  await openCase(name, state.case?.id === name ? state.slice : null);
  for (const { slice, at, before, after } of answer === drop ? [] : mine) {
    const change = await changeSlice(slice, (data) => {
      at.forEach((pixel, index) => { if (data[pixel] === before[index]) data[pixel] = after[index]; });
    });
    remember(slice, change.before, change.after);
  }
  saver.report();
}

// --- pointer

const onCanvas = (event) => {
  const box = view.canvas.getBoundingClientRect();
  return [event.clientX - box.left, event.clientY - box.top];
};

view.canvas.addEventListener("pointerdown", (event) => {
  if (!state.case) return;
  event.preventDefault();
  view.canvas.setPointerCapture(event.pointerId);
  pointers.set(event.pointerId, onCanvas(event));
  penSeen ||= event.pointerType === "pen";
  if (pointers.size === 2) {
    cancelStroke();
    drag = null;
    pinch = spread();
    return;
  }
  const finger = event.pointerType === "touch" && penSeen; // a hand that rests beside the pen
  const button = event.button;
  if (button === 1 || finger || state.tool === "pan" || held.has(" ")) drag = "pan";
  else if (button === 2 || state.tool === "window") drag = "window";
  else if (button === 0) beginStroke(view.at(...onCanvas(event)));
});

view.canvas.addEventListener("pointermove", (event) => {
  const [x, y] = onCanvas(event), last = pointers.get(event.pointerId);
  view.cursor = event.pointerType !== "touch" && ["brush", "erase", "ring"].includes(state.tool) && state.case
    ? { x, y, radius: radius() * view.scale } : null;
  view.redraw();
  showWhere(view.at(x, y));
  if (!last) return;
  pointers.set(event.pointerId, [x, y]);
  if (pinch && pointers.size === 2) {
    const now = spread();
    view.move(now.x - pinch.x, now.y - pinch.y);
    view.zoom(now.apart / pinch.apart, now.x, now.y);
    pinch = now;
  } else if (stroke) {
    const all = event.getCoalescedEvents?.() ?? [];
    for (const each of all.length ? all : [event]) extendStroke(view.at(...onCanvas(each)));
  } else if (drag === "pan") {
    view.move(x - last[0], y - last[1]);
  } else if (drag === "window") {
    dragWindow(x - last[0], y - last[1]);
  }
});

function pointerEnds(event) {
  if (!pointers.delete(event.pointerId)) return;
  pinch = null;
  drag = null;
  if (stroke) {
    if (event.type === "pointerup") endStroke();
    else cancelStroke();
  }
  if (event.type === "pointerup" && state.case) {
    const [column, row] = view.at(...onCanvas(event)).map(Math.floor), { rows, columns } = sizeOfSlice();
    if (column >= 0 && row >= 0 && column < columns && row < rows) {
      state.cross = arrayAt(0, column, row);
      if (state.case.shape[0] > 1) showSides();
    }
  }
}
view.canvas.addEventListener("pointerup", pointerEnds);
view.canvas.addEventListener("pointercancel", pointerEnds);
view.canvas.addEventListener("pointerleave", () => { view.cursor = null; view.redraw(); showWhere(); });
view.canvas.addEventListener("contextmenu", (event) => event.preventDefault());

function spread() {
  const [[x, y], [x2, y2]] = [...pointers.values()];
  return { x: (x + x2) / 2, y: (y + y2) / 2, apart: Math.max(1, Math.hypot(x2 - x, y2 - y)) };
}

let turned = 0;
view.canvas.addEventListener("wheel", (event) => {
  event.preventDefault();
  if (event.ctrlKey || event.metaKey) {
    view.zoom(Math.exp(-event.deltaY / 300), ...onCanvas(event));
    return;
  }
  turned += event.deltaMode === 0 ? event.deltaY / 60 : event.deltaY;
  const steps = Math.trunc(turned);
  turned -= steps;
  if (steps) goTo(state.slice + Math.sign(steps) * Math.min(3, Math.abs(steps)));
}, { passive: false });

sides.forEach((side, index) => {
  const jump = (event) => {
    if (!state.case || !event.buttons) return;
    const box = side.canvas.getBoundingClientRect();
    const [column, row] = side.at(event.clientX - box.left, event.clientY - box.top).map(Math.floor);
    const image = side.planes.image;
    if (!image || column < 0 || row < 0 || column >= image.columns || row >= image.rows) return;
    state.cross = arrayAt(index + 1, column, row);
    goTo(state.cross[0]);
    showSides();
  };
  side.canvas.addEventListener("pointerdown", (event) => { side.canvas.setPointerCapture(event.pointerId); jump(event); });
  side.canvas.addEventListener("pointermove", jump);
});

function dragWindow(dx, dy) {
  const { least, most } = state.case.windows[state.channel], now = state.windows[state.channel];
  const step = (most - least) / 600;
  const width = Math.max(step / 4, now.high - now.low + dx * step), level = (now.high + now.low) / 2 + dy * step;
  setWindow(level - width / 2, level + width / 2);
}

function setWindow(low, high) {
  state.windows[state.channel] = { low, high };
  if (state.case.windows[state.channel].ct) ctWindows[state.channel] = { low, high };
  showPreset();
  restyle();
}

// --- what is shown beside the image

function showWhere(place = null) {
  const image = view.planes.image;
  if (!state.case || !image) return;
  const slice = `Slice ${state.slice + 1} of ${state.case.shape[0]}`;
  const grey = state.windows[state.channel], number = (value) => String(+value.toPrecision(4));
  const width = `W ${number(grey.high - grey.low)}  L ${number((grey.high + grey.low) / 2)}`;
  const [column, row] = (place ?? [-1, -1]).map(Math.floor);
  let here = "";
  if (column >= 0 && row >= 0 && column < image.columns && row < image.rows) {
    const pixel = row * image.columns + column, names = state.session.classes.map(({ name }) => name);
    const drawn = names[view.planes.strokes?.data[pixel]], predicted = names[view.planes.prediction?.data[pixel]];
    here = `   column ${column + 1}, row ${row + 1}: ${[...image.data.slice(image.numbers * pixel, image.numbers * (pixel + 1))].map(number).join(" ")}` +
      `${drawn ? `   drawn: ${drawn}` : ""}${predicted ? `   predicted: ${predicted}` : ""}`;
  }
  $("where").textContent = `${slice}   ${width}${here}`;
}

function showStrip() {
  const canvas = $("strip"), context = canvas.getContext("2d"), ratio = window.devicePixelRatio || 1;
  canvas.width = Math.max(1, canvas.clientWidth * ratio);
  canvas.height = Math.max(1, canvas.clientHeight * ratio);
  if (!state.case) return;
  const { drawn, uncertainty } = state.case, wide = canvas.width / drawn.length, high = canvas.height;
  const most = Math.max(...(uncertainty ?? [1]), 1e-9);
  drawn.forEach((counts, index) => {
    const gap = wide > 4 ? 1 : 0;
    context.fillStyle = "#262d36";
    context.fillRect(index * wide, 0, wide - gap, high);
    if (uncertainty) {
      const tall = (uncertainty[index] / most) * high;
      context.fillStyle = "#f0a742";
      context.fillRect(index * wide, high - tall, wide - gap, tall);
    }
    if (counts.some(Boolean)) {
      context.fillStyle = "#4aa3ff";
      context.fillRect(index * wide, 0, wide - gap, high * 0.35);
    }
    if (index === state.slice) {
      context.strokeStyle = "#fff";
      context.lineWidth = 2;
      context.strokeRect(index * wide + 1, 1, Math.max(1, wide - gap - 2), high - 2);
    }
  });
}
$("strip").addEventListener("pointerdown", (event) => {
  const box = $("strip").getBoundingClientRect();
  if (state.case) goTo(Math.floor(((event.clientX - box.left) / box.width) * state.case.shape[0]));
});

function sorted() {
  const rows = [...state.session.cases].sort((one, other) => one.id.localeCompare(other.id, undefined, { numeric: true }));
  if ($("sort").value === "uncertain") rows.sort((one, other) => (other.uncertainty ?? -1) - (one.uncertainty ?? -1));
  return rows;
}

function showCases() {
  const { cases, classes } = state.session;
  const most = Math.max(...cases.map((row) => row.uncertainty ?? 0), 1e-9);
  $("cases").replaceChildren(...sorted().map((row) => {
    const about = element("span", { className: "about" });
    if (row.error) about.append(element("span", { className: "error", textContent: row.error }));
    else {
      row.voxels.forEach((count, value) => { if (count) about.append(dot(classes[value].colour, classes[value].name)); });
      const slices = row.slices.length;
      about.append(slices ? `${slices} slice${slices > 1 ? "s" : ""}` : "nothing drawn");
      if (row.uncertainty !== null) {
        about.append(element("progress", { className: "unsure", max: most, value: row.uncertainty, title: "how unsure the model is" }));
      }
    }
    const button = element("button", { title: row.id },
      element("span", { className: "id", textContent: row.id }),
      element("span", { className: "tick", textContent: row.reviewed ? "✓" : "", title: "reviewed" }), about);
    button.setAttribute("aria-current", row.id === state.case?.id);
    button.addEventListener("click", () => openCase(row.id));
    return element("li", {}, button);
  }));
  const drawn = cases.filter((row) => row.slices.length).length, reviewed = cases.filter((row) => row.reviewed).length;
  $("progress-text").textContent = `${cases.length} case${cases.length > 1 ? "s" : ""}: ${drawn} drawn on, ${reviewed} reviewed`;
}

function dot(colour, title) {
  const made = element("span", { className: "dot", title });
  made.style.background = colour;
  return made;
}

function showClasses() {
  const { classes } = state.session;
  $("classes").replaceChildren(...classes.map(({ name, colour }, value) => {
    const button = element("button", { title: `Draw ${name} (${value})` }, dot(colour, ""),
      element("span", { className: "label", textContent: name }), element("kbd", { textContent: value < 10 ? value : "" }));
    button.setAttribute("aria-pressed", value === state.value);
    button.addEventListener("click", () => chooseClass(value));
    const picker = element("input", { type: "color", value: colour, title: `Colour of ${name}`, hidden: value === 0 });
    picker.addEventListener("change", attempt(async () => {
      classes[value].colour = picker.value;
      await api.nameClasses(classes.slice(1));
      showClasses();
      showCases();
      restyle();
    }));
    return element("li", {}, button, picker);
  }));
}

function chooseClass(value) {
  if (value >= state.session.classes.length) return;
  state.value = value;
  if (state.tool !== "brush") chooseTool("brush");
  showClasses();
}

function chooseTool(tool) {
  state.tool = tool;
  view.canvas.dataset.tool = tool;
  for (const button of $("tools").children) {
    button.setAttribute("role", "radio");
    button.setAttribute("aria-checked", button.dataset.tool === tool);
  }
  $("hint").textContent = RING;
  $("hint").hidden = tool !== "ring";
}

// Name → [low, high] of the windows that the list offers for this channel.
function presets() {
  const { low, high, least, most, ct } = state.case.windows[state.channel];
  return ct ? { Automatic: [least, most], ...CT_PRESETS } : { Automatic: [low, high] };
}

function showPresets() {
  $("preset").replaceChildren(...[...Object.keys(presets()), "Own"].map((name) => element("option", { textContent: name })));
  $("preset").lastChild.hidden = true; // it only says that the window was dragged
  showPreset();
  const channels = [...state.session.channels, ...(state.case.coloured ? ["Colours"] : [])];
  $("channel").hidden = channels.length < 2;
  $("channel").replaceChildren(...channels.map((name, index) => element("option", { value: index, textContent: name })));
  $("channel").value = state.channel;
}

function showPreset() {
  const { low, high } = state.windows[state.channel];
  $("preset").value = Object.entries(presets()).find(([, [from, to]]) => from === low && to === high)?.[0] ?? "Own";
}

function restyle() {
  for (const each of [view, ...sides]) {
    each.look = { window: state.windows[state.channel] ?? { low: 0, high: 1 }, colours: colours(), opacity: state.opacity, show: state.show };
    each.restyle();
  }
  showWhere();
}

function showButtons() {
  const row = state.session.cases.find((each) => each.id === state.case?.id), predicted = state.case?.prediction != null;
  $("undo").disabled = !done.length;
  $("redo").disabled = !undone.length;
  for (const id of ["accept-slice", "accept-case", "show-uncertainty", "show-prediction"]) $(id).disabled = !predicted;
  $("next").disabled = !state.session.cases.some((each) => each.prediction !== null);
  $("export").disabled = !state.session.cases.some((each) => each.prediction !== null || each.slices.length);
  $("reviewed").setAttribute("aria-pressed", Boolean(row?.reviewed));
  for (const kind of ["strokes", "prediction", "uncertainty"]) $(`show-${kind}`).setAttribute("aria-pressed", state.show[kind]);
  $("fill").setAttribute("aria-pressed", state.fill);
  $("overwrite").setAttribute("aria-pressed", state.overwrite);
}

// --- the model

const running = () => ["starting", "training", "predicting"].includes(state.update.phase);

function duration(seconds) {
  const whole = Math.max(1, Math.round(seconds));
  return whole < 60 ? `${whole} s` : `${Math.floor(whole / 60)}:${String(whole % 60).padStart(2, "0")} min`;
}

function showUpdate() {
  const { phase, done: step, total, seconds_left: left, message } = state.update, { cases, classes } = state.session;
  const missing = classes.filter((_, value) => !cases.some((row) => row.voxels[value])).map(({ name }) => name);
  $("update").disabled = running() || missing.length > 0;
  $("stop").hidden = !running();
  $("bar").hidden = !running();
  if (phase === "starting") $("bar").removeAttribute("value");
  else $("bar").value = total ? step / total : 0;
  $("update-text").className = phase === "failed" ? "bad" : "";
  $("update-text").textContent = {
    starting: "Reading the scans…",
    training: `Training, ${Math.round((100 * step) / total)} %${left ? `, ${duration(left)} left` : ""}. You can go on drawing.`,
    predicting: `Predicting, ${step} of ${total} cases`,
  }[phase] ?? (missing.length ? `Draw first: ${missing.join(", ")}` : message || "Trains on your strokes and segments all cases.");
}

async function refreshPredictions() {
  const session = await api.getSession();
  if (!session.cases) return;
  state.session = session;
  showCases();
  showButtons();
  const row = session.cases.find((each) => each.id === state.case?.id);
  if (row && row.prediction !== state.case.prediction) {
    const fresh = await api.getCase(row.id);
    if (fresh.id !== state.case.id) return;
    Object.assign(state.case, { prediction: fresh.prediction, uncertainty: fresh.uncertainty });
    kept.prediction = new Map(); // the old overlay stays on the canvas until the new plane has come
    kept.uncertainty = new Map();
    showButtons();
    await showSlice();
    showSides();
  }
}

function listen() {
  const events = new EventSource("/api/events");
  events.onmessage = attempt(async (event) => {
    const before = state.update;
    state.update = JSON.parse(event.data);
    if (!state.session?.cases) return;
    showUpdate();
    const { phase, done: step } = state.update;
    if (phase === "predicting" && step && step !== before.done || (phase === "done" && before.phase !== "done")) await refreshPredictions();
    if (phase !== before.phase && ["done", "failed", "stopped"].includes(phase)) say(state.update.message, 10);
    showUpdate();
  });
}

const startUpdate = attempt(async () => {
  const before = state.update;
  state.update = { phase: "starting" };
  showUpdate();
  try {
    await saver.settled();
    state.update = await api.startUpdate(state.case.id);
  } catch (error) {
    state.update = before;
    throw error;
  } finally { showUpdate(); }
});

const goToNext = attempt(async () => {
  await saver.settled();
  const next = await api.getNext();
  if (!next) return say("Every predicted slice has strokes, or its case is reviewed.");
  if (next.case !== state.case?.id) await openCase(next.case, next.slice);
  else await goTo(next.slice);
  say(`${next.case}, slice ${next.slice + 1}: the model is least sure here.`);
});

const toggleReviewed = attempt(async () => {
  const row = state.session.cases.find((each) => each.id === state.case.id);
  await api.review(row.id, !row.reviewed);
  row.reviewed = !row.reviewed;
  showCases();
  showButtons();
});

// --- dialogs

// The dialog in which classes get names. With `classes` these are there already, and more are added.
function nameClasses(colours, classes = []) {
  const dialog = $("name-classes"), list = $("new-classes"), error = dialog.querySelector(".error");
  dialog.querySelector("h2").textContent = classes.length ? "Add a class" : "What do you want to segment?";
  dialog.querySelector("p").textContent = classes.length
    ? "Strokes stay as they are. The next update starts from the beginning, because the model does not know the class."
    : "One line for each structure. Background is a class too and is there already.";
  $("start").textContent = classes.length ? "Add" : "Start drawing";
  $("no-class").hidden = !classes.length;
  error.textContent = "";
  list.replaceChildren();
  const add = () => {
    const name = element("input", { type: "text", placeholder: "such as liver", maxLength: 60 });
    name.setAttribute("aria-label", "Name of the class");
    const place = classes.length + list.children.length;
    const picker = element("input", { type: "color", value: colours[1 + (place % (colours.length - 1))].toLowerCase() });
    const remove = element("button", { type: "button", textContent: "Remove" });
    const line = element("li", {}, picker, name, remove);
    remove.addEventListener("click", () => line.remove());
    list.append(line);
    name.focus();
  };
  $("add-class").onclick = add;
  dialog.oncancel = (event) => { if (!classes.length) event.preventDefault(); };
  return new Promise((resolve) => {
    dialog.onclose = () => resolve();
    dialog.querySelector("form").onsubmit = async (event) => {
      event.preventDefault();
      const rows = [...list.children].map((line) => ({ name: line.children[1].value.trim(), colour: line.children[0].value }));
      $("start").disabled = true;
      try {
        await saver.settled();
        await api.nameClasses([...classes, ...rows.filter(({ name }) => name)]);
        dialog.close();
      } catch (refused) { error.textContent = refused.message; }
      $("start").disabled = false;
    };
    dialog.showModal();
    add();
  });
}

const addClass = attempt(async () => {
  const { colours, classes } = state.session;
  await nameClasses(colours, classes.slice(1));
  state.session = await api.getSession();
  showClasses();
  showCases();
  showUpdate();
  restyle();
  if (state.case && state.session.classes.length > classes.length) await openCase(state.case.id, state.slice);
});

function openExport() {
  const dialog = $("export-to");
  $("folder").value ||= state.session.masks;
  dialog.querySelector(".error").textContent = "";
  dialog.showModal();
}

$("export-to").querySelector("form").addEventListener("submit", async (event) => {
  event.preventDefault();
  try {
    await saver.settled();
    const { cases, folder } = await api.exportMasks($("folder").value, $("only-reviewed").checked);
    $("export-to").close();
    say(`Wrote ${cases.length} mask${cases.length > 1 ? "s" : ""} to ${folder}.`, 10);
  } catch (refused) { $("export-to").querySelector(".error").textContent = refused.message; }
});

for (const button of document.querySelectorAll("dialog .cancel")) button.addEventListener("click", () => button.closest("dialog").close());

// --- keys

const toggle = (name) => () => { state[name] = !state[name]; showButtons(); };
const toggleShown = (kind) => () => {
  state.show[kind] = !state.show[kind];
  showButtons();
  restyle();
  if (state.case) attempt(showSlice)();
};
const resize = (step) => { sizeChosen = true; setSize(state.size + step); };

function setSize(size) {
  state.size = Math.max(1, Math.min(40, size));
  $("size").value = $("size-text").textContent = state.size;
  if (view.cursor && state.case) view.cursor.radius = radius() * view.scale;
  view.redraw();
}

// key → [what it does in words, function]; Shift is part of the name only where two keys differ by it alone
const KEYS = {
  "b": ["Brush", () => chooseTool("brush")],
  "e": ["Eraser: back to not drawn", () => chooseTool("erase")],
  "r": ["Ring: closed background stroke", () => chooseTool("ring")],
  "w": ["Grey window by dragging", () => chooseTool("window")],
  "h": ["Move the image", () => chooseTool("pan")],
  "[": ["Smaller brush", () => resize(-1)],
  "]": ["Larger brush", () => resize(1)],
  "f": ["Fill closed strokes, on or off", toggle("fill")],
  "o": ["Overwrite other classes, on or off", toggle("overwrite")],
  "ArrowUp": ["Slice before", () => goTo(state.slice - 1)],
  "ArrowDown": ["Slice after", () => goTo(state.slice + 1)],
  "PageUp": ["Five slices back", () => goTo(state.slice - 5)],
  "PageDown": ["Five slices on", () => goTo(state.slice + 5)],
  ",": ["Case before", () => nextCase(-1)],
  ".": ["Case after", () => nextCase(1)],
  "n": ["Next slice to draw: where the model is least sure", goToNext],
  "c": ["Copy strokes of the nearest drawn slice", copyStrokes],
  "x": ["Strokes, shown or hidden", toggleShown("strokes")],
  "p": ["Prediction, shown or hidden", toggleShown("prediction")],
  "u": ["Where the model is unsure, shown or hidden", toggleShown("uncertainty")],
  "a": ["Accept the prediction of this slice", acceptSlice],
  "A": ["Accept the prediction of the case", acceptCase],
  "v": ["Case reviewed, yes or no", toggleReviewed],
  "t": ["Next channel", () => chooseChannel(state.channel + 1)],
  "i": ["Automatic grey window", () => { $("preset").value = "Automatic"; choosePreset(); }],
  "?": ["This help", () => $("keys").showModal()],
};
const MORE = [
  ["0 to 9", "Class; 0 is background"],
  ["Ctrl+Z, Ctrl+Shift+Z", "Undo, redo; across slices and cases"],
  ["Space", "Whole slice; held: move the image by dragging"],
  ["Wheel", "Slices; with Ctrl: zoom"],
  ["Right button", "Grey window: across for contrast, up and down for brightness"],
  ["Middle button", "Move the image"],
  ["Two fingers", "Move and zoom. After a pen was used, one finger moves"],
];
const SHOWN = { ArrowUp: "↑", ArrowDown: "↓", PageUp: "Page Up", PageDown: "Page Down", A: "Shift+A" };
$("keys").querySelector("table").append(
  ...[...MORE, ...Object.entries(KEYS).map(([key, [words]]) => [SHOWN[key] ?? key.toUpperCase(), words])].map(([key, words]) =>
    element("tr", {}, element("td", {}, element("kbd", { textContent: key })), element("td", { textContent: words }))));

const held = new Set();
addEventListener("keydown", (event) => {
  if (document.querySelector("dialog[open]") || event.target.matches?.("input, select")) return;
  if ((event.ctrlKey || event.metaKey) && ["z", "y"].includes(event.key.toLowerCase())) {
    event.preventDefault();
    return event.shiftKey || event.key.toLowerCase() === "y" ? redo() : undo();
  }
  if (event.ctrlKey || event.metaKey || event.altKey || !state.case) return;
  if (event.key === " ") {
    if (event.target.matches?.("button")) return;
    event.preventDefault();
    if (!event.repeat) { held.add(" "); view.fit(); }
    return;
  }
  if (/^\d$/.test(event.key)) return chooseClass(+event.key);
  const found = KEYS[event.key] ?? KEYS[event.key.toLowerCase()];
  if (!found) return;
  event.preventDefault();
  found[1]();
});
addEventListener("keyup", (event) => held.delete(event.key));
addEventListener("blur", () => held.clear());
addEventListener("beforeunload", (event) => { if (saver.dirty) event.preventDefault(); });
addEventListener("resize", showStrip);

// --- buttons

const choosePreset = () => setWindow(...presets()[$("preset").value]);

const chooseChannel = attempt(async (channel) => {
  state.channel = channelChosen = channel % state.windows.length;
  showPresets();
  restyle();
  await showSlice();
  if (state.case.shape[0] > 1) showSides();
});

for (const button of $("tools").children) button.addEventListener("click", () => chooseTool(button.dataset.tool));
const clicks = {
  fill: toggle("fill"), overwrite: toggle("overwrite"), undo, redo, fit: () => view.fit(), help: () => $("keys").showModal(), "more-classes": addClass,
  update: startUpdate, stop: attempt(async () => { state.update = await api.stopUpdate(); showUpdate(); }), next: goToNext, copy: copyStrokes,
  "accept-slice": acceptSlice, "accept-case": acceptCase, reviewed: toggleReviewed, export: openExport,
  "show-strokes": toggleShown("strokes"), "show-prediction": toggleShown("prediction"), "show-uncertainty": toggleShown("uncertainty"),
};
for (const [id, action] of Object.entries(clicks)) {
  $(id).addEventListener("click", () => action());
}
// after a click with the pointer (not with the keyboard), keys go to the page again
document.addEventListener("click", (event) => { if (event.detail) event.target.closest("header button, aside button")?.blur(); });
$("size").addEventListener("input", () => { sizeChosen = true; setSize(+$("size").value); });
$("slice").addEventListener("input", () => goTo(+$("slice").value));
$("opacity").addEventListener("input", () => { state.opacity = $("opacity").value / 100; restyle(); });
$("sort").addEventListener("change", showCases);
$("preset").addEventListener("change", () => { choosePreset(); $("preset").blur(); });
$("channel").addEventListener("change", () => { chooseChannel(+$("channel").value); $("channel").blur(); });
for (const id of ["size", "slice", "opacity"]) $(id).addEventListener("change", () => $(id).blur());

// --- start

attempt(async () => {
  let session = await api.getSession();
  $("name").textContent = session.name;
  if (!session.classes) {
    await nameClasses(session.colours);
    session = await api.getSession();
  }
  state.session = session;
  state.update = session.update;
  $("name").textContent = session.name;
  document.title = `${session.name} – scribbleseg draw`;
  chooseTool("brush");
  setSize(state.size);
  showClasses();
  showCases();
  showButtons();
  showUpdate();
  listen();
  const first = session.cases.find((row) => !row.error);
  if (first) await openCase(first.id);
  document.body.dataset.ready = "yes";
})();
