// The tool, the brush and the class that they draw.

import * as api from "./api.js";
import { attempt } from "./page.js";
import { on, sizeOfSlice, state, tell } from "./state.js";

let sizeChosen = false; // until then the brush is so wide that no stroke is lost when slices are made smaller

export const radius = () => (state.size / 2) * Math.min(...state.case.planes[0].spacing_mm);

export const chooseTool = (tool) => { state.tool = tool; tell("tool"); };
export const toggle = (name) => () => { state[name] = !state[name]; tell("tool"); };
export const resize = (size) => { sizeChosen = true; setSize(size); };

function setSize(size) {
  state.size = Math.max(1, Math.min(40, size));
  tell("tool");
}

on("case", () => { if (!sizeChosen) setSize(Math.max(3, Math.ceil(Math.max(...Object.values(sizeOfSlice())) / 100))); });

export function chooseClass(value) {
  if (value >= state.session.classes.length) return;
  state.value = value;
  if (state.tool !== "brush") chooseTool("brush");
  tell("class");
}

export const recolour = attempt(async (value, colour) => {
  const { classes } = state.session;
  classes[value].colour = colour;
  await api.nameClasses(classes.slice(1));
  tell("session");
});
