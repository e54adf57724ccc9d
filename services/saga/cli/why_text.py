"""A step's story in plain sentences, for `saga why`. Pure."""

from collections.abc import Mapping
from typing import Final

from rich.table import Table

from saga.cli.why_story import Line, StepStory
from saga.contract.why_messages import Fact, Weighed, WorkflowTold

REASONS: Final[Mapping[str, str]] = {
    "home": "its session is at home there",
    "resident_prefix": "a part of its prompt is resident there, and no other is cheaper",
    "cheapest_start": "the cheapest start, and nothing of its prompt is resident anywhere cheaper",
    "least_loaded": "the fewest requests run or wait there",
    "stolen": "it waited elsewhere, and this one was idle",
}
MISSES: Final[Mapping[str, str]] = {
    "cold": "the session is new",
    "prefix_changed": "the prompt does not go on where the session's last one ended",
    "evicted": "its worker needed the room",
    "moved": "the step ran on another worker than the one that had them",
    "superseded": "they had been left behind, and let go, before the session went back to them",
    "expired": "the session was away for longer than its KV was kept",
    "engine_died": "their engine died",
    "unknown": "nobody knows",
}
WAITS: Final[Mapping[str, str]] = {
    "inactive": "its workflow was not active",
    "slot": "no slot was free",
    "home": "no slot was free at home",
    "no_worker": "no worker could take it",
    "retry": "its last attempt came to nothing",
    "quota": "its tenant's quota",
}


def head(story: StepStory) -> list[str]:
    """Who it is."""
    ids = f"step {story.step_id}  workflow {story.root}  session {story.session}"
    facts = f"tenant {story.tenant}  model {story.pool}  prompt {story.prompt_tokens:,} tokens"
    return [ids, facts + ("" if story.over else "  [not over yet]")]


def table_of(story: StepStory) -> Table:
    """What happened, one line each."""
    table = Table("seconds", "what", "", box=None, pad_edge=False)
    for line in story.lines:
        attempt = f" (attempt {line.attempt})" if line.attempt else ""
        table.add_row(f"{line.at_s:.3f}", line.what.replace("_", " ") + attempt, sentence(line))
    return table


def sentence(line: Line) -> str:
    """What a line means."""
    facts = line.facts
    match line.by, line.what:
        case _, "ready" | "ready_again":
            gap = f"; the session's last step had ended {_s(facts['gap_s'])} before" if "gap_s" in facts else ""
            return "a gateway asks admission" + gap
        case "admission", "waits" | "waits_now":
            return waiting(facts)
        case "admission", "admitted":
            return _admitted(line)
        case "admission", "refused":
            return str(facts.get("detail", facts.get("reason", "")))
        case "placement", "admitted" | "admitted_again":
            return "admission lets it go on" + _because(facts)
        case "placement", "waits":
            return _waits(line)
        case "placement", "granted":
            return _granted(line)
        case _, "taken":
            return f"its gateway takes the lease on {line.worker}"
        case _, "started":
            return f"the request is on its way to {line.worker}"
        case _, "returned":
            return f"its gateway gives the lease on {line.worker} back: {facts.get('reason', 'no reason given')}"
        case _, "lease_expired":
            return f"nobody renewed its lease on {line.worker}, which ended it"
        case _, "claimed":
            return f"a new leader hears that it runs on {line.worker}"
        case _, "finished":
            return _finished(line)
        case _, "client_left" | "failed":
            return f"after {facts.get('output_tokens', 0):,} tokens of output"
    return line.worker


def waiting(facts: Mapping[str, Fact]) -> str:
    """Why a step waits in admission."""
    match facts.get("limit"):
        case "quota":
            return f"tenant {facts['tenant']} is at its quota {facts['quota']}"
        case "takeover":
            return "a new leader hears first what runs, since its tenant has quotas"
        case "no_worker":
            return "no worker serves this model now"
    own, tenants = int(facts.get("own_before", 0)), int(facts.get("tenants_before", 0))
    before = [f"{own:,} of its tenant's workflows"] * bool(own) + [f"{tenants:,} tenants"] * bool(tenants)
    line = f"; before it in line: {' and '.join(before)}" if before else "; it is next in line"
    line += f" (first {facts['first']})" if facts.get("first") else ""
    return (
        f"{facts['active_workflows']:,} active workflows need {facts['active_tokens']:,} of {facts['kv_tokens']:,} "
        f"KV tokens, this one {facts['needs_tokens']:,}" + line
    )


def _admitted(line: Line) -> str:
    facts = line.facts
    joined = facts.get("joined_before", 0)
    text = "it may run" + _because(facts)
    text += f"; {joined:,} workflows joined before it, last {facts.get('last_of_them')}" if joined else ""
    home = f"; its workflow is bound to {line.worker}" if facts.get("bound") else f"; it ran on {line.worker} last"
    return text + (home if line.worker else "")


def _because(facts: Mapping[str, Fact]) -> str:
    waited = str(facts.get("waited", ""))
    return f", having waited: {WAITS.get(waited, waited)}" if waited else " at once"


def _waits(line: Line) -> str:
    facts = line.facts
    cause = WAITS.get(str(facts.get("cause")), str(facts.get("cause")))
    where = f" for {line.worker}" if line.worker else ""
    text = f"{cause}{where}: {facts.get('others_wait', 0):,} other steps wait"
    if "running" in facts:
        text += f", {facts['running']:,} run there with {facts['leased_tokens']:,} of {facts['kv_tokens']:,} KV tokens"
    return text


def _granted(line: Line) -> str:
    facts = line.facts
    reason = str(facts.get("reason", ""))
    why = "admission bound its workflow there" if facts.get("new_session") and reason == "home" else REASONS.get(reason)
    text = f"{line.worker}: {why or reason}; {facts['expected_tokens']:,} prompt tokens should be cached"
    if moved := facts.get("moved_from") or facts.get("ran_at"):
        left = f", where {facts['left_tokens']:,} of them were" if "left_tokens" in facts else ""
        text += f"; it moves there from {moved}{left}"
    return text


def _finished(line: Line) -> str:
    facts = line.facts
    return (
        f"on {line.worker}: {facts['reason']} after {facts['output_tokens']:,} tokens; {_s(facts['control_s'])} to the "
        f"engine, {_s(facts['first_token_s'])} more to the first token, {_s(facts['engine_s'])} there in all"
    )


def weighed_table(weighed: tuple[Weighed, ...]) -> Table | None:
    """The workers that were weighed, by the terms of the policy; None where the choice was none."""
    names = list(dict.fromkeys(name for one in weighed for name in one.terms if name != "reason"))
    if not names and not any(one.barred for one in weighed):
        return None
    table = Table("worker", "", *(name.replace("_", " ") for name in names), box=None, pad_edge=False)
    for one in weighed:
        mark = "chosen" if one.chosen else one.barred
        table.add_row(one.worker, mark, *(_cell(one.terms.get(name)) for name in names))
    return table


def cache_lines(story: StepStory) -> list[str]:
    """What was cached, against what was expected, and why not more."""
    cached = story.cached
    if cached is None:
        return []
    text = f"cached: {cached.cached_tokens:,} of {cached.prompt_tokens:,} prompt tokens; expected when it was placed: "
    lines = [text + f"{cached.expected_tokens:,}"]
    for cause, tokens in sorted(story.missed_tokens.items(), key=lambda item: -item[1]):
        worker = cached.loss.worker_id if cached.loss is not None and cached.loss.tokens == tokens else ""
        word = f" ({worker}: {story.let_go})" if worker and story.let_go else f" ({worker})" if worker else ""
        lines.append(f"  missed {tokens:,}: {cause}{word}: {MISSES[cause]}")
    return lines


def workflow_lines(root: str, workflow: WorkflowTold) -> list[str]:
    """How the workflow stands."""
    bound = f", bound to {workflow.bound}" if workflow.bound else ""
    text = f"workflow {root}: {workflow.state}{bound}, submitted {_s(workflow.submitted_s)} ago, "
    text += f"{workflow.sessions:,} sessions, {workflow.live_steps:,} live steps"
    lines = [f"{text}, needs {workflow.needs_tokens:,} KV tokens"]
    for moment in workflow.moments:
        needs = f", needing {moment.facts['needs_tokens']:,} KV tokens" if "needs_tokens" in moment.facts else ""
        lines.append(f"  {moment.at_s:.3f} {moment.what} the active set{needs}")
    return lines


def _cell(fact: Fact | None) -> str:
    return "-" if fact is None else f"{fact:,}" if isinstance(fact, int | float) else fact


def _s(seconds: Fact) -> str:
    value = float(seconds)
    return f"{value * 1e3:.1f} ms" if value < 1 else f"{value:.1f} s"
