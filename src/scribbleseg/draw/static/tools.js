// The tool, the class and the size of the brush.

import { $, state, view } from "./page.js";
import { showClasses } from "./panels.js";
import { radius } from "./strokes.js";

const RING = "Ring: draw around everything that you want to segment. The line closes by itself. It says that what lies " +
  "outside is background. Draw one on every slice that you draw on.";

export let sizeChosen = false; // until then the brush is so wide that no stroke is lost when slices are made smaller

export function chooseClass(value) {
  if (value >= state.session.classes.length) return;
  state.value = value;
  if (state.tool !== "brush") chooseTool("brush");
  showClasses();
}

export function chooseTool(tool) {
  state.tool = tool;
  view.canvas.dataset.tool = tool;
  for (const button of $("tools").children) {
    button.setAttribute("role", "radio");
    button.setAttribute("aria-checked", button.dataset.tool === tool);
  }
  $("hint").textContent = RING;
  $("hint").hidden = tool !== "ring";
}

export const resize = (size) => { sizeChosen = true; setSize(size); };

export function setSize(size) {
  state.size = Math.max(1, Math.min(40, size));
  $("size").value = $("size-text").textContent = state.size;
  if (view.cursor && state.case) view.cursor.radius = radius() * view.scale;
  view.redraw();
}
