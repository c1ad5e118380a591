// The dialogs: names of classes, and export.

import * as api from "./api.js";
import { $, attempt, element, say } from "./page.js";
import { saver } from "./saver.js";
import { openCase } from "./slices.js";
import { readSession, state } from "./state.js";

// The dialog in which classes get names. With `classes` these are there already, and more are added.
export function nameClasses(colours, classes = []) {
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

export const addClass = attempt(async () => {
  const { colours, classes } = state.session;
  await nameClasses(colours, classes.slice(1));
  await readSession();
  if (state.case && state.session.classes.length > classes.length) await openCase(state.case.id, state.slice);
});

export function openExport() {
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
