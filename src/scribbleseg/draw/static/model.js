// Updates of the model, the next slice to draw, and which cases are reviewed.

import * as api from "./api.js";
import { listen } from "./connection.js";
import { attempt, say } from "./page.js";
import { saver } from "./saver.js";
import { forget, goTo, openCase, showPlanes } from "./slices.js";
import { readSession, rowOf, state, tell } from "./state.js";

async function refreshPredictions() {
  await readSession();
  const row = rowOf(state.case?.id);
  if (row && row.prediction !== state.case.prediction) {
    const fresh = await api.getCase(row.id);
    if (fresh.id !== state.case.id) return;
    Object.assign(state.case, { prediction: fresh.prediction, uncertainty: fresh.uncertainty });
    forget("prediction", "uncertainty"); // the old overlay stays on the canvas until the new plane has come
    tell("cases");
    await showPlanes();
  }
}

export const follow = () => listen({
  onMessage: attempt(async (update) => {
    const before = state.update;
    state.update = update;
    tell("update");
    const { phase, done: step } = state.update;
    const ended = phase !== before.phase && ["done", "failed", "stopped"].includes(phase);
    if (phase === "predicting" && step && step !== before.done || ended) await refreshPredictions();
    if (ended) say(state.update.message, 10);
  }),
  onAway: (why) => {
    if (why === state.away) return;
    state.away = why;
    tell("away");
  },
  onBack: attempt(async () => {
    state.away = "";
    tell("away");
    await readSession();
    if (state.case) await showPlanes();
  }),
});

export const startUpdate = attempt(async () => {
  const before = state.update;
  state.update = { phase: "starting" };
  tell("update");
  try {
    await saver.settled();
    state.update = await api.startUpdate(state.case.id);
  } catch (error) {
    state.update = before;
    throw error;
  } finally { tell("update"); }
});

export const stopUpdate = attempt(async () => { state.update = await api.stopUpdate(); tell("update"); });

export const goToNext = attempt(async () => {
  await saver.settled();
  const next = await api.getNext();
  if (!next) return say("Every slice has strokes, or its case is reviewed.");
  if (next.case !== state.case?.id) await openCase(next.case, next.slice);
  else await goTo(next.slice);
  say(`${next.case}, slice ${next.slice + 1}: no strokes yet, chosen at random.`);
});

export const toggleReviewed = attempt(async () => {
  const row = rowOf(state.case.id);
  await api.review(row.id, !row.reviewed);
  row.reviewed = !row.reviewed;
  tell("cases");
});
