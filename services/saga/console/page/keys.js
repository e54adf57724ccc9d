// The keyboard, and the page that explains it.

import { el } from "./dom.js";

const KEYS = [
  ["/", "search: a name, or tenant:acme worker:w1 class:coder"], ["↓ ↑ or j k", "next, last workflow"],
  ["Enter", "open it"], ["Esc", "close; empty the search"], ["Space", "pause, go on"],
  ["1 to 5", "all, active, queued, dormant, closed"], ["+ −", "less, more time"], ["t", "light or dark"], ["?", "this"],
];

export class Keys {
  constructor(view) {
    this.view = view;
    this.dialog = document.getElementById("keys");
    document.getElementById("help").addEventListener("click", () => this.help());
    document.addEventListener("keydown", (event) => this.pressed(event));
  }

  help() {
    if (this.dialog.open) { this.dialog.close(); return; }
    this.dialog.replaceChildren(
      el("h2", { id: "keys-title" }, "Keys"),
      el("dl", {}, ...KEYS.flatMap(([key, what]) => [el("dt", {}, key), el("dd", {}, what)])),
      el("p", {}, "A worker's bar is its KV pool, filled by the contexts at home there: dark where a step runs, light where KV is kept for a return. The thin line below is its batch against the most it runs."),
      el("p", {}, "In a lane: prefill dark, decode lighter, a thin line for a gap, dots once a workflow is outside the active set, amber for a wait, a triangle for a move, a diamond for a steal, a ring where the next step is expected."),
      el("button", { type: "button", onclick: () => this.dialog.close() }, "Close"));
    this.dialog.showModal();
  }

  pressed(event) {
    const { view } = this;
    if (event.ctrlKey || event.metaKey || event.altKey || this.dialog.open) return;
    const typing = event.target.matches("input");
    if (event.key === "Escape") {
      if (!view.drawer.root.hidden) view.drawer.close();
      else if (view.text) view.search("");
      else if (typing) event.target.blur();
      return;
    }
    if (typing) {
      if (event.key === "Enter" || event.key === "ArrowDown") {
        event.preventDefault();
        document.getElementById("lanes").focus({ preventScroll: true });
        if (!view.lanes.rows.includes(view.chosen)) view.lanes.move(1);
        if (event.key === "Enter" && view.chosen) view.open(view.chosen);
      }
      return;
    }
    const acts = {
      "/": () => document.getElementById("search").select(), "?": () => this.help(), t: () => view.theme(),
      j: () => view.lanes.move(1), ArrowDown: () => view.lanes.move(1), k: () => view.lanes.move(-1), ArrowUp: () => view.lanes.move(-1),
      PageDown: () => view.lanes.move(20), PageUp: () => view.lanes.move(-20), "+": () => view.zoom(-1), "=": () => view.zoom(-1), "-": () => view.zoom(1),
    };
    const onButton = event.target.matches("button, a");
    if (!onButton) {
      acts[" "] = () => view.pause();
      acts.Enter = () => view.chosen && view.open(view.chosen);
    }
    if (event.key >= "1" && event.key <= "5") acts[event.key] = () => view.show(Number(event.key) - 1);
    if (acts[event.key]) {
      event.preventDefault();
      acts[event.key]();
    }
  }
}
