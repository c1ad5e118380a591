// Which case, slice, channel and overlays are shown, and the planes that were loaded for them.

import * as api from "./api.js";
import { $, attempt, sides, view } from "./page.js";
import { saver } from "./saver.js";
import { on, readSession, rowOf, sizeOfSlice, state, tell } from "./state.js";
import { firstWindows } from "./windows.js";

const MOST_PLANES = 60; // kept in memory per kind
const kept = {}; // kind → planes of the case
let opening = 0; // how many cases were opened
let channelChosen = null; // until then the first one is shown, or the colours of a picture

export function forget(...kinds) { for (const kind of kinds) kept[kind] = new Map(); }

export async function plane(kind, axis, index) {
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
export const strokesHere = () => {
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
  tell("slice");
  placeCross();
  const planes = await planesOf(0, slice);
  if (shown !== state.case || slice !== state.slice) return;
  view.set(planes, shown.planes[0].spacing_mm);
  tell("planes");
  for (const next of [slice + 1, slice - 1, slice + 2, slice - 2]) {
    if (next >= 0 && next < shown.shape[0]) planesOf(0, next).catch(() => {});
  }
}

let sidesWait = null;

export function showSides() {
  clearTimeout(sidesWait);
  if (state.case.shape[0] < 2) return;
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
on("strokes", showSides);

export const showPlanes = attempt(async () => {
  await showSlice();
  showSides();
});

// The array indices [D, H, W] of a pixel of a plane, and back.
export function arrayAt(axis, column, row) {
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

export async function openCase(name, slice = null) {
  if (state.stroke) return;
  const turn = ++opening;
  $("stage").dataset.loading = name;
  await loadCase(name, slice, turn);
  if (turn === opening) delete $("stage").dataset.loading;
}

const loadCase = attempt(async (name, slice, turn) => {
  const opened = await api.getCase(name).catch((error) => {
    if (error.status === 400) rowOf(name).error = error.message;
    tell("cases");
    throw error;
  });
  if (opened.drawn[0].length !== state.session.classes.length) await readSession();
  if (turn !== opening) return; // another case was chosen meanwhile
  state.case = opened;
  if (!saver.waiting.has(name)) saver.versions.set(name, opened.version);
  forget("image", "strokes", "prediction", "uncertainty");
  for (const [index, { data }] of saver.waiting.get(name) ?? []) {
    const { rows, columns } = sizeOfSlice();
    kept.strokes.set(`0 ${index} `, { data: data.slice(), rows, columns });
  }
  state.windows = firstWindows(opened);
  state.channel = Math.min(channelChosen ?? (opened.coloured ? opened.windows.length - 1 : 0), opened.windows.length - 1);
  const firstDrawn = opened.drawn.findIndex((counts) => counts.some(Boolean));
  state.slice = slice ?? (firstDrawn >= 0 ? firstDrawn : opened.shape[0] >> 1);
  state.cross = opened.shape.map((size) => size >> 1);
  view.fitted = true;
  sides.forEach((side) => { side.fitted = true; side.set({}, [1, 1]); });
  tell("case");
  await showPlanes();
});

export const goTo = attempt(async (slice) => {
  if (state.stroke || !state.case) return;
  state.slice = Math.max(0, Math.min(state.case.shape[0] - 1, slice));
  await showSlice();
});

export function chooseChannel(channel) {
  state.channel = channelChosen = channel % state.windows.length;
  tell("channel");
  return showPlanes();
}

export const toggleShown = (kind) => () => {
  state.show[kind] = !state.show[kind];
  tell("look");
  if (state.case) showPlanes();
};

export function sorted() {
  const rows = [...state.session.cases].sort((one, other) => one.id.localeCompare(other.id, undefined, { numeric: true }));
  if ($("sort").value === "uncertain") rows.sort((one, other) => (other.uncertainty ?? -1) - (one.uncertainty ?? -1));
  return rows;
}

export function nextCase(step) {
  const order = sorted(), at = order.findIndex((row) => row.id === state.case?.id);
  const next = order[at + step];
  if (next) return openCase(next.id);
}
