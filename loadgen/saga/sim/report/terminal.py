"""The table that `saga bench sim` prints. Called by `saga.sim.cli`; what it compares is `compare`'s."""

from collections.abc import Callable, Sequence

from rich import box
from rich.console import Console
from rich.table import Table

from saga.sim.figures import Ratio, Report, Run
from saga.sim.report.compare import best_baseline, by_condition, over_seeds, ratio_between, seeds_of


def print_report(out: Console, report: Report) -> None:
    """One table for each condition: means over seeds, the ratio to the best baseline last."""
    for condition, systems in by_condition(report.runs).items():
        first = next(iter(systems.values()))[0]
        users = f" ({first.users} users)" if first.users else ""
        tier = f", host tier {condition.host_tier}" if condition.host_tier != "off" else ""
        baseline = best_baseline(systems)
        title = (
            f"{condition.workload} on {condition.cluster}, {condition.at}{users}{tier}, "
            f"{first.tasks_measured} tasks measured; seeds: {len(seeds_of(systems))}"
        )
        table = Table(title=title, title_justify="left", box=box.SIMPLE, pad_edge=False, padding=(0, 1, 0, 0))
        table.add_column("system", no_wrap=True)
        for name in (*_COLUMNS, "ratio [95 %]"):
            table.add_column(name, justify="right", no_wrap=True)
        for system, runs in systems.items():
            ratio = ratio_between(report, condition, system, baseline)
            cells = [cell(runs) for cell in _COLUMNS.values()]
            table.add_row(system + _marks(runs), *cells, _ratio(ratio) if ratio or system != baseline else "1")
        out.print(table)
        out.print(f"  ratio: mean TCT of {baseline or 'no baseline'} over that of the system, above 1 is faster")
    out.print(
        "TCT: task completion time in seconds, mean and P99, queueing and tools included; means over seeds. x bound: "
        "mean TCT over that of the KV-bound run (KV shared and unlimited, no control-plane cost). SLO: % of tasks "
        "within 1.5 x of their own TCT there. hit: % of prompt tokens. regen: million tokens prefilled though they had "
        "been cached once. useful: % of KV in use or hit again before eviction, over time. /min: tasks a minute. "
        "u: unstable, its queue grew throughout. f: tasks failed.",
        style="dim",
    )


def _marks(runs: Sequence[Run]) -> str:
    return (" u" if any(run.unstable for run in runs) else "") + (" f" if any(run.failures for run in runs) else "")


def _ratio(ratio: Ratio | None) -> str:
    if ratio is None or ratio.tct_ratio is None:
        return "-"
    interval = f" [{ratio.ci95[0]:.2f}, {ratio.ci95[1]:.2f}]" if ratio.ci95 else ""
    return f"{ratio.tct_ratio:.2f}{interval}"


def _mean(pick: Callable[[Run], float | None], spec: str) -> Callable[[Sequence[Run]], str]:
    def cell(runs: Sequence[Run]) -> str:
        value = over_seeds(runs, pick)
        return "-" if value is None else format(value, spec)

    return cell


_COLUMNS: dict[str, Callable[[Sequence[Run]], str]] = {
    "TCT": _mean(lambda r: r.tct_s.mean, ",.0f"),
    "P99": _mean(lambda r: r.tct_s.p99, ",.0f"),
    "x bound": _mean(lambda r: r.kv_bound_ratio, ".2f"),
    "SLO": _mean(lambda r: r.slo_attainment and 100 * r.slo_attainment, ".0f"),
    "hit": _mean(lambda r: r.hit_rate and 100 * r.hit_rate, ".1f"),
    "regen": _mean(lambda r: r.regenerated_tokens / 1e6, ",.1f"),
    "useful": _mean(lambda r: r.useful_kv_share and 100 * r.useful_kv_share, ".0f"),
    "/min": _mean(lambda r: r.tasks_per_min, ".1f"),
}
