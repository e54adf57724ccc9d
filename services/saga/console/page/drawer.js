// One workflow: facts, its conversations on a line of time, its execution graph, its steps and decisions.

import { el, sized } from "./dom.js";
import { told } from "./decisions.js";
import { dueWords } from "./lanes.js";
import { axis, steps } from "./marks.js";
import { STATES, CAUSES, count, duration, percent, place } from "./words.js";
import { why } from "./why.js";
import { read } from "./wire.js";

const LANE = 26;
const AGAIN_MS = 1000;
const DRAWINGS = { class: "what its class does", steps: "what it did", declared: "as declared" };

export class Drawer {
  constructor(view) {
    this.view = view;
    this.root = document.getElementById("drawer");
    this.flow = null;
  }

  async open(flow) {
    if (this.flow === null) this.before = document.activeElement;
    this.flow = flow;
    this.which = null;
    this.drawingOf = null;
    this.asked = null;
    this.root.replaceChildren(this.frame(flow));
    this.root.hidden = false;
    this.root.querySelector(".close").focus({ preventScroll: true });
    await this.ask();
  }

  close() {
    if (this.flow === null) return;
    this.flow = null;
    clearTimeout(this.timer);
    this.root.hidden = true;
    this.before?.focus?.({ preventScroll: true });
  }

  frame(flow) {
    this.parts = {
      sub: el("p", { class: "sub" }), facts: el("dl", { class: "facts" }), canvas: el("canvas"),
      chips: el("div", { class: "chips", role: "group", "aria-label": "Which graph" }), drawing: el("div", { class: "drawing" }),
      steps: el("tbody"), decisions: el("ol", { class: "scroll" }), decisionsTitle: el("h3", {}, "Decisions"),
    };
    const heads = ["", "worker", "why there", "waited", "prompt", "cached", "out", "took", "tools"];
    const right = new Set(["waited", "prompt", "cached", "out", "took"]);
    const page = document.createDocumentFragment();
    page.append(
      el("header", {}, el("div", {}, el("h2", { id: "drawer-title" }, flow.name), this.parts.sub),
        el("button", { class: "close", type: "button", "aria-label": "Close (Esc)", onclick: () => this.close() }, "Close ", el("kbd", {}, "esc"))),
      this.parts.facts,
      el("h3", {}, "Conversations"), this.parts.canvas,
      el("h3", {}, "Execution graph "), this.parts.chips, this.parts.drawing,
      this.parts.decisionsTitle, el("div", { class: "decisions" }, this.parts.decisions),
      el("h3", {}, "Steps, newest first: a click tells why"),
      el("table", { class: "steps" }, el("thead", {}, el("tr", {}, ...heads.map((head) => el("th", right.has(head) ? { class: "n" } : {}, head)))), this.parts.steps),
    );
    return page;
  }

  /** Asks for everything about it, again each second while it is open. */
  async ask() {
    clearTimeout(this.timer);
    const flow = this.flow;
    if (flow === null) return;
    if (this.view.stream.state !== "paused" || !this.answer || this.answer.root !== flow.root) {
      try {
        const answer = await fetch(`/api/workflow?root=${encodeURIComponent(flow.root)}`);
        const body = await answer.json();
        if (flow !== this.flow) return;
        if (answer.ok) this.show(flow, body);
        else this.parts.sub.textContent = body.error;
      } catch {
        if (flow === this.flow) this.parts.sub.textContent = "The console does not answer.";
      }
    }
    this.timer = setTimeout(() => this.ask(), AGAIN_MS);
  }

  show(flow, body) {
    this.answer = { root: flow.root };
    const now = body.now_s;
    const row = read.workflows(body.workflow);
    this.parts.sub.textContent = `${row.tenant} · ${STATES[row.state]}${row.agent_class ? ` · class ${row.agent_class.slice(0, 12)}` : ""}`;
    const due = row.deadline_s ? dueWords(row, now) : "none";
    const late = row.deadline_s && row.submitted_s + row.deadline_s < now;
    const risk = row.deadline_s && !late && row.submitted_s + row.deadline_s - now < row.remaining_s;
    const kv = [];
    for (let at = 0; at < row.kv.length; at += 3) kv.push(`${count(row.kv[at + 1])} on ${row.kv[at]}`);
    const facts = [
      ["age", duration(now - row.submitted_s)], ["steps", count(row.steps)],
      ["sessions", String(row.sessions)], ["KV tokens", kv.join(", ") || "none"],
      ["prompts cached", row.prompt_tokens ? percent(row.cached_tokens / row.prompt_tokens) : "–"],
      ["tokens generated", count(row.output_tokens)], ["work done", duration(row.engine_s)],
      ["work forecast", row.remaining_s ? duration(row.remaining_s) : "–"],
      ["deadline", due, late ? "alarm" : risk ? "signal" : ""],
      ["next step", row.back_s > now ? `in about ${duration(row.back_s - now)}` : row.state === "gap" ? "any moment" : "–"],
    ];
    if (body.follows && body.follows !== "undeclared") facts.push(["follows its graph", body.follows]);
    this.parts.facts.replaceChildren(...facts.map(([name, value, look]) => el("div", {}, el("dt", {}, name), el("dd", { class: look || undefined }, value))));
    this.lanes(row, body);
    this.table(body.steps.map((row, n) => ({ ...read.steps(row), id: body.step_ids[n] })));
    const rows = body.decisions.map(read.decisions).reverse().slice(0, 12);
    this.parts.decisionsTitle.hidden = rows.length === 0;
    this.parts.decisions.replaceChildren(...told(rows, now));
    this.drawings(body);
  }

  lanes(row, body) {
    const list = body.steps.map(read.steps);
    const sessions = body.sessions.slice(0, 12);
    const width = this.parts.canvas.parentElement.clientWidth - 44;
    const height = 24 + sessions.length * LANE + 4;
    const draw = sized(this.parts.canvas, width, height);
    const { colours } = this.view;
    const now = body.now_s;
    const span = Math.max(20, Math.min(600, now - Math.min(...list.map((step) => step.ready_s), now)) * 1.04);
    const left = 120;
    const nowX = width - 34;
    const at = (t) => nowX - ((now - t) * (nowX - left)) / span;
    draw.font = `10px ${colours.font}`;
    axis(draw, colours, { at, left, right: width, top: 24, bottom: height, now, span, offset: this.view.wallOffset, label: this.view.timeLabel });
    sessions.forEach((session, n) => {
      const y = 24 + n * LANE + LANE / 2;
      draw.font = `12px ${colours.font}`;
      draw.fillStyle = colours.dim;
      const name = session.name.slice(session.name.lastIndexOf("/") + 1);
      draw.fillText(`${session.parent ? "└ " : ""}${name.length > 16 ? `${name.slice(0, 15)}…` : name}`, 0, y + 4);
      draw.font = `10px ${colours.font}`;
      steps(draw, colours, list.filter((step) => step.session === session.number),
        { at, left, right: width, now, y, height: 15, state: session.parent && !session.kept ? "closed" : row.state, back_s: session.parent ? -1 : row.back_s });
    });
  }

  table(list) {
    const rows = list.sort((a, b) => b.number - a.number).slice(0, 16).map((step) => {
      const waited = step.start_s - step.ready_s;
      const over = step.end_s >= 0 && step.start_s >= 0;
      const cells = [
        ["", step.phase === "finished" ? `${step.session ? `sub ${step.session}` : ""}` : step.phase],
        ["", step.moved_from ? `${step.moved_from} → ${step.worker}` : step.worker],
        ["why", step.reason ? place(step.reason) : ""],
        ["n", step.start_s >= 0 && waited > 0.05 ? duration(waited) : "", CAUSES[step.cause]],
        ["n", count(step.prompt_tokens)], ["n", step.prompt_tokens ? percent(step.cached_tokens / step.prompt_tokens) : ""],
        ["n", count(step.output_tokens)], ["n", over ? duration(step.end_s - step.start_s) : ""], ["", step.tools.join(", ")],
      ];
      const open = step.id === this.asked?.id;
      const row = el("tr", { class: "step", tabindex: "0", "aria-expanded": String(open), title: "Why?", onclick: () => this.why(step.id),
        onkeydown: (event) => event.key === "Enter" && this.why(step.id) }, ...cells.map(([look, text, title]) => el("td", { class: look || undefined, title }, text)));
      return open ? [row, el("tr", {}, el("td", { colspan: cells.length }, this.asked.box))] : [row];
    });
    const held = [...this.parts.steps.children].indexOf(document.activeElement);
    this.parts.steps.replaceChildren(...rows.flat());
    if (held >= 0) this.parts.steps.children[held]?.focus({ preventScroll: true });
  }

  /** Opens what is known of a step, or closes it. */
  async why(id) {
    this.asked = this.asked?.id === id ? null : { id, box: el("div", { class: "whybox" }, "…") };
    if (this.asked) this.asked.box = await why(id);
    this.ask();
  }

  drawings(body) {
    const there = body.drawings;
    if (this.which === null || !there.includes(this.which)) this.which = there.includes("declared") ? "declared" : there[0] ?? null;
    this.parts.chips.hidden = there.length < 2;
    this.parts.chips.replaceChildren(...there.map((name) => el("button", { type: "button", "aria-pressed": String(name === this.which),
      onclick: () => { this.which = name; this.drawingOf = null; this.drawings(body); } }, DRAWINGS[name])));
    if (this.which === null) {
      this.parts.drawing.replaceChildren(el("p", {}, body.no_graph || "Nothing is known of it yet."));
      return;
    }
    const key = `${this.which} ${this.which === "class" ? Math.floor(body.now_s / 10) : body.steps.length}`;
    if (key !== this.drawingOf) {
      this.drawingOf = key;
      this.graph();
    }
  }

  async graph() {
    const flow = this.flow;
    const which = this.which;
    const answer = await fetch(`/api/workflow/graph.svg?root=${encodeURIComponent(flow.root)}&of=${which}`);
    const text = await answer.text();
    if (flow !== this.flow || which !== this.which) return;
    if (answer.status !== 200) {
      this.drawingOf = null; // perhaps in a second
      this.parts.drawing.replaceChildren(el("p", {}, answer.ok ? "Nothing is learnt of it yet." : JSON.parse(text).error));
      return;
    }
    if (text === this.drawn && this.parts.drawing.firstElementChild?.matches("svg")) return;
    this.drawn = text;
    const drawn = new DOMParser().parseFromString(text, "image/svg+xml").documentElement;
    this.parts.drawing.replaceChildren(document.importNode(drawn, true));
  }
}
