// What the page shows, and who is told when it changes.

import * as api from "./api.js";

export const state = {
  session: null, case: null, slice: 0, cross: [0, 0, 0], // cross: array indices D, H, W
  tool: "brush", value: 1, size: 3, fill: false, overwrite: false, stroke: null, // stroke: what is being drawn
  channel: 0, windows: [], show: { strokes: true, prediction: true, uncertainty: false }, opacity: 0.3, update: { phase: "idle" },
  away: "", // why the server does not answer, as in connection.js
};

// session: the classes and cases were read, or a colour changed. cases: a case is reviewed, predicted or cannot be read.
// case, slice, channel, class: another one. planes: those of the slice have come. look: how they are shown.
// tool: it, the size of the brush, fill or overwrite. history: what can be undone. strokes: new ones are on the disk.
// saving: what is not saved, and why. conflict {name, slices}: not saved, others have written. update, away: their states.
const changes = new EventTarget();

export const tell = (change, detail) => changes.dispatchEvent(new CustomEvent(change, { detail }));

export function on(names, act) {
  for (const name of names.split(" ")) changes.addEventListener(name, ({ detail }) => act(detail));
}

export async function readSession() {
  state.session = await api.getSession();
  tell("session");
}

export const rowOf = (name) => state.session.cases.find((row) => row.id === name);

export function sizeOfSlice() {
  const { planes, shape } = state.case;
  return { rows: shape[planes[0].rows], columns: shape[planes[0].columns] };
}
