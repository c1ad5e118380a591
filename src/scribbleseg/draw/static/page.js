// The page's elements: canvases, messages and questions.

import { View } from "./view.js";

export const $ = (id) => document.getElementById(id);

export const view = new View($("canvas"));
export const sides = [new View($("side1")), new View($("side2"))];

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
