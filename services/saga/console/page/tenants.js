// Tenants: what each got of the last minute's work against what its weight entitles it to, and its deadlines.

import { el, setText } from "./dom.js";
import { count, percent } from "./words.js";

export class Tenants {
  constructor(view) {
    this.view = view;
    this.root = document.getElementById("tenants");
    this.rows = new Map();
  }

  draw() {
    const tenants = this.view.store.tenants;
    const names = tenants.map((tenant) => tenant.name).join("\n");
    if (names !== this.names) {
      this.names = names;
      const known = new Map(tenants.map((tenant) => [tenant.name, this.rows.get(tenant.name) ?? this.make(tenant.name)]));
      this.rows = known;
      this.root.replaceChildren(...[...known.values()].map((row) => row.element));
    }
    // A bar's full width is the largest share there is, so that small ones can be told apart.
    const most = Math.max(0.2, ...tenants.map((tenant) => Math.max(tenant.share, tenant.entitled)));
    for (const tenant of tenants) this.row(this.rows.get(tenant.name), tenant, most);
  }

  make(name) {
    const parts = { share: el("span"), of: el("small"), fill: el("i"), tick: el("u"), load: el("span"), due: el("span", { class: "due" }) };
    const element = el("button", { class: "tenant", type: "button", onclick: () => this.view.search(`tenant:${name}`) },
      el("span", { class: "name" }, name), el("span", { class: "share" }, parts.share, " ", parts.of),
      el("span", { class: "bar" }, parts.fill, parts.tick), el("span", { class: "facts" }, parts.load, parts.due));
    return { element, ...parts };
  }

  row(row, tenant, most) {
    setText(row.share, percent(tenant.share));
    setText(row.of, tenant.entitled ? `of ${percent(tenant.entitled)}` : "");
    row.fill.style.width = `${(100 * tenant.share) / most}%`;
    row.tick.style.left = `${(100 * tenant.entitled) / most}%`;
    row.tick.hidden = !tenant.entitled;
    const waits = tenant.waiting_steps ? ` · ${tenant.waiting_steps === 1 ? "1 step waits" : `${count(tenant.waiting_steps)} steps wait`}` : "";
    const held = tenant.held_for ? ` for ${tenant.held_for.replaceAll("_", " ")}` : "";
    row.element.title = `Only workflows of ${tenant.name} (weight ${tenant.weight})`;
    setText(row.load, `${count(tenant.active)} active${waits}${held}`);
    this.due(row, tenant);
  }

  due(row, tenant) {
    const said = `${tenant.on_time} ${tenant.at_risk} ${tenant.late}`;
    if (row.said === said) return;
    row.said = said;
    const parts = [];
    if (tenant.on_time) parts.push(`${tenant.on_time} on time`);
    if (tenant.at_risk) parts.push(el("span", { class: "risk" }, `${tenant.at_risk} at risk`));
    if (tenant.late) parts.push(el("span", { class: "late" }, `${tenant.late} late`));
    row.due.replaceChildren(...parts.flatMap((part, at) => (at ? [" · ", part] : [part])));
  }
}
