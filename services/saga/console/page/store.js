// What the page knows, kept up to date by frames. Bounded: so many steps a workflow, so many decisions.

import { read } from "./wire.js";

const STEPS_KEPT = 240; // of a workflow
const DECISIONS_KEPT = 400;
const SHOWN_S = 1000; // steps that ended longer ago leave
const OVER = new Set(["finished", "cancelled", "failed"]);

export class Store {
  constructor() {
    this.clear();
    this.now_s = 0;
    this.cell = "";
    this.boot = "";
    this.heardMs = 0; // when now_s was told, on the page's clock
  }

  clear() {
    this.workers = new Map(); // id to row
    this.flows = new Map(); // number to row, with its steps and what the page makes of them
    this.tenants = [];
    this.totals = null;
    this.decisions = []; // newest last
    this.leftOut = 0;
    this.version = 0; // grows when flows come, go or change their state
  }

  /** Seconds on the console's clock, now. */
  clock() {
    return this.now_s + (performance.now() - this.heardMs) / 1000;
  }

  /** Takes a frame; says which panels it touches. */
  apply(frame, boot) {
    const touched = new Set();
    if (frame.whole) {
      if (boot !== this.boot) this.clear();
      this.boot = boot;
      this.cell = frame.cell;
      this.prune(frame);
    }
    this.now_s = frame.now_s;
    this.heardMs = performance.now();
    for (const row of frame.workers ?? []) {
      this.workers.set(row[0], read.workers(row));
      touched.add("cluster");
    }
    for (const id of frame.workers_gone ?? []) {
      this.workers.delete(id);
      touched.add("cluster");
    }
    for (const row of frame.workflows ?? []) this.flow(row);
    for (const number of frame.workflows_gone ?? []) {
      this.flows.delete(number);
      this.version += 1;
    }
    for (const row of frame.steps ?? []) this.step(row);
    if (frame.workflows || frame.steps || frame.workflows_gone) touched.add("cluster").add("lanes");
    if (frame.decisions) {
      this.decide(frame.decisions, frame.decisions_left_out ?? 0);
      touched.add("decisions");
    }
    if (frame.tenants) {
      this.tenants = frame.tenants.map(read.tenants);
      touched.add("tenants");
    }
    if (frame.totals) {
      this.totals = frame.totals;
      touched.add("totals");
    }
    return touched;
  }

  /** After a pause: what is not in the whole any more is gone. */
  prune(frame) {
    const workers = new Set((frame.workers ?? []).map((row) => row[0]));
    for (const id of this.workers.keys()) if (!workers.has(id)) this.workers.delete(id);
    const numbers = new Set((frame.workflows ?? []).map((row) => row[0]));
    for (const number of this.flows.keys()) if (!numbers.has(number)) this.flows.delete(number);
    const live = new Set((frame.steps ?? []).map((row) => row[1]));
    for (const flow of this.flows.values()) {
      flow.list = flow.list.filter((step) => OVER.has(step.phase) || live.has(step.number));
    }
    this.version += 1;
  }

  flow(row) {
    const told = read.workflows(row);
    const known = this.flows.get(told.number);
    if (!known || known.state !== told.state) this.version += 1;
    if (known) {
      Object.assign(known, told);
      return;
    }
    const at = told.root.indexOf("/");
    told.name = at < 0 ? told.root : told.root.slice(at + 1);
    told.haystack = told.root.toLowerCase();
    told.list = []; // its steps, oldest first
    this.flows.set(told.number, told);
  }

  step(row) {
    const flow = this.flows.get(row[0]);
    if (!flow) return;
    const step = read.steps(row);
    const list = flow.list;
    let at = list.length - 1;
    while (at >= 0 && list[at].number > step.number) at -= 1;
    if (at >= 0 && list[at].number === step.number) list[at] = step;
    else list.splice(at + 1, 0, step);
    const past = this.now_s - SHOWN_S;
    let drop = Math.max(0, list.length - STEPS_KEPT);
    while (drop < list.length && OVER.has(list[drop].phase) && list[drop].end_s < past) drop += 1;
    if (drop) list.splice(0, drop);
  }

  decide(rows, leftOut) {
    const last = this.decisions.at(-1)?.number ?? 0;
    for (const row of rows) if (row[0] > last) this.decisions.push(read.decisions(row));
    if (this.decisions.length > DECISIONS_KEPT) this.decisions.splice(0, this.decisions.length - DECISIONS_KEPT);
    this.leftOut += leftOut;
  }

  /** KV by worker: of each the workflows with tokens there, the oldest first; and steps that wait for its slots. */
  byWorker() {
    const held = new Map();
    for (const id of this.workers.keys()) held.set(id, { parts: [], tokens: 0, queued: 0 });
    for (const flow of this.flows.values()) {
      const kv = flow.kv;
      for (let at = 0; at < kv.length; at += 3) {
        const here = held.get(kv[at]);
        if (!here) continue;
        here.parts.push({ flow, tokens: kv[at + 1], running: kv[at + 2] === 1 });
        here.tokens += kv[at + 1];
      }
      for (let at = flow.list.length - 1; at >= 0 && !OVER.has(flow.list[at].phase); at -= 1) {
        if (flow.list[at].phase === "queued" && held.has(flow.list[at].worker)) held.get(flow.list[at].worker).queued += 1;
      }
    }
    for (const here of held.values()) here.parts.sort((a, b) => a.flow.number - b.flow.number);
    return held;
  }
}
