// The page: what its buttons do, and how it starts.

import * as api from "./api.js";
import { addClass, nameClasses, openExport } from "./dialogs.js";
import "./keys.js";
import { follow, goToNext, startUpdate, stopUpdate, toggleReviewed } from "./model.js";
import { $, attempt, view } from "./page.js";
import "./panels.js";
import "./pointer.js";
import { chooseChannel, goTo, openCase, toggleShown } from "./slices.js";
import { rowOf, state, tell } from "./state.js";
import { acceptCase, acceptSlice, copyStrokes, redo, undo } from "./strokes.js";
import { chooseTool, resize, toggle } from "./tools.js";
import { choosePreset } from "./windows.js";

for (const button of $("tools").children) button.addEventListener("click", () => chooseTool(button.dataset.tool));
const clicks = {
  fill: toggle("fill"), overwrite: toggle("overwrite"), undo, redo, fit: () => view.fit(), help: () => $("keys").showModal(), "more-classes": addClass,
  update: startUpdate, stop: stopUpdate, next: goToNext, copy: copyStrokes,
  "accept-slice": acceptSlice, "accept-case": acceptCase, reviewed: toggleReviewed, export: openExport,
  "show-strokes": toggleShown("strokes"), "show-prediction": toggleShown("prediction"), "show-uncertainty": toggleShown("uncertainty"),
};
for (const [id, action] of Object.entries(clicks)) $(id).addEventListener("click", () => action());
// after a click with the pointer (not with the keyboard), keys go to the page again
document.addEventListener("click", (event) => { if (event.detail) event.target.closest("header button, aside button")?.blur(); });
$("size").addEventListener("input", () => resize(+$("size").value));
$("slice").addEventListener("input", () => goTo(+$("slice").value));
$("opacity").addEventListener("input", () => { state.opacity = $("opacity").value / 100; tell("look"); });
$("preset").addEventListener("change", () => { choosePreset(); $("preset").blur(); });
$("channel").addEventListener("change", () => { chooseChannel(+$("channel").value); $("channel").blur(); });
for (const id of ["size", "slice", "opacity"]) $(id).addEventListener("change", () => $(id).blur());

attempt(async () => {
  let session = await api.getSession();
  $("name").textContent = session.name;
  api.belongTo(session.id);
  if (!session.classes) {
    await nameClasses(session.colours);
    session = await api.getSession();
  }
  state.session = session;
  state.update = session.update;
  $("name").textContent = session.name;
  document.title = `${session.name} – scribbleseg draw`;
  chooseTool("brush");
  tell("session");
  follow();
  for (const { id } of session.cases) { // the first that can be read
    if (!rowOf(id).error) await openCase(id);
    if (state.case || !rowOf(id).error) break; // or the server is away
  }
  document.body.dataset.ready = "yes";
})();
