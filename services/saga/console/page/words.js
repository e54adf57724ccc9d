// Numbers and reasons, written for people.

const UNITS = [[1e9, "G"], [1e6, "M"], [1e3, "K"]];

/** 1234 as 1,234; 12,345 as 12.3K. */
export function count(value) {
  if (value < 10_000) return Math.round(value).toLocaleString("en");
  for (const [size, unit] of UNITS) {
    if (value >= size) return (value / size).toFixed(value >= 100 * size ? 0 : 1) + unit;
  }
  return String(Math.round(value));
}

export function percent(share) {
  if (share < 0) return "–";
  return share > 0 && share < 0.005 ? "<1%" : `${Math.round(100 * share)}%`;
}

/** A duration: 0.34 s, 3.2 s, 48 s, 5 min, 2.1 h. */
export function duration(value_s) {
  if (value_s < 0) return "–";
  if (value_s < 0.995) return `${value_s.toFixed(2)} s`;
  if (value_s < 9.95) return `${value_s.toFixed(1)} s`;
  if (value_s < 99.5) return `${Math.round(value_s)} s`;
  if (value_s < 5970) return `${Math.round(value_s / 60)} min`;
  return `${(value_s / 3600).toFixed(1)} h`;
}

export const STATES = { running: "running", gap: "in a gap", queued: "queued", dormant: "dormant", closed: "closed" };

export const CAUSES = {
  none: "did not wait", inactive: "its workflow was outside the active set", slot: "no free slot",
  home: "its home was busy", no_worker: "no worker could take it", retry: "its engine died", quota: "its tenant's quota",
};

const PLACES = {
  home: "its home", cheapest_start: "cheapest start", resident_prefix: "its prefix is there",
  least_loaded: "least loaded", stolen: "stolen: it would have waited longer at home",
};

const RELEASES = {
  paused: "the active set is full", unbound: "no longer bound there", dormant: "away too long", closed: "it is over",
  moved: "it is at home elsewhere", superseded: "its parent went on",
};

/** A reason of placement's policy; a new policy's own word is shown as it is. */
export function place(reason) {
  return PLACES[reason] ?? reason.replaceAll("_", " ");
}

const SEVERAL = { placed: "began", moved: "moved", waited: "waited", paused: "paused, their KV let go", released: "let their KV go" };

/** One decision, or several alike: what happened, why, and how much it asks for attention. */
export function decision(row, several = false) {
  const at = row.worker ? ` on ${row.worker}` : "";
  if (several) {
    const one = decision({ ...row, amount: row.kind === "placed" ? 0 : row.amount });
    const why = { moved: place(row.reason), waited: CAUSES[row.reason] ?? row.reason }[row.kind] ?? one.why;
    return { ...one, what: SEVERAL[row.kind] ?? row.kind, why };
  }
  switch (row.kind) {
    case "placed": return { what: `begins${at}`, why: place(row.reason) + (row.amount ? `, ${count(row.amount)} tokens cached` : "") };
    case "moved": return { what: `${row.other} → ${row.worker}`, why: place(row.reason) + `, waited ${duration(row.amount)}`, look: "warm" };
    case "waited": return { what: `waited ${duration(row.amount)}`, why: CAUSES[row.reason] ?? row.reason, look: row.amount >= 2 ? "warm" : "" };
    case "paused": return { what: `paused, KV let go${at}`, why: RELEASES.paused, look: "warm" };
    case "released": return { what: row.reason === "superseded" ? `sub-agent's KV let go${at}` : `KV let go${at}`, why: RELEASES[row.reason] ?? row.reason };
    case "superseded": return { what: "fresh session tag", why: `${count(row.amount)} tokens of its prompt were left behind` };
    case "refused": return { what: "refused", why: `${row.reason.replaceAll("_", " ")}, after ${duration(row.amount)}`, look: "hot" };
    case "restarted": return { what: "starts again", why: `the engine${row.other ? ` of ${row.other}` : ""} died`, look: "hot" };
    case "failed": return { what: `failed${at}`, why: `after ${duration(row.amount)}`, look: "hot" };
    case "worker": return { what: row.reason.replaceAll("_", " "), why: row.other.replaceAll("_", " ") || "worker",
      look: { joined: "", serving: "", leaving: "warm", probation: "warm" }[row.reason] ?? "hot" };
    case "leader": return { what: "has a new leader", why: "the one before it is gone or handed over", look: "warm" };
    default: return { what: row.kind, why: row.reason };
  }
}
