// What is shown beside the image, and when: cases, classes, slices, buttons, the update, and the line below the image.

import { $, element, view } from "./page.js";
import { saver } from "./saver.js";
import { goTo, openCase, sorted } from "./slices.js";
import { on, rowOf, state } from "./state.js";
import { done, undone } from "./strokes.js";
import { chooseClass, radius, recolour } from "./tools.js";

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

function showStrip() {
  const canvas = $("strip"), context = canvas.getContext("2d"), ratio = window.devicePixelRatio || 1;
  canvas.width = Math.max(1, canvas.clientWidth * ratio);
  canvas.height = Math.max(1, canvas.clientHeight * ratio);
  if (!state.case) return;
  $("slice").value = state.slice;
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

function showCases() {
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

function showClasses() {
  const { classes } = state.session;
  $("classes").replaceChildren(...classes.map(({ name, colour }, value) => {
    const button = element("button", { title: `Draw ${name} (${value})` }, dot(colour, ""),
      element("span", { className: "label", textContent: name }), element("kbd", { textContent: value < 10 ? value : "" }));
    button.setAttribute("aria-pressed", value === state.value);
    button.addEventListener("click", () => chooseClass(value));
    const picker = element("input", { type: "color", value: colour, title: `Colour of ${name}`, hidden: value === 0, disabled: state.away });
    picker.addEventListener("change", () => recolour(value, picker.value));
    return element("li", {}, button, picker);
  }));
}

function showButtons() {
  const row = rowOf(state.case?.id), predicted = state.case?.prediction != null;
  $("undo").disabled = !done.length;
  $("redo").disabled = !undone.length;
  for (const id of ["show-uncertainty", "show-prediction"]) $(id).disabled = !predicted;
  for (const id of ["accept-slice", "accept-case"]) $(id).disabled = state.away || !predicted;
  for (const id of ["more-classes", "next"]) $(id).disabled = state.away;
  for (const id of ["copy", "reviewed"]) $(id).disabled = state.away || !state.case;
  $("export").disabled = state.away || !state.session.cases.some((each) => each.prediction !== null || each.slices.length);
  $("reviewed").setAttribute("aria-pressed", Boolean(row?.reviewed));
  for (const kind of ["strokes", "prediction", "uncertainty"]) $(`show-${kind}`).setAttribute("aria-pressed", state.show[kind]);
}

function showTool() {
  view.canvas.dataset.tool = state.tool;
  for (const button of $("tools").children) button.setAttribute("aria-checked", button.dataset.tool === state.tool);
  for (const id of ["fill", "overwrite"]) $(id).setAttribute("aria-pressed", state[id]);
  $("hint").hidden = state.tool !== "ring";
  $("size").value = $("size-text").textContent = state.size;
  if (view.cursor && state.case) view.cursor.radius = radius() * view.scale;
  view.redraw();
}

function showCase() {
  const { shape, planes } = state.case;
  $("slice").max = shape[0] - 1;
  document.querySelectorAll(".edge").forEach((edge, index) => { edge.textContent = planes[0].edges[index]; });
  document.querySelector(".views").hidden = $("slices").hidden = shape[0] < 2;
}

const running = () => ["starting", "training", "predicting", "stopping"].includes(state.update.phase);

function duration(seconds) {
  const whole = Math.max(1, Math.round(seconds));
  return whole < 60 ? `${whole} s` : `${Math.floor(whole / 60)}:${String(whole % 60).padStart(2, "0")} min`;
}

function showUpdate() {
  const { phase, done: step, total, seconds_left: left, message } = state.update, { cases, classes } = state.session;
  const missing = classes.filter((_, value) => !cases.some((row) => row.voxels[value])).map(({ name }) => name);
  $("update").disabled = state.away || !state.case || running() || missing.length > 0;
  $("bar").hidden = state.away || !running();
  $("stop").hidden = state.away || !running() || phase === "stopping";
  if (["starting", "stopping"].includes(phase)) $("bar").removeAttribute("value");
  else $("bar").value = total ? step / total : 0;
  $("update-text").className = phase === "failed" ? "bad" : "";
  $("update-text").textContent = state.away ? "No news from the server." : {
    starting: message || "Reading scans and strokes…",
    training: `Training, ${Math.round((100 * step) / total)} %${left ? `, ${duration(left)} left` : ""}. You can go on drawing.`,
    stopping: "Stopping…",
    predicting: `Predicting, ${step} of ${total} cases`,
  }[phase] ?? (missing.length ? `Draw first: ${missing.join(", ")}` : message || "Trains on your strokes and segments all cases.");
}

function showSaved() {
  const { away, session: { command } } = state, { why } = saver;
  [$("saved").textContent, $("saved").className] =
    !saver.dirty ? ["Saved", ""] : why || saver.stopped.size ? ["Not saved", "bad"] : ["Saving…", "waiting"];
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

on("session class away", showClasses);
on("session case cases strokes away", showCases);
on("session case cases strokes away look history", showButtons);
on("session case strokes away update", showUpdate);
on("saving away", showSaved);
on("case", showCase);
on("slice strokes", showStrip);
on("look planes", () => showWhere());
on("tool", showTool);

addEventListener("resize", showStrip);
$("sort").addEventListener("change", showCases);
$("strip").addEventListener("pointerdown", (event) => {
  const box = $("strip").getBoundingClientRect();
  if (state.case) goTo(Math.floor(((event.clientX - box.left) / box.width) * state.case.shape[0]));
});
