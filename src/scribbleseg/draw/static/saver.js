// Sends changed slices to the server, one after the other, until each is on the disk.

import * as api from "./api.js";

const RETRY_MS = 2000;

export class Saver {
  // onSaved(case, answer), onConflict(case, slices), onState(text, kind, why), answers(): resolves when the server does
  constructor({ onSaved, onConflict, onState, answers }) {
    Object.assign(this, { onSaved, onConflict, onState, answers });
    this.waiting = new Map(); // case → Map(slice → {data, base}): base is what the disk had
    this.versions = new Map(); // case → version of its strokes on the disk
    this.busy = null;
    this.stopped = new Set(); // cases with a conflict that is not resolved
    this.why = ""; // the last change could not be saved
  }

  get dirty() { return this.waiting.size > 0; }

  of(name) {
    if (!this.waiting.has(name)) this.waiting.set(name, new Map());
    return this.waiting.get(name);
  }

  // `base`: the slice as it was before this change.
  change(name, index, data, base) {
    const slices = this.of(name), earlier = slices.get(index);
    slices.set(index, { data: data.slice(), base: earlier ? earlier.base : base });
    this.report();
    this.busy ??= this.run().finally(() => { this.busy = null; });
  }

  async run() {
    for (;;) {
      const name = [...this.waiting.keys()].find((each) => !this.stopped.has(each));
      if (name === undefined) break;
      const slices = this.of(name), [index, sent] = slices.entries().next().value;
      try {
        const answer = await api.putSlice(name, index, sent.data, this.versions.get(name));
        this.versions.set(name, answer.version);
        this.why = "";
        if (slices.get(index) === sent) slices.delete(index);
        else slices.get(index).base = sent.data; // it was changed again meanwhile
        if (!slices.size) this.waiting.delete(name);
        this.onSaved(name, answer);
      } catch (error) {
        if (error.status === 412) {
          this.why = "";
          this.stopped.add(name);
          this.onConflict(name, slices);
        } else {
          this.why = error.message;
          this.report();
          await new Promise((resolve) => setTimeout(resolve, RETRY_MS));
          if (!error.status || error.status === 401) await this.answers();
        }
      }
    }
    this.report();
  }

  // After a conflict: forget what was not saved and go on with the version that is on the disk now.
  resolve(name, version) {
    this.waiting.delete(name);
    this.stopped.delete(name);
    this.versions.set(name, version);
  }

  report() {
    if (!this.dirty) this.onState("Saved", "");
    else if (this.why || this.stopped.size) this.onState("Not saved", "bad", this.why);
    else this.onState("Saving…", "waiting");
  }

  async settled() { while (this.busy) await this.busy; }
}
