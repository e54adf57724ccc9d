// Workers: each one's KV pool filled by workflow, its batch and its queue.

import { el, hideTip, setText, showTip, sized } from "./dom.js";
import { count, percent } from "./words.js";

const HEIGHT = 18;
const BATCH = 3; // height of the batch below the pool

export class Cluster {
  constructor(view) {
    this.view = view;
    this.root = document.getElementById("workers");
    this.rows = new Map();
    new ResizeObserver(() => view.touch("cluster")).observe(this.root);
  }

  draw() {
    const { store, colours } = this.view;
    const held = store.byWorker();
    for (const [id, row] of this.rows) {
      if (!store.workers.has(id)) {
        row.element.remove();
        this.rows.delete(id);
      }
    }
    if (store.workers.size !== this.rows.size) this.add(store);
    const width = this.rows.size ? this.rows.values().next().value.canvas.parentElement.clientWidth : 0;
    const bar = Math.max(40, width - 44 - 40 - 80 - 30);
    for (const [id, row] of this.rows) this.row(row, store.workers.get(id), held.get(id), bar, colours);
  }

  add(store) {
    const ids = [...store.workers.keys()].sort((a, b) => a.localeCompare(b, "en", { numeric: true }));
    for (const id of ids) {
      if (!this.rows.has(id)) this.rows.set(id, this.make(id));
      this.root.append(this.rows.get(id).element);
    }
  }

  make(id) {
    const canvas = el("canvas", { "aria-hidden": "true" });
    const name = el("button", { class: "name", type: "button", title: `Only workflows on ${id}`,
      onclick: () => this.view.search(`worker:${id}`) }, id);
    const fill = el("span", { class: "fill" });
    const load = el("span", { class: "load" });
    const element = el("div", { class: "worker" }, name, canvas, fill, load);
    const row = { element, canvas, fill, load, boxes: [] };
    canvas.addEventListener("mousemove", (event) => this.hover(row, id, event));
    canvas.addEventListener("mouseleave", () => { hideTip(); this.view.point(null); });
    canvas.addEventListener("click", (event) => {
      const box = this.at(row, event);
      if (box) this.view.open(box.flow);
    });
    return row;
  }

  row(row, worker, here, width, colours) {
    const full = here.tokens / Math.max(1, worker.kv_tokens);
    row.element.classList.toggle("down", !worker.up);
    row.element.classList.toggle("over", full > 1);
    setText(row.fill, percent(full));
    const waits = here.queued + worker.waiting;
    const load = `${worker.running}/${worker.max_running}`;
    const state = !worker.up ? "not answering" : worker.standing === "serving" ? "" : worker.standing;
    const said = `${state} ${load} ${waits}`;
    if (row.said !== said) {
      row.said = said;
      if (state) row.load.replaceChildren(worker.up ? el("b", {}, state) : state);
      else row.load.replaceChildren(load, ...(waits ? [el("b", {}, ` +${waits} wait`)] : []));
    }
    this.pool(row, worker, here, width, colours);
  }

  pool(row, worker, here, width, colours) {
    const draw = sized(row.canvas, width, HEIGHT);
    const high = HEIGHT - BATCH - 2;
    draw.fillStyle = colours.sunken;
    draw.fillRect(0, 0, width, high);
    const scale = width / Math.max(worker.kv_tokens, here.tokens, 1);
    row.boxes = [];
    let x = 0;
    for (const part of here.parts) {
      const w = part.tokens * scale;
      const chosen = part.flow === this.view.chosen || part.flow === this.view.pointed;
      draw.fillStyle = chosen ? colours.text : part.running ? colours.accent1 : colours.accent3;
      draw.fillRect(x, 0, w > 3 ? w - 1 : w, high);
      row.boxes.push({ x, w, ...part });
      x += w;
    }
    if (here.tokens > worker.kv_tokens) { // what does not fit is behind this line
      draw.fillStyle = colours.signal;
      draw.fillRect(worker.kv_tokens * scale - 1, 0, 2, high);
    }
    draw.fillStyle = colours.sunken;
    draw.fillRect(0, high + 2, width, BATCH);
    draw.fillStyle = colours.accent2;
    draw.fillRect(0, high + 2, width * Math.min(1, worker.running / Math.max(1, worker.max_running)), BATCH);
  }

  at(row, event) {
    const x = event.offsetX;
    return row.boxes.find((box) => x >= box.x && x < box.x + Math.max(box.w, 2));
  }

  hover(row, id, event) {
    const box = this.at(row, event);
    const worker = this.view.store.workers.get(id);
    this.view.point(box?.flow ?? null);
    if (!worker) return;
    const pool = `${id} · ${worker.pool}\n${count(worker.kv_tokens)} KV tokens, ${count(worker.used_tokens)} in use by its batch of ${worker.running}`;
    const flow = box ? `${box.flow.root}\n${count(box.tokens)} tokens, ${box.running ? "a step runs" : "kept for its return"}\n\n` : "";
    showTip(flow + pool, event.clientX, event.clientY);
  }
}
