"""Shows the figures of the systems side by side, and writes them as JSON. Called by bench_live at the end of a run."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import orjson
from msgspec import Struct, to_builtins
from rich.console import Console
from rich.table import Table

from saga.load.figures import Figures
from saga.load.plan import Plan


class RunFacts(Struct, frozen=True):
    """What was replayed, and on what. Token counts are those before shrinking."""

    workload: str
    source: str
    seed: int
    speed: float
    shrink: int
    profile: str
    workers: int
    page_tokens: int
    kv_tokens_per_worker: int
    context_tokens: int
    concurrency: int
    gap_cap_s: float | None
    splice: bool
    recorded_blocks_hit_rate: float


def print_plan(console: Console, facts: RunFacts, plan: Plan) -> None:
    """What will be replayed, and everything that was left out."""
    left = plan.left_out
    console.print(
        f"[bold]{facts.workload}[/bold] from {facts.source}: {len(plan.tasks)} tasks, {plan.steps} steps "
        f"(seed {facts.seed}), {facts.concurrency} sessions open at once"
    )
    console.print(
        f"  engines: {facts.workers or 'unknown number'} x {facts.profile}, {facts.kv_tokens_per_worker:,} KV tokens "
        f"each, context {facts.context_tokens:,}; speed {facts.speed:g}, shrink {facts.shrink}, "
        f"pages of {facts.page_tokens}"
    )
    console.print(
        f"  left out, of {left.sessions_in_file} sessions: {left.dropped_over_context} over the context, "
        f"{left.dropped_over_half_kv} over half a worker's KV, {left.dropped_too_short} too short, "
        f"{left.not_chosen} not chosen; {left.steps_cut} later steps and {left.subagents_cut} sub-agents cut"
    )
    cap = "no gaps capped" if facts.gap_cap_s is None else f"{left.gaps_capped} gaps capped at {facts.gap_cap_s:g} s"
    console.print(f"  {cap} ({left.gap_seconds_cut:,.0f} s cut in all)")
    console.print(
        f"  hit rate of an infinite cache over the recorded blocks alone: {facts.recorded_blocks_hit_rate:.3f}"
    )


def print_table(console: Console, facts: RunFacts, results: Sequence[Figures]) -> None:
    """One column per system."""
    table = Table(title=f"{facts.workload}, seed {facts.seed}", title_justify="left")
    table.add_column("")
    for result in results:
        table.add_column(result.system + ("" if result.valid else " (INVALID)"), justify="right")
    for name, cell in _ROWS.items():
        table.add_row(name, *(cell(result) for result in results))
    console.print(table)
    console.print(
        "A task is the replayed part of one session. TCT: submission of its first step to its last answer, in recorded "
        f"seconds (real seconds x {facts.speed:g}), queueing and think time included. Hit rate: cached / prompt "
        "tokens; the ideal is an infinite cache over exactly what was sent. Regenerated: prefilled though that cache "
        "had them. Pressure: tokens in open conversations / KV capacity of all workers. Control plane: request read "
        "to first byte sent to the engine, over steps that waited for nothing.",
        style="dim",
    )
    for result in results:
        if not result.valid:
            console.print(f"[bold red]{result.system} is invalid:[/bold red] {result.invalid_because}")
        for error in result.errors:
            console.print(f"{result.system} failed: {error}", style="red", markup=False, highlight=False)


def write_json(path: Path, facts: RunFacts, plan: Plan, results: Sequence[Figures]) -> None:
    """The same figures with stable keys: `run`, `plan`, `systems` (a list, in the order they ran)."""
    document = {
        "format": 1,
        "run": to_builtins(facts),
        "plan": {"tasks": len(plan.tasks), "steps": plan.steps, "left_out": to_builtins(plan.left_out)},
        "systems": [to_builtins(result) for result in results],
    }
    path.write_bytes(orjson.dumps(document, option=orjson.OPT_INDENT_2) + b"\n")


def _number(value: float | None, spec: str = ",.1f") -> str:
    return "-" if value is None else format(value, spec)


def _counts(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{name} {count}" for name, count in counts.items()) or "-"


_ROWS: Mapping[str, Callable[[Figures], str]] = {
    "TCT mean, s": lambda r: _number(r.tct_s.mean),
    "TCT P50, s": lambda r: _number(r.tct_s.p50),
    "TCT P95, s": lambda r: _number(r.tct_s.p95),
    "TCT P99, s": lambda r: _number(r.tct_s.p99),
    "time to first token P50 / P99, s": lambda r: f"{_number(r.ttft_s.p50, '.2f')} / {_number(r.ttft_s.p99, '.2f')}",
    "tasks / failed": lambda r: f"{r.tasks} / {r.tasks_failed}",
    "steps / failed": lambda r: f"{r.steps} / {r.steps_failed}",
    "hit rate (ideal)": lambda r: f"{_number(r.hit_rate, '.3f')} ({_number(r.ideal_hit_rate, '.3f')})",
    "regenerated tokens": lambda r: f"{r.regenerated_tokens:,}",
    "pressure mean / peak": lambda r: f"{_number(r.pressure_mean, '.2f')} / {_number(r.pressure_peak, '.2f')}",
    "steps/s (real)": lambda r: _number(r.steps_per_real_s),
    "control plane P50 / P99, ms": lambda r: f"{_number(r.control_ms.p50, '.2f')} / {_number(r.control_ms.p99, '.2f')}",
    "waited for, steps": lambda r: _counts(r.steps_waited),
    "steps by worker": lambda r: _counts(r.steps_by_worker),
    "refused, then waited, real s": lambda r: _number(r.refused_wait_real_s),
    "engine lag P99, of a step": lambda r: _number(r.engine_lag_p99_fraction, ".1%"),
    "generator late P99, real ms": lambda r: _number(r.generator_late_real_ms.p99),
    "elapsed, real s": lambda r: _number(r.elapsed_real_s),
}
