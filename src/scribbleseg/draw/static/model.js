// Updates of the model, and where it is least sure.

import * as api from "./api.js";
import { listen } from "./connection.js";
import { $, attempt, say, state } from "./page.js";
import { showButtons, showCases, showClasses } from "./panels.js";
import { goTo, kept, openCase, showSides, showSlice } from "./slices.js";
import { saver } from "./strokes.js";
import { restyle } from "./windows.js";

const running = () => ["starting", "training", "predicting", "stopping"].includes(state.update.phase);

function duration(seconds) {
  const whole = Math.max(1, Math.round(seconds));
  return whole < 60 ? `${whole} s` : `${Math.floor(whole / 60)}:${String(whole % 60).padStart(2, "0")} min`;
}

export function showUpdate() {
  const { phase, done: step, total, seconds_left: left, message } = state.update, { cases, classes } = state.session;
  const missing = classes.filter((_, value) => !cases.some((row) => row.voxels[value])).map(({ name }) => name);
  $("update").disabled = state.away || running() || missing.length > 0;
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

// The classes and cases as they are now: another tab may have added a class.
export async function readSession() {
  state.session = await api.getSession();
  showAll();
  restyle();
}

export function showAll() {
  showClasses();
  showCases();
  showButtons();
  showUpdate();
}

async function refreshPredictions() {
  await readSession();
  const row = state.session.cases.find((each) => each.id === state.case?.id);
  if (row && row.prediction !== state.case.prediction) {
    const fresh = await api.getCase(row.id);
    if (fresh.id !== state.case.id) return;
    Object.assign(state.case, { prediction: fresh.prediction, uncertainty: fresh.uncertainty });
    kept.prediction = new Map(); // the old overlay stays on the canvas until the new plane has come
    kept.uncertainty = new Map();
    showButtons();
    await showSlice();
    showSides();
  }
}

export const follow = () => listen({
  onMessage: attempt(async (update) => {
    const before = state.update;
    state.update = update;
    showUpdate();
    const { phase, done: step } = state.update;
    if (phase === "predicting" && step && step !== before.done || (phase === "done" && before.phase !== "done")) await refreshPredictions();
    if (phase !== before.phase && ["done", "failed", "stopped"].includes(phase)) say(state.update.message, 10);
    showUpdate();
  }),
  onAway: (why) => {
    if (why === state.away) return;
    state.away = why;
    saver.report();
    showAll();
  },
  onBack: attempt(async () => {
    state.away = "";
    saver.report();
    await readSession();
    if (!state.case) return;
    await showSlice();
    if (state.case.shape[0] > 1) showSides();
  }),
});

export const startUpdate = attempt(async () => {
  const before = state.update;
  state.update = { phase: "starting" };
  showUpdate();
  try {
    await saver.settled();
    state.update = await api.startUpdate(state.case.id);
  } catch (error) {
    state.update = before;
    throw error;
  } finally { showUpdate(); }
});

export const goToNext = attempt(async () => {
  await saver.settled();
  const next = await api.getNext();
  if (!next) return say("Every predicted slice has strokes, or its case is reviewed.");
  if (next.case !== state.case?.id) await openCase(next.case, next.slice);
  else await goTo(next.slice);
  say(`${next.case}, slice ${next.slice + 1}: the model is least sure here.`);
});

export const toggleReviewed = attempt(async () => {
  const row = state.session.cases.find((each) => each.id === state.case.id);
  await api.review(row.id, !row.reviewed);
  row.reviewed = !row.reviewed;
  showCases();
  showButtons();
});
