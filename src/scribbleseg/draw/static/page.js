// What all parts of the page share: its state, the canvases, messages and questions.

import { View } from "./view.js";

export const $ = (id) => document.getElementById(id);

export const state = {
  session: null, case: null, slice: 0, cross: [0, 0, 0], // cross: array indices D, H, W
  tool: "brush", value: 1, size: 3, fill: false, overwrite: false, channel: 0, windows: [],
  show: { strokes: true, prediction: true, uncertainty: false }, opacity: 0.3, update: { phase: "idle" },
  away: "", // why the server does not answer, as in connection.js
};

export const view = new View($("canvas"));
export const sides = [new View($("side1")), new View($("side2"))];
export const colours = () => state.session.classes.map((row) => row.colour);

export function element(tag, properties = {}, ...children) {
  const made = Object.assign(document.createElement(tag), properties);
  made.append(...children);
  return made;
}

export function say(text, seconds = 6) {
  const line = element("p", { textContent: text });
  $("toasts").append(line);
  setTimeout(() => line.remove(), seconds * 1000);
}

// Runs what a button or key started; its error becomes a message.
export const attempt = (action) => async (...given) => {
  try { return await action(...given); } catch (error) { say(error.message, 12); }
};

export function ask(title, text, answers) {
  const dialog = $("ask");
  dialog.querySelector("h2").textContent = title;
  dialog.querySelector("p").textContent = text;
  dialog.querySelector(".buttons").replaceChildren(
    ...answers.map((answer, index) => element("button", { value: answer, textContent: answer, className: index ? "" : "primary" })));
  dialog.returnValue = "";
  dialog.showModal();
  return new Promise((resolve) => dialog.addEventListener("close", () => resolve(dialog.returnValue), { once: true }));
}
