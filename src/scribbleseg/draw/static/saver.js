// Sends changed slices to the server, one after the other, until each is on the disk.

import * as api from "./api.js";
import { answers } from "./connection.js";
import { attempt } from "./page.js";
import { readSession, rowOf, state, tell } from "./state.js";

const RETRY_MS = 2000;

class Saver {
  waiting = new Map(); // case → Map(slice → {data, base}): base is what the disk had
  versions = new Map(); // case → version of its strokes on the disk
  busy = null;
  stopped = new Set(); // cases with a conflict that is not resolved
  why = ""; // the last change could not be saved

  get dirty() { return this.waiting.size > 0; }

  of(name) {
    if (!this.waiting.has(name)) this.waiting.set(name, new Map());
    return this.waiting.get(name);
  }

  // `base`: the slice as it was before this change.
  change(name, index, data, base) {
    const slices = this.of(name), earlier = slices.get(index);
    slices.set(index, { data: data.slice(), base: earlier ? earlier.base : base });
    tell("saving");
    this.busy ??= this.run().finally(() => { this.busy = null; });
  }

  async run() {
    for (;;) {
      const name = [...this.waiting.keys()].find((each) => !this.stopped.has(each));
      if (name === undefined) break;
      const slices = this.of(name), [index, sent] = slices.entries().next().value;
      try {
        const answer = await api.putSlice(name, index, sent.data, this.versions.get(name));
        this.why = "";
        if (slices.get(index) === sent) slices.delete(index);
        else slices.get(index).base = sent.data; // it was changed again meanwhile
        if (!slices.size) this.waiting.delete(name);
        this.took(name, answer);
      } catch (error) {
        if (error.status === 412) {
          this.why = "";
          this.stopped.add(name);
          tell("conflict", { name, slices });
        } else {
          this.why = error.message;
          tell("saving");
          await new Promise((resolve) => setTimeout(resolve, RETRY_MS));
          if ([undefined, 401, 409].includes(error.status)) await answers(); // none, no token, another data set
        }
      }
    }
    tell("saving");
  }

  // These strokes of a case are on the disk now: `answer` is the server's.
  took = attempt(async (name, { version, drawn }) => {
    this.versions.set(name, version);
    if (name === state.case?.id) state.case.drawn = drawn;
    const row = rowOf(name);
    row.voxels = drawn[0].map((_, value) => drawn.reduce((sum, slice) => sum + slice[value], 0));
    row.slices = drawn.flatMap((slice, index) => (slice.some(Boolean) ? [index] : []));
    if (row.voxels.length !== state.session.classes.length) await readSession(); // another tab has added a class
    tell("strokes");
  });

  // After a conflict: forget what was not saved and go on with the version that is on the disk now.
  resolve(name, version) {
    this.waiting.delete(name);
    this.stopped.delete(name);
    this.versions.set(name, version);
  }

  async settled() { while (this.busy) await this.busy; }
}

export const saver = new Saver();
