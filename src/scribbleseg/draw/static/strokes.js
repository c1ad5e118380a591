// Strokes: drawn, undone, copied, accepted, saved, and joined with those of others.

import * as api from "./api.js";
import { ask, attempt, say, view } from "./page.js";
import { alongLine, difference, inside, NOT_DRAWN } from "./pixels.js";
import { saver } from "./saver.js";
import { forget, goTo, openCase, plane, showPlanes, strokesHere } from "./slices.js";
import { on, rowOf, state, tell } from "./state.js";
import { radius } from "./tools.js";

const MOST_UNDO = 300;
export let undone = [], done = []; // changes: {case, slice, at, before, after}, or {case, accepted, reviewed}

export function beginStroke(place) {
  const strokes = strokesHere();
  if (!strokes) return;
  const value = state.tool === "erase" ? NOT_DRAWN : state.tool === "ring" ? 0 : state.value;
  state.stroke = { plane: strokes, slice: state.slice, before: strokes.data.slice(), value, points: [place] };
  extendStroke(place);
}

function put(pixel) {
  const { plane: { data }, before, value } = state.stroke, was = before[pixel];
  if (value === NOT_DRAWN || was === NOT_DRAWN || was === value || state.overwrite) data[pixel] = value;
}

export function extendStroke(place) {
  const { plane: drawnOn, points } = state.stroke;
  alongLine(drawnOn, points.at(-1), place, radius(), state.case.planes[0].spacing_mm, put);
  points.push(place);
  view.changed("strokes");
}

export function endStroke() {
  const { plane: drawnOn, points, before, slice } = state.stroke;
  if (state.tool === "ring") extendStroke(points[0]);
  else if (state.fill) inside(drawnOn, points, put);
  state.stroke = null;
  view.changed("strokes");
  remember(slice, before, drawnOn.data);
}

export function cancelStroke() {
  if (!state.stroke) return;
  state.stroke.plane.data.set(state.stroke.before);
  state.stroke = null;
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
  tell("history");
}

async function changeSlice(slice, change) {
  const strokes = await plane("strokes", 0, slice);
  const before = strokes.data.slice();
  change(strokes.data);
  if (slice === state.slice) view.changed("strokes");
  return { before, after: strokes.data };
}

const stepBack = (from, to, old, now, wholeCase) => attempt(async () => {
  const change = from().pop();
  if (!change) return;
  const putBack = () => { from().push(change); tell("history"); };
  if (state.stroke) return putBack();
  if (state.case.id !== change.case) await openCase(change.case, change.slice ?? null);
  if (state.case.id !== change.case) return putBack();
  try { await takeBack(change, old, now, wholeCase); } catch (error) {
    if (error.status !== 410) putBack(); // 410: it cannot be taken back any more
    throw error;
  }
  to().push(change);
  tell("history");
});

async function takeBack(change, old, now, wholeCase) {
  if (change.accepted) {
    await wholeCase(change);
  } else {
    await goTo(change.slice);
    const { before, after } = await changeSlice(change.slice, (data) => {
      change.at.forEach((pixel, index) => { if (data[pixel] === change[now][index]) data[pixel] = change[old][index]; });
    });
    saver.change(change.case, change.slice, after, before);
  }
}

export const undo = stepBack(() => done, () => undone, "before", "after", restore);
export const redo = stepBack(() => undone, () => done, "after", "before", accept);

async function accept(change) {
  await saver.settled();
  const answer = await api.acceptCase(change.case, saver.versions.get(change.case));
  change.accepted = answer.accepted;
  change.reviewed = rowOf(change.case).reviewed;
  await changedWholeCase(change.case, answer, true);
}

async function restore(change) {
  await saver.settled();
  const answer = await api.restoreCase(change.case, saver.versions.get(change.case), change.accepted, change.reviewed);
  await changedWholeCase(change.case, answer, change.reviewed);
}

async function changedWholeCase(name, answer, reviewed) {
  rowOf(name).reviewed = reviewed;
  if (name === state.case.id) forget("strokes");
  saver.took(name, answer);
  if (name === state.case.id) await showPlanes();
}

export const acceptCase = attempt(async () => {
  if (!state.case || state.case.prediction === null) return say("This case is not predicted yet.");
  const answer = await ask("Accept the whole case?",
    "Every voxel without a stroke becomes labelled as predicted, and the next update learns from it. Undo takes it back.",
    ["Accept", "Cancel"]);
  if (answer !== "Accept") return;
  const change = { case: state.case.id };
  await accept(change);
  done.push(change);
  undone = [];
  tell("history");
});

export const acceptSlice = attempt(async () => {
  if (!state.case || state.case.prediction === null) return say("This case is not predicted yet.");
  const slice = state.slice, predicted = await plane("prediction", 0, slice);
  const { before, after } = await changeSlice(slice, (data) => {
    data.forEach((value, pixel) => { if (value === NOT_DRAWN) data[pixel] = predicted.data[pixel]; });
  });
  remember(slice, before, after);
});

export const copyStrokes = attempt(async () => {
  const slice = state.slice;
  const drawn = state.case.drawn.flatMap((counts, index) => (index !== slice && counts.some(Boolean) ? [index] : []));
  if (!drawn.length) return say("No other slice of this case has strokes.");
  const nearest = drawn.reduce((one, other) => (Math.abs(other - slice) < Math.abs(one - slice) ? other : one));
  const from = (await plane("strokes", 0, nearest)).data;
  const { before, after } = await changeSlice(slice, (data) => {
    data.forEach((value, pixel) => { if (value === NOT_DRAWN || state.overwrite) data[pixel] = from[pixel] === NOT_DRAWN ? value : from[pixel]; });
  });
  remember(slice, before, after);
  say(`Copied from slice ${nearest + 1}. Erase what does not fit here.`);
});

// Asks again if the server does not answer: the strokes are kept until then.
function settleConflict(conflict) {
  resolveConflict(conflict).catch((error) => {
    say(error.message);
    setTimeout(settleConflict, 2000, conflict);
  });
}
on("conflict", settleConflict);

async function resolveConflict({ name, slices }) {
  const drop = "Show theirs";
  const answer = await ask("These strokes were changed elsewhere",
    `Another tab, person or program has written the strokes of ${name}. Your last strokes are not saved yet. ` +
    "They can be added where the others drew nothing.", ["Show theirs and add mine", drop]);
  if (state.stroke) endStroke();
  const { version } = await api.getCase(name);
  const mine = [...slices].map(([slice, { data, base }]) => ({ slice, ...difference(base, data) }));
  if (name === state.case?.id) forget("strokes"); // nothing can be drawn on the old ones any more
  saver.resolve(name, version);
  done = done.filter((change) => change.case !== name || change.accepted);
  undone = undone.filter((change) => change.case !== name);
  await openCase(name, state.case?.id === name ? state.slice : null);
  for (const { slice, at, before, after } of answer === drop ? [] : mine) {
    const change = await changeSlice(slice, (data) => {
      at.forEach((pixel, index) => { if (data[pixel] === before[index]) data[pixel] = after[index]; });
    });
    remember(slice, change.before, change.after);
  }
  tell("saving");
}
