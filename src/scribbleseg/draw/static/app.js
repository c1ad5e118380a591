// The page: what its buttons do, and how it starts.

import * as api from "./api.js";
import { addClass, nameClasses, openExport } from "./dialogs.js";
import { toggle, toggleShown } from "./keys.js";
import { follow, goToNext, showAll, showUpdate, startUpdate, toggleReviewed } from "./model.js";
import { $, attempt, state, view } from "./page.js";
import { showCases, showStrip } from "./panels.js";
import "./pointer.js";
import { goTo, openCase } from "./slices.js";
import { acceptCase, acceptSlice, copyStrokes, redo, undo } from "./strokes.js";
import { chooseTool, resize, setSize } from "./tools.js";
import { chooseChannel, choosePreset, restyle } from "./windows.js";

addEventListener("resize", showStrip);
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
$("size").addEventListener("input", () => resize(+$("size").value));
$("slice").addEventListener("input", () => goTo(+$("slice").value));
$("opacity").addEventListener("input", () => { state.opacity = $("opacity").value / 100; restyle(); });
$("sort").addEventListener("change", showCases);
$("preset").addEventListener("change", () => { choosePreset(); $("preset").blur(); });
$("channel").addEventListener("change", () => { chooseChannel(+$("channel").value); $("channel").blur(); });
for (const id of ["size", "slice", "opacity"]) $(id).addEventListener("change", () => $(id).blur());

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
  showAll();
  follow();
  const first = session.cases.find((row) => !row.error);
  if (first) await openCase(first.id);
  document.body.dataset.ready = "yes";
})();
