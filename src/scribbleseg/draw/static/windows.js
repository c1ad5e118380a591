// The grey window of each channel, and the colours: how planes look.

import { $, element, sides, view } from "./page.js";
import { on, state, tell } from "./state.js";

const CT_PRESETS = { "Soft tissue": [-160, 240], Liver: [-45, 105], Lung: [-1350, 150], Bone: [-450, 1050], Brain: [0, 80] };
const ctWindows = []; // grey window per channel, kept from case to case: Hounsfield units mean the same in all

export const firstWindows = ({ windows }) => windows.map(({ low, high, ct }, channel) => (ct ? ctWindows[channel] : null) ?? { low, high });

// Name → [low, high] of the windows that the list offers for this channel.
function presets() {
  const { low, high, least, most, ct } = state.case.windows[state.channel];
  return ct ? { Automatic: [least, most], ...CT_PRESETS } : { Automatic: [low, high] };
}

function showPresets() {
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
  tell("look");
}

export function dragWindow(dx, dy) {
  const { least, most } = state.case.windows[state.channel], now = state.windows[state.channel];
  const step = (most - least) / 600;
  const width = Math.max(step / 4, now.high - now.low + dx * step), level = (now.high + now.low) / 2 + dy * step;
  setWindow(level - width / 2, level + width / 2);
}

export const choosePreset = () => setWindow(...presets()[$("preset").value]);

function restyle() {
  const window = state.windows[state.channel] ?? { low: 0, high: 1 }, colours = state.session.classes.map(({ colour }) => colour);
  for (const each of [view, ...sides]) {
    each.look = { window, colours, opacity: state.opacity, show: state.show };
    each.restyle();
  }
}

on("case channel", showPresets);
on("session case channel look", restyle);
