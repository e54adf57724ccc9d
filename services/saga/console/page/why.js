// Why one step ran where and when it did: what the leaders remember of it, below its row.

import { el } from "./dom.js";
import { count, duration, place } from "./words.js";

const spoken = (word) => word.replaceAll("_", " ");

function fact(value) {
  if (typeof value !== "number") return spoken(String(value));
  return Number.isInteger(value) ? count(value) : value.toFixed(value < 10 ? 2 : 1);
}

function facts(named) {
  return Object.entries(named ?? {}).map(([name, value]) => (name.endsWith("_s") ? `${spoken(name.slice(0, -2))} ${duration(value)}` : `${spoken(name)} ${fact(value)}`)).join(", ");
}

/** The workers that placement weighed, the one it chose first. */
function weighed(rows) {
  const names = [...new Set(rows.flatMap((row) => Object.keys(row.terms ?? {})))];
  const ranked = [...rows].sort((a, b) => Number(b.chosen ?? false) - Number(a.chosen ?? false)).slice(0, 12);
  const head = el("tr", {}, el("th", {}, "worker"), ...names.map((name) => el("th", { class: "n" }, spoken(name.replace(/_s$/, " s")))));
  const body = ranked.map((row) => el("tr", { class: row.chosen ? "chosen" : undefined }, el("td", {}, row.worker),
    ...(row.barred ? [el("td", { colspan: Math.max(1, names.length) }, spoken(row.barred))]
      : names.map((name) => el("td", { class: "n" }, row.terms?.[name] === undefined ? "" : fact(row.terms[name]))))));
  return el("table", {}, el("thead", {}, head), el("tbody", {}, ...body));
}

function moments(service, told) {
  return (told?.moments ?? []).map((moment) => el("li", {}, el("time", {}, `+${moment.at_s.toFixed(2)} s`), el("span", {}, service),
    el("span", {}, `${spoken(moment.what)}${moment.worker ? ` ${moment.worker}` : ""}`), el("span", { class: "dim" }, because(moment.facts ?? {}))));
}

/** Its reason in words, then the other facts. */
function because({ reason, ...rest }) {
  return [reason === undefined ? "" : place(String(reason)), facts(rest)].filter(Boolean).join("; ");
}

/** What is known of a step, as an element. */
export async function why(stepId) {
  const box = el("div", { class: "whybox" });
  let body;
  try {
    const answer = await fetch(`/api/step?id=${encodeURIComponent(stepId)}`);
    body = await answer.json();
  } catch {
    body = { error: "The console does not answer." };
  }
  if (body.error) {
    box.append(el("p", {}, body.error));
    return box;
  }
  box.append(el("ol", {}, ...moments("admission", body.admission), ...moments("placement", body.placement)));
  const rows = body.placement?.weighed ?? [];
  if (rows.length) box.append(el("h4", {}, "Workers that it could have gone to"), weighed(rows));
  box.append(el("p", {}, "In sentences: ", el("code", {}, `saga why ${stepId}`)));
  return box;
}
