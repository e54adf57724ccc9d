// The page: joins the stream, the store and the panels, and decides what is drawn when.

import { Cluster } from "./cluster.js";
import { Decisions } from "./decisions.js";
import { el, palette, setText } from "./dom.js";
import { Drawer } from "./drawer.js";
import { Keys } from "./keys.js";
import { Lanes } from "./lanes.js";
import { GROUPS, matcher } from "./query.js";
import { Store } from "./store.js";
import { Stream } from "./stream.js";
import { Tenants } from "./tenants.js";
import { count, percent } from "./words.js";

const SPANS = [[60, "1 min"], [180, "3 min"], [600, "10 min"]];
const GROUP_NAMES = Object.keys(GROUPS);
const PANELS = { cluster: 450, decisions: 450, tenants: 900, totals: 900 }; // drawn again after so many ms at the earliest
const KEPT_THEME = "saga-console-theme";

class View {
  constructor() {
    this.store = new Store();
    this.group = "all";
    this.text = "";
    this.span = SPANS[1][0];
    this.chosen = null; // by keyboard or click
    this.pointed = null; // by the mouse
    this.wallOffset = 0;
    this.frozenAt = null;
    this.dirty = new Set();
    this.drawnMs = Object.fromEntries(Object.keys(PANELS).map((panel) => [panel, 0]));
    this.asked = false; // for a picture
    this.timeLabel = (t) => new Date((t + this.wallOffset) * 1000).toTimeString().slice(0, 8);
    this.setTheme(localStorage.getItem(KEPT_THEME) ?? (matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light"));
    this.cluster = new Cluster(this);
    this.tenants = new Tenants(this);
    this.decisions = new Decisions(this);
    this.lanes = new Lanes(this);
    this.drawer = new Drawer(this);
    this.stream = new Stream(this.store, (touched, whole) => this.heard(touched, whole), (state) => this.said(state));
    this.keys = new Keys(this);
    this.controls();
    this.stream.open();
  }

  // --- frames ---

  heard(touched, whole) {
    if (whole) {
      this.wallOffset = Date.now() / 1000 - this.store.now_s;
      setText(document.getElementById("cell"), `cell ${this.store.cell}`);
      if (this.chosen && !this.store.flows.has(this.chosen.number)) this.chosen = null;
      for (const panel of Object.keys(PANELS)) touched.add(panel);
      this.lanes.arrange(true);
    }
    for (const panel of touched) this.dirty.add(panel);
    this.wake();
  }

  /** What somebody did has to be seen at once. */
  touch(panel) {
    this.dirty.add(panel);
    if (panel in PANELS) this.drawnMs[panel] = 0;
    this.wake();
  }

  wake() {
    if (this.asked) return;
    this.asked = true;
    clearTimeout(this.timer);
    requestAnimationFrame(() => this.frame());
  }

  /**
   * One picture of the browser: the lanes when data or time has moved them, else one other panel, so that no picture
   * has much to do. Then sleep until the next thing is due.
   */
  frame() {
    this.asked = false;
    const now = performance.now();
    const clock = this.clock();
    if (this.lanes.due(clock) || this.dirty.has("lanes")) {
      this.dirty.delete("lanes");
      this.lanes.draw(clock);
    } else {
      const panel = this.due(now);
      if (panel) {
        this.dirty.delete(panel);
        this.drawnMs[panel] = now;
        if (panel === "totals") this.totals();
        else this[panel].draw();
      }
    }
    if (this.due(now)) this.wake();
    else this.timer = setTimeout(() => this.wake(), this.frozenAt === null ? this.lanes.dueMs() : 1000);
  }

  /** A panel that has changed and was not drawn just now. */
  due(now) {
    for (const panel of this.dirty) if (panel in PANELS && now - this.drawnMs[panel] >= PANELS[panel]) return panel;
    return undefined;
  }

  clock() {
    return this.frozenAt ?? this.store.clock();
  }

  totals() {
    const totals = this.store.totals;
    if (!totals) return;
    const pressure = totals.kv_tokens ? totals.context_tokens / totals.kv_tokens : 0;
    const figures = [
      ["workers", `${totals.workers_up}`, totals.workers_up < totals.workers ? `/${totals.workers}` : "", totals.workers_up < totals.workers],
      ["active", count(totals.running + totals.gap), ""],
      ["queued", count(totals.queued), "", totals.queued > 0],
      ["steps/s", totals.steps_per_s.toFixed(totals.steps_per_s < 100 ? 1 : 0), ""],
      ["tokens/s", count(totals.output_tokens_per_s), "", false, true],
      ["prompts cached", percent(totals.cached_share), ""],
      ["KV pressure", pressure.toFixed(2), "", pressure > 1],
    ];
    const root = document.getElementById("figures");
    if (!root.childElementCount) {
      root.append(...figures.map(([name, , , , extra]) => el("div", { class: extra ? "extra" : undefined }, el("dt", {}, name), el("dd", {}, el("span"), el("small")))));
    }
    figures.forEach(([, value, small, signal], at) => {
      const box = root.children[at];
      setText(box.querySelector("span"), value);
      setText(box.querySelector("small"), small);
      box.classList.toggle("signal", Boolean(signal));
    });
    const sums = { all: totals.running + totals.gap + totals.queued + totals.dormant, active: totals.running + totals.gap, queued: totals.queued, dormant: totals.dormant };
    document.querySelectorAll("#states button").forEach((button, at) => {
      const n = sums[GROUP_NAMES[at]];
      setText(button.querySelector("b"), n === undefined ? "" : count(n));
    });
    this.decisions.sums();
  }

  // --- what people do ---

  controls() {
    const group = document.getElementById("states");
    GROUP_NAMES.forEach((name, at) => group.append(el("button", { type: "button", onclick: () => this.show(at) }, `${name[0].toUpperCase()}${name.slice(1)} `, el("b"))));
    const spans = document.getElementById("spans");
    SPANS.forEach(([span, name]) => spans.append(el("button", { type: "button", onclick: () => this.look(span) }, name)));
    this.show(0);
    this.look(this.span);
    const input = document.getElementById("search");
    input.addEventListener("input", () => this.search(input.value, false));
    document.getElementById("pause").addEventListener("click", () => this.pause());
    document.getElementById("theme").addEventListener("click", () => this.theme());
    document.addEventListener("visibilitychange", () => {
      if (document.hidden) this.stream.close();
      else if (this.stream.state !== "paused") this.stream.open();
    });
  }

  show(at) {
    this.group = GROUP_NAMES[at];
    document.querySelectorAll("#states button").forEach((button, n) => button.setAttribute("aria-pressed", String(n === at)));
    this.lanes.box.scrollTop = 0;
    this.touch("lanes");
  }

  look(span) {
    this.span = span;
    document.querySelectorAll("#spans button").forEach((button, n) => button.setAttribute("aria-pressed", String(SPANS[n][0] === span)));
    this.touch("lanes");
  }

  zoom(by) {
    const at = SPANS.findIndex(([span]) => span === this.span) + by;
    if (SPANS[at]) this.look(SPANS[at][0]);
  }

  search(text, type = true) {
    this.text = text;
    this.matches = text ? matcher(text) : null;
    if (type) document.getElementById("search").value = text;
    this.lanes.box.scrollTop = 0;
    this.dirty.add("decisions"); // soon, not at each letter
    this.touch("lanes");
  }

  /** Whether a decision is about what is searched for. */
  shows(row) {
    if (!this.matches) return true;
    const flow = this.store.flows.get(row.workflow);
    return flow ? this.matches(flow) : row.name.toLowerCase().includes(this.text.toLowerCase());
  }

  choose(flow) {
    this.chosen = flow;
    this.touch("lanes");
    this.touch("cluster");
  }

  point(flow) {
    if (flow === this.pointed) return;
    this.pointed = flow;
    this.dirty.add("cluster"); // soon, not at each move
    this.touch("lanes");
  }

  open(flow) {
    this.choose(flow);
    this.drawer.open(flow);
  }

  openRow(row) {
    const flow = this.store.flows.get(row.workflow);
    if (flow) this.open(flow);
    else if (row.worker) this.search(`worker:${row.worker}`);
  }

  pause() {
    const paused = this.frozenAt === null;
    const button = document.getElementById("pause");
    button.setAttribute("aria-pressed", String(paused));
    setText(button.querySelector("span"), paused ? "Go on" : "Pause");
    if (paused) {
      this.frozenAt = this.store.clock();
      this.stream.pause();
    } else {
      this.frozenAt = null;
      this.stream.open();
    }
    this.touch("lanes");
  }

  said(state) {
    const live = document.getElementById("live");
    live.className = `live ${{ live: "on", away: "away", paused: "paused" }[state] ?? ""}`;
    setText(live.lastElementChild, { live: "live", away: "the console does not answer", paused: "paused" }[state] ?? state);
  }

  theme() {
    const next = document.documentElement.dataset.theme === "dark" ? "light" : "dark";
    localStorage.setItem(KEPT_THEME, next);
    this.setTheme(next);
    this.touch("lanes");
    this.touch("cluster");
  }

  setTheme(name) {
    document.documentElement.dataset.theme = name;
    this.colours = palette();
  }
}

window.saga = new View();
