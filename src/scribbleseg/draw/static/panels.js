// What is shown beside the image: cases, classes, slices, and the line below the image.

import * as api from "./api.js";
import { $, attempt, element, state, view } from "./page.js";
import { goTo, openCase, sorted } from "./slices.js";
import { done, saver, undone } from "./strokes.js";
import { chooseClass } from "./tools.js";
import { restyle } from "./windows.js";

export function showWhere(place = null) {
  const image = view.planes.image;
  if (!state.case || !image) return;
  const slice = `Slice ${state.slice + 1} of ${state.case.shape[0]}`;
  const grey = state.windows[state.channel], number = (value) => String(+value.toPrecision(4));
  const width = `W ${number(grey.high - grey.low)}  L ${number((grey.high + grey.low) / 2)}`;
  const [column, row] = (place ?? [-1, -1]).map(Math.floor);
  let here = "";
  if (column >= 0 && row >= 0 && column < image.columns && row < image.rows) {
    const pixel = row * image.columns + column, names = state.session.classes.map(({ name }) => name);
    const drawn = names[view.planes.strokes?.data[pixel]], predicted = names[view.planes.prediction?.data[pixel]];
    here = `   column ${column + 1}, row ${row + 1}: ${[...image.data.slice(image.numbers * pixel, image.numbers * (pixel + 1))].map(number).join(" ")}` +
      `${drawn ? `   drawn: ${drawn}` : ""}${predicted ? `   predicted: ${predicted}` : ""}`;
  }
  $("where").textContent = `${slice}   ${width}${here}`;
}

export function showStrip() {
  const canvas = $("strip"), context = canvas.getContext("2d"), ratio = window.devicePixelRatio || 1;
  canvas.width = Math.max(1, canvas.clientWidth * ratio);
  canvas.height = Math.max(1, canvas.clientHeight * ratio);
  if (!state.case) return;
  const { drawn, uncertainty } = state.case, wide = canvas.width / drawn.length, high = canvas.height;
  const most = Math.max(...(uncertainty ?? [1]), 1e-9);
  drawn.forEach((counts, index) => {
    const gap = wide > 4 ? 1 : 0;
    context.fillStyle = "#262d36";
    context.fillRect(index * wide, 0, wide - gap, high);
    if (uncertainty) {
      const tall = (uncertainty[index] / most) * high;
      context.fillStyle = "#f0a742";
      context.fillRect(index * wide, high - tall, wide - gap, tall);
    }
    if (counts.some(Boolean)) {
      context.fillStyle = "#4aa3ff";
      context.fillRect(index * wide, 0, wide - gap, high * 0.35);
    }
    if (index === state.slice) {
      context.strokeStyle = "#fff";
      context.lineWidth = 2;
      context.strokeRect(index * wide + 1, 1, Math.max(1, wide - gap - 2), high - 2);
    }
  });
}

export function showCases() {
  const { cases, classes } = state.session;
  const most = Math.max(...cases.map((row) => row.uncertainty ?? 0), 1e-9);
  $("cases").replaceChildren(...sorted().map((row) => {
    const about = element("span", { className: "about" });
    if (row.error) about.append(element("span", { className: "error", textContent: row.error }));
    else {
      row.voxels.forEach((count, value) => { if (count) about.append(dot(classes[value].colour, classes[value].name)); });
      const slices = row.slices.length;
      about.append(slices ? `${slices} slice${slices > 1 ? "s" : ""}` : "nothing drawn");
      if (row.uncertainty !== null) {
        about.append(element("progress", { className: "unsure", max: most, value: row.uncertainty, title: "how unsure the model is" }));
      }
    }
    const button = element("button", { title: row.id },
      element("span", { className: "id", textContent: row.id }),
      element("span", { className: "tick", textContent: row.reviewed ? "✓" : "", title: "reviewed" }), about);
    button.setAttribute("aria-current", row.id === state.case?.id);
    button.disabled = state.away;
    button.addEventListener("click", () => openCase(row.id));
    return element("li", {}, button);
  }));
  const drawn = cases.filter((row) => row.slices.length).length, reviewed = cases.filter((row) => row.reviewed).length;
  $("progress-text").textContent = `${cases.length} case${cases.length > 1 ? "s" : ""}: ${drawn} drawn on, ${reviewed} reviewed`;
}

function dot(colour, title) {
  const made = element("span", { className: "dot", title });
  made.style.background = colour;
  return made;
}

export function showClasses() {
  const { classes } = state.session;
  $("classes").replaceChildren(...classes.map(({ name, colour }, value) => {
    const button = element("button", { title: `Draw ${name} (${value})` }, dot(colour, ""),
      element("span", { className: "label", textContent: name }), element("kbd", { textContent: value < 10 ? value : "" }));
    button.setAttribute("aria-pressed", value === state.value);
    button.addEventListener("click", () => chooseClass(value));
    const picker = element("input", { type: "color", value: colour, title: `Colour of ${name}`, hidden: value === 0, disabled: state.away });
    picker.addEventListener("change", attempt(async () => {
      classes[value].colour = picker.value;
      await api.nameClasses(classes.slice(1));
      showClasses();
      showCases();
      restyle();
    }));
    return element("li", {}, button, picker);
  }));
}

export function showButtons() {
  const row = state.session.cases.find((each) => each.id === state.case?.id), predicted = state.case?.prediction != null;
  $("undo").disabled = !done.length;
  $("redo").disabled = !undone.length;
  for (const id of ["show-uncertainty", "show-prediction"]) $(id).disabled = !predicted;
  for (const id of ["accept-slice", "accept-case"]) $(id).disabled = state.away || !predicted;
  for (const id of ["more-classes", "copy", "reviewed"]) $(id).disabled = state.away;
  $("next").disabled = state.away || !state.session.cases.some((each) => each.prediction !== null);
  $("export").disabled = state.away || !state.session.cases.some((each) => each.prediction !== null || each.slices.length);
  $("reviewed").setAttribute("aria-pressed", Boolean(row?.reviewed));
  for (const kind of ["strokes", "prediction", "uncertainty"]) $(`show-${kind}`).setAttribute("aria-pressed", state.show[kind]);
  $("fill").setAttribute("aria-pressed", state.fill);
  $("overwrite").setAttribute("aria-pressed", state.overwrite);
}

// `why`: the last change could not be saved.
export function showSaved(text, kind, why = "") {
  $("saved").textContent = text;
  $("saved").className = kind;
  const { away, session: { command } } = state;
  const slices = [...saver.waiting].map(([name, changed]) => `${name}, slice ${[...changed.keys()].map((index) => index + 1).join(", ")}`);
  const saved = slices.length ? `Not saved yet: ${slices.join("; ")}. This page keeps these strokes as long as it stays open. ` : "All strokes are saved. ";
  $("trouble").hidden = !away && !why;
  $("trouble").replaceChildren(...{
    ended: ["The server has ended or cannot be reached. ", saved, "Start it again: ", element("code", { textContent: command }),
      ". Then this page goes on by itself. If it does not, open the new address."],
    token: ["The server runs again. ", saved, "Open the address that it has printed, in another tab of this browser. Then this page goes on too."],
    other: ["Another data set is open at this address now. ", saved, "Start this one again: ", element("code", { textContent: command })],
  }[away] ?? [saved, `${why} The page tries again.`]);
}

$("strip").addEventListener("pointerdown", (event) => {
  const box = $("strip").getBoundingClientRect();
  if (state.case) goTo(Math.floor(((event.clientX - box.left) / box.width) * state.case.shape[0]));
});
