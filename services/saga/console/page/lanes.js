// Workflows as swim lanes on one canvas: only the rows in sight are drawn, however many there are.

import { hideTip, setText, showTip, sized } from "./dom.js";
import { axis, steps } from "./marks.js";
import { ordered } from "./query.js";
import { CAUSES, STATES, count, duration, percent, place } from "./words.js";

const ROW = 22;
const HEAD = 26; // the axis
const NAMES = 216; // width of the names, on wide screens
const AHEAD = 0.07; // share of the width that is the future
const STEP = 13; // height of a step

export class Lanes {
  constructor(view) {
    this.view = view;
    this.box = document.getElementById("lanes");
    this.canvas = this.box.querySelector("canvas");
    this.tall = this.box.querySelector(".tall");
    this.rows = [];
    this.drawnAt = 0;
    new ResizeObserver(() => { this.measure(); view.touch("lanes"); }).observe(this.box);
    this.box.addEventListener("scroll", () => view.touch("lanes"), { passive: true });
    this.box.addEventListener("mousemove", (event) => this.hover(event));
    this.box.addEventListener("mouseleave", () => { hideTip(); view.point(null); });
    this.box.addEventListener("click", (event) => {
      const flow = this.at(event);
      if (flow) { view.choose(flow); view.open(flow); }
    });
    this.measure();
  }

  measure() {
    this.width = this.box.clientWidth;
    this.height = this.box.clientHeight;
    this.names = this.width < 640 ? 128 : NAMES;
  }

  /** The order of rows; at most once a second unless what is asked for has changed. */
  arrange(force) {
    const { store, group, text } = this.view;
    const now = performance.now();
    const key = `${group}\n${text}`;
    if (!force && key === this.key && (store.version === this.version || now - this.arrangedAt < 1000)) return;
    this.key = key;
    this.version = store.version;
    this.arrangedAt = now;
    this.rows = ordered(store.flows.values(), group, text);
    this.tall.style.height = `${Math.max(0, HEAD + this.rows.length * ROW + 8 - this.height)}px`;
    const empty = document.getElementById("empty");
    empty.hidden = this.rows.length > 0 || !store.totals;
    setText(empty, store.flows.size ? "No workflow matches." : "No workflow yet: send a request through the gateway.");
  }

  /** Whether time has gone on by enough to be seen. */
  due(clock) {
    return (clock - this.drawnAt) * this.scale() >= 0.5;
  }

  /** Milliseconds until then. */
  dueMs() {
    return Math.min(1000, Math.max(30, 500 / this.scale()));
  }

  /** Pixels a second. */
  scale() {
    return ((this.width - this.names) * (1 - AHEAD)) / this.view.span;
  }

  draw(clock) {
    this.arrange(false);
    this.drawnAt = clock;
    const { colours, span } = this.view;
    const { width, height, names } = this;
    const draw = sized(this.canvas, width, height);
    const scroll = this.box.scrollTop;
    const nowX = width - (width - names) * AHEAD;
    const at = (t) => nowX - (clock - t) * this.scale();
    draw.font = `10px ${colours.font}`;
    axis(draw, colours, { at, left: names, right: width, top: HEAD, bottom: height, now: clock, span, offset: this.view.wallOffset, label: this.view.timeLabel });
    const first = Math.max(0, Math.floor(scroll / ROW));
    const last = Math.min(this.rows.length, Math.ceil((scroll + height - HEAD) / ROW));
    draw.save();
    draw.beginPath();
    draw.rect(0, HEAD, width, height - HEAD);
    draw.clip();
    for (let n = first; n < last; n += 1) this.row(draw, this.rows[n], HEAD + n * ROW - scroll, { at, clock, right: width });
    draw.restore();
  }

  row(draw, flow, top, { at, clock, right }) {
    const { colours, chosen, pointed } = this.view;
    if (flow === chosen || flow === pointed) {
      draw.fillStyle = flow === chosen ? colours.accent4 : colours.sunken;
      draw.fillRect(0, top, right, ROW);
    }
    const y = top + ROW / 2;
    this.name(draw, flow, y);
    const common = { at, left: this.names, right, now: clock, state: flow.state, back_s: flow.back_s };
    draw.font = `10px ${colours.font}`;
    if (flow.sessions < 2) {
      steps(draw, colours, flow.list, { ...common, y, height: STEP });
      return;
    }
    // Its own conversation above, all its sub-agents below.
    const high = (STEP + 2) / 2;
    steps(draw, colours, flow.list.filter((step) => step.session === 0), { ...common, y: y - high / 2 - 0.5, height: high - 0.5 });
    steps(draw, colours, flow.list.filter((step) => step.session > 0), { ...common, y: y + high / 2 + 0.5, height: high - 0.5, state: "closed", back_s: -1 });
  }

  name(draw, flow, y) {
    const { colours } = this.view;
    const fills = { running: colours.accent1, gap: colours.accent3, queued: colours.signal };
    draw.beginPath();
    draw.arc(17, y, 3, 0, 2 * Math.PI);
    if (fills[flow.state]) {
      draw.fillStyle = fills[flow.state];
      draw.fill();
    } else {
      draw.strokeStyle = colours.faint;
      draw.lineWidth = 1;
      draw.stroke();
    }
    draw.font = `12px ${colours.font}`;
    draw.fillStyle = flow.state === "dormant" || flow.state === "closed" ? colours.dim : colours.text;
    const room = this.names - 36;
    if (flow.fitted?.room !== room) flow.fitted = fit(draw, flow, room);
    draw.fillText(flow.fitted.name, 28, y + 4);
    draw.fillStyle = colours.faint;
    draw.fillText(flow.fitted.tenant, 28 + flow.fitted.at, y + 4);
  }

  // --- pointing and choosing ---

  at(event) {
    const y = event.clientY - this.box.getBoundingClientRect().top;
    return y < HEAD ? undefined : this.rows[Math.floor((y - HEAD + this.box.scrollTop) / ROW)];
  }

  hover(event) {
    const flow = this.at(event);
    this.view.point(flow ?? null);
    if (!flow) { hideTip(); return; }
    const x = event.clientX - this.box.getBoundingClientRect().left;
    const nowX = this.width - (this.width - this.names) * AHEAD;
    const t = this.view.clock() - (nowX - x) / this.scale();
    const step = x > this.names ? flow.list.findLast((s) => s.ready_s <= t && (s.end_s < 0 && s.phase !== "finished" || s.end_s >= t)) : undefined;
    showTip(step ? about(step) : summary(flow, this.view.clock()), event.clientX, event.clientY);
  }

  /** The next or last row, in sight. */
  move(by) {
    if (!this.rows.length) return;
    const now = this.rows.indexOf(this.view.chosen);
    const next = now < 0 ? (by > 0 ? 0 : this.rows.length - 1) : Math.max(0, Math.min(this.rows.length - 1, now + by));
    this.view.choose(this.rows[next]);
    const top = next * ROW;
    const seen = this.height - HEAD;
    if (top < this.box.scrollTop) this.box.scrollTop = top;
    else if (top + ROW > this.box.scrollTop + seen) this.box.scrollTop = top + ROW - seen + 4;
    setText(document.getElementById("chosen"), summary(this.rows[next], this.view.clock()));
  }
}

/** A name and its tenant, cut to what there is room for. */
function fit(draw, flow, room) {
  const short = (text, most) => {
    if (draw.measureText(text).width <= most) return text;
    let cut = text.length - 1;
    while (cut > 1 && draw.measureText(`${text.slice(0, cut)}…`).width > most) cut -= 1;
    return `${text.slice(0, cut)}…`;
  };
  const name = short(flow.name, room);
  const at = draw.measureText(name).width + 7;
  return { room, name, at, tenant: room - at > 24 ? short(flow.tenant, room - at) : "" };
}

function summary(flow, now) {
  const due = flow.deadline_s ? `\ndeadline ${dueWords(flow, now)}` : "";
  return `${flow.root}\n${STATES[flow.state]}, ${duration(now - flow.submitted_s)} old, ${count(flow.steps)} steps` +
    (flow.prompt_tokens ? `, ${percent(flow.cached_tokens / flow.prompt_tokens)} of prompts cached` : "") + due;
}

export function dueWords(flow, now) {
  const left = flow.submitted_s + flow.deadline_s - now;
  return left >= 0 ? `in ${duration(left)}` : `missed ${duration(-left)} ago`;
}

function about(step) {
  const lines = [`${step.phase}${step.worker ? ` on ${step.worker}` : ""}${step.reason ? `: ${place(step.reason)}` : ""}`];
  if (step.moved_from) lines.push(`moved from ${step.moved_from}`);
  if (step.start_s - step.ready_s > 0.2) lines.push(`waited ${duration(step.start_s - step.ready_s)}: ${CAUSES[step.cause] ?? step.cause}`);
  if (step.phase === "waiting") lines.push("waits outside the active set");
  lines.push(`${count(step.prompt_tokens)} prompt tokens, ${count(step.cached_tokens)} cached, ${count(step.output_tokens)} generated`);
  if (step.end_s >= 0 && step.start_s >= 0) lines.push(`took ${duration(step.end_s - step.start_s)}${step.first_token_s >= 0 ? `, first token after ${duration(step.first_token_s)}` : ""}`);
  if (step.tools.length) lines.push(`calls ${step.tools.join(", ")}`);
  return lines.join("\n");
}
