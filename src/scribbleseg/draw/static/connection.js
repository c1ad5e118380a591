// Whether the server answers: its messages about the update, and what to do while it is away.

import * as api from "./api.js";
import { state } from "./state.js";

const RETRY_MS = 2000;
let events = null, waiting = null, told = {};

// onMessage(update), onAway(why), onBack(). why: ended, token (it runs again and has another token), other (data set).
export function listen(handlers) {
  told = handlers;
  open();
}

function open() {
  events?.close();
  events = new EventSource("/api/events");
  events.onmessage = (event) => told.onMessage(JSON.parse(event.data));
  events.onerror = () => answers();
}

// Resolves when the server answers again with this data set.
export function answers() {
  waiting ??= wait().finally(() => { waiting = null; open(); });
  return waiting;
}

async function wait() {
  events?.close();
  let why, away = false;
  while ((why = await trouble())) {
    away = true;
    told.onAway(why);
    await pause();
  }
  if (away) await told.onBack();
  else await pause(); // not at once: the stream may fail where other requests do not
}

const pause = () => new Promise((resolve) => setTimeout(resolve, RETRY_MS));

async function trouble() {
  try {
    return (await api.getSession()).id === state.session.id ? "" : "other";
  } catch (error) { return error.status === 401 ? "token" : error.status ? "" : "ended"; }
}
