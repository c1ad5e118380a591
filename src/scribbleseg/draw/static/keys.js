// Keys, and the help that lists them.

import { goToNext, toggleReviewed } from "./model.js";
import { $, element, view } from "./page.js";
import { saver } from "./saver.js";
import { chooseChannel, goTo, nextCase, toggleShown } from "./slices.js";
import { state } from "./state.js";
import { acceptCase, acceptSlice, copyStrokes, redo, undo } from "./strokes.js";
import { chooseClass, chooseTool, resize, toggle } from "./tools.js";
import { choosePreset } from "./windows.js";

// key → [what it does in words, function]; Shift is part of the name only where two keys differ by it alone
const KEYS = {
  "b": ["Brush", () => chooseTool("brush")],
  "e": ["Eraser: back to not drawn", () => chooseTool("erase")],
  "r": ["Ring: closed background stroke", () => chooseTool("ring")],
  "w": ["Grey window by dragging", () => chooseTool("window")],
  "h": ["Move the image", () => chooseTool("pan")],
  "[": ["Smaller brush", () => resize(state.size - 1)],
  "]": ["Larger brush", () => resize(state.size + 1)],
  "f": ["Fill closed strokes, on or off", toggle("fill")],
  "o": ["Overwrite other classes, on or off", toggle("overwrite")],
  "ArrowUp": ["Slice before", () => goTo(state.slice - 1)],
  "ArrowDown": ["Slice after", () => goTo(state.slice + 1)],
  "PageUp": ["Five slices back", () => goTo(state.slice - 5)],
  "PageDown": ["Five slices on", () => goTo(state.slice + 5)],
  ",": ["Case before", () => nextCase(-1)],
  ".": ["Case after", () => nextCase(1)],
  "n": ["Next slice to draw: a random one, cases in turn", goToNext],
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
export const held = new Set();

$("keys").querySelector("table").append(
  ...[...MORE, ...Object.entries(KEYS).map(([key, [words]]) => [SHOWN[key] ?? key.toUpperCase(), words])].map(([key, words]) =>
    element("tr", {}, element("td", {}, element("kbd", { textContent: key })), element("td", { textContent: words }))));

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
