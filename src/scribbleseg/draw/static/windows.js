// The grey window of each channel, and which channel is shown.

import { $, attempt, colours, element, sides, state, view } from "./page.js";
import { showWhere } from "./panels.js";
import { showSides, showSlice } from "./slices.js";

const CT_PRESETS = { "Soft tissue": [-160, 240], Liver: [-45, 105], Lung: [-1350, 150], Bone: [-450, 1050], Brain: [0, 80] };
export const ctWindows = []; // grey window per channel, kept from case to case: Hounsfield units mean the same in all
export let channelChosen = null; // until then the first one is shown, or the colours of a picture

// Name → [low, high] of the windows that the list offers for this channel.
function presets() {
  const { low, high, least, most, ct } = state.case.windows[state.channel];
  return ct ? { Automatic: [least, most], ...CT_PRESETS } : { Automatic: [low, high] };
}

export function showPresets() {
  $("preset").replaceChildren(...[...Object.keys(presets()), "Own"].map((name) => element("option", { textContent: name })));
  $("preset").lastChild.hidden = true; // it only says that the window was dragged
  showPreset();
  const channels = [...state.session.channels, ...(state.case.coloured ? ["Colours"] : [])];
  $("channel").hidden = channels.length < 2;
  $("channel").replaceChildren(...channels.map((name, index) => element("option", { value: index, textContent: name })));
  $("channel").value = state.channel;
}

function showPreset() {
  const { low, high } = state.windows[state.channel];
  $("preset").value = Object.entries(presets()).find(([, [from, to]]) => from === low && to === high)?.[0] ?? "Own";
}

function setWindow(low, high) {
  state.windows[state.channel] = { low, high };
  if (state.case.windows[state.channel].ct) ctWindows[state.channel] = { low, high };
  showPreset();
  restyle();
}

export function dragWindow(dx, dy) {
  const { least, most } = state.case.windows[state.channel], now = state.windows[state.channel];
  const step = (most - least) / 600;
  const width = Math.max(step / 4, now.high - now.low + dx * step), level = (now.high + now.low) / 2 + dy * step;
  setWindow(level - width / 2, level + width / 2);
}

export const choosePreset = () => setWindow(...presets()[$("preset").value]);

export const chooseChannel = attempt(async (channel) => {
  state.channel = channelChosen = channel % state.windows.length;
  showPresets();
  restyle();
  await showSlice();
  if (state.case.shape[0] > 1) showSides();
});

export function restyle() {
  for (const each of [view, ...sides]) {
    each.look = { window: state.windows[state.channel] ?? { low: 0, high: 1 }, colours: colours(), opacity: state.opacity, show: state.show };
    each.restyle();
  }
  showWhere();
}
