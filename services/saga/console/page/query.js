// What the search field means: words that a workflow's name holds, and tenant:, worker:, class:.

export const GROUPS = { all: null, active: ["running", "gap"], queued: ["queued"], dormant: ["dormant"], closed: ["closed"] };
const RANK = { queued: 0, running: 0, gap: 0, dormant: 1, closed: 2 };

/** A test of flows for this text. */
export function matcher(text) {
  const tests = text.toLowerCase().split(/\s+/).filter(Boolean).map((word) => {
    const [key, ...rest] = word.split(":");
    const value = rest.join(":");
    if (key === "tenant" && value) return (flow) => flow.tenant.toLowerCase().startsWith(value);
    if (key === "class" && value) return (flow) => flow.agent_class.toLowerCase().startsWith(value);
    if (key === "worker" && value) return (flow) => at(flow, value);
    return (flow) => flow.haystack.includes(word) || at(flow, word);
  });
  return (flow) => tests.every((test) => test(flow));
}

/** Whether its KV is on that worker, or its last step was there. */
function at(flow, worker) {
  for (let n = 0; n < flow.kv.length; n += 3) if (flow.kv[n].toLowerCase() === worker) return true;
  return flow.list.at(-1)?.worker.toLowerCase() === worker;
}

/** Flows in the order of the lanes: open ones by age, then dormant, then closed. */
export function ordered(flows, group, text) {
  const states = GROUPS[group];
  const matches = matcher(text);
  const found = [];
  for (const flow of flows) if ((!states || states.includes(flow.state)) && matches(flow)) found.push(flow);
  return found.sort((a, b) => RANK[a.state] - RANK[b.state] || a.number - b.number);
}
