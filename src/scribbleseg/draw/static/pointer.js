// What mouse, pen and fingers do on the canvases.

import { held } from "./keys.js";
import { sides, view } from "./page.js";
import { showWhere } from "./panels.js";
import { arrayAt, goTo, showSides } from "./slices.js";
import { sizeOfSlice, state } from "./state.js";
import { beginStroke, cancelStroke, endStroke, extendStroke } from "./strokes.js";
import { radius } from "./tools.js";
import { dragWindow } from "./windows.js";

const pointers = new Map();
let pinch = null, drag = null, penSeen = false;

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
  } else if (state.stroke) {
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
  if (state.stroke) {
    if (event.type === "pointerup") endStroke();
    else cancelStroke();
  }
  if (event.type === "pointerup" && state.case) {
    const [column, row] = view.at(...onCanvas(event)).map(Math.floor), { rows, columns } = sizeOfSlice();
    if (column >= 0 && row >= 0 && column < columns && row < rows) {
      state.cross = arrayAt(0, column, row);
      showSides();
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
