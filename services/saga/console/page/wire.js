// Rows as the server sends them (console/wire.py), with their fields named. Tested to agree with it.

export const FIELDS = {
  workers: ["id", "pool", "engine_url", "up", "standing", "kv_tokens", "used_tokens", "running", "waiting", "max_running",
    "open_session_tags", "epoch", "speed"],
  workflows: ["number", "root", "tenant", "state", "agent_class", "submitted_s", "deadline_s", "last_s", "steps",
    "sessions", "prompt_tokens", "cached_tokens", "output_tokens", "engine_s", "remaining_s", "back_s", "kv"],
  steps: ["workflow", "number", "session", "phase", "ready_s", "start_s", "first_token_s", "end_s", "worker", "cause",
    "reason", "moved_from", "prompt_tokens", "cached_tokens", "output_tokens", "tools"],
  decisions: ["number", "at_s", "kind", "workflow", "name", "worker", "other", "reason", "amount"],
  tenants: ["name", "weight", "share", "entitled", "active", "queued", "running_steps", "waiting_steps", "kv_tokens",
    "held_for", "on_time", "at_risk", "late"],
};

/** A function from a row to an object; always the same shape, so that engines make it fast. */
function reader(names) {
  const body = names.map((name, at) => [name, at]);
  return (row) => {
    const thing = {};
    for (const [name, at] of body) thing[name] = row[at];
    return thing;
  };
}

export const read = Object.fromEntries(Object.entries(FIELDS).map(([kind, names]) => [kind, reader(names)]));
