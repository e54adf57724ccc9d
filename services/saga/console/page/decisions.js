// Decisions with their reasons, newest first; above them how often each reason was given in the last minute.

import { el, setText } from "./dom.js";
import { CAUSES, decision, duration, percent, place } from "./words.js";

const SHOWN = 60;
const TOGETHER = 3; // so many alike at once become one line

export class Decisions {
  constructor(view) {
    this.view = view;
    this.root = document.getElementById("decisions");
    this.reasons = document.getElementById("reasons");
    this.last = 0;
  }

  draw() {
    const { store, text } = this.view;
    const rows = store.decisions;
    if (text !== this.text || store.boot !== this.boot) {
      this.text = text;
      this.boot = store.boot;
      this.last = 0;
      this.root.replaceChildren();
    }
    const fresh = [];
    for (let at = rows.length - 1; at >= 0 && rows[at].number > this.last && fresh.length < SHOWN; at -= 1) {
      if (this.view.shows(rows[at])) fresh.push(rows[at]);
    }
    const first = this.last === 0; // then there is time to read each
    this.last = rows.at(-1)?.number ?? this.last;
    if (fresh.length) this.root.prepend(...(first ? fresh.map((row) => this.line(row)) : this.lines(fresh)));
    while (this.root.childElementCount > SHOWN) this.root.lastElementChild.remove();
  }

  /** Newest first; many of the same kind and reason in one line. */
  lines(fresh) {
    const alike = new Map();
    for (const row of fresh) {
      const key = `${row.kind} ${row.reason}`;
      if (!alike.has(key)) alike.set(key, []);
      alike.get(key).push(row);
    }
    return [...alike.values()].flatMap((rows) => (rows.length < TOGETHER ? rows.map((row) => this.line(row)) : [this.line(rows[0], rows.length)]));
  }

  sums() {
    const totals = this.view.store.totals;
    if (!totals) return;
    const grants = Object.entries(totals.grants).sort((a, b) => b[1] - a[1]);
    const sum = grants.reduce((all, [, n]) => all + n, 0);
    setText(this.reasons, grants.slice(0, 3).map(([reason, n]) => `${reason.replaceAll("_", " ")} ${percent(n / sum)}`).join(" · "));
    const waits = Object.entries(totals.waits).filter(([cause]) => cause !== "none");
    this.reasons.title = "Of the last minute's grants\n" + grants.map(([reason, n]) => `${n}: ${place(reason)}`).join("\n") +
      (waits.length ? "\nwaits\n" + waits.map(([cause, n]) => `${n}: ${CAUSES[cause] ?? cause}`).join("\n") : "");
  }

  line(row, together = 1) {
    const { what, why, look } = decision(row, together > 1);
    const flow = this.view.store.flows.get(row.workflow);
    const name = together > 1 ? `${together} workflows` : flow?.name ?? row.name.slice(row.name.indexOf("/") + 1);
    const at = new Date((row.at_s + this.view.wallOffset) * 1000);
    return el("li", { class: look, onclick: () => this.view.openRow(row) },
      el("time", { datetime: at.toISOString(), title: at.toLocaleString() }, at.toTimeString().slice(3, 8)),
      el("span", { class: "who" }, el("b", {}, name), " ", el("span", {}, what)),
      el("span", { class: "why" }, why));
  }
}

/** The same lines for one workflow. */
export function told(rows, now_s) {
  return rows.map((row) => {
    const { what, why, look } = decision(row);
    return el("li", { class: look }, el("time", {}, `-${duration(Math.max(0, now_s - row.at_s))}`),
      el("span", { class: "who" }, el("span", {}, what)), el("span", { class: "why" }, why));
  });
}
