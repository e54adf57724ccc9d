"""The tables: at a glance, every system under every condition, and every seed. What is compared is `compare`'s."""

from collections.abc import Callable, Sequence
from typing import Final

from saga.sim.figures import Ratio, Report, Run
from saga.sim.report.compare import (
    SAGA,
    Condition,
    Systems,
    best_baseline,
    bound_tct_s,
    by_condition,
    collapsed,
    is_variant,
    over_seeds,
    ratio_between,
    seeds_of,
)
from saga.sim.report.markup import Html, join, row, table, tag

SAME = 0.005  # a ratio that shows as 1.00 is no difference, however narrow its interval
NONE: Final = "\N{EN DASH}"
Pick = Callable[[Run], float | None]


def _percent(value: float | None) -> float | None:
    return None if value is None else 100 * value


# heading, unit, value, format
COLUMNS: Final[tuple[tuple[str, str, Pick, str], ...]] = (
    ("TCT mean", "s", lambda r: r.tct_s.mean, ",.0f"),
    ("Mean TCT", "x KV bound", lambda r: r.kv_bound_ratio, ".2f"),
    ("TCT P95", "s", lambda r: r.tct_s.p95, ",.0f"),
    ("TCT P99", "s", lambda r: r.tct_s.p99, ",.0f"),
    ("SLO met", "% of tasks", lambda r: _percent(r.slo_attainment), ".0f"),
    ("Hit rate", "% of prompt", lambda r: _percent(r.hit_rate), ".1f"),
    ("Regenerated", "Mtokens", lambda r: r.regenerated_tokens / 1e6, ",.1f"),
    ("Useful KV", "% of capacity", lambda r: _percent(r.useful_kv_share), ".0f"),
    ("Throughput", "tasks/min", lambda r: r.tasks_per_min, ".2f"),
    ("TTFT P99", "s", lambda r: r.ttft_s.p99, ",.1f"),
)
GLANCE: Final = [
    ("Condition", ""),
    ("KV bound", "TCT, s"),
    ("saga", "TCT, s"),
    ("Best baseline", "name, TCT, s"),
    ("saga faster than it", "ratio [95 %]"),
    ("Slowest baseline", "name, TCT, s"),
    ("saga faster than it", "ratio [95 %]"),
]


def glance(report: Report) -> Html:
    """One row for each condition: ours against the best baseline, and against what happens without a limit."""
    rows = []
    for condition, systems in by_condition(report.runs).items():
        best, slowest = best_baseline(systems), _slowest(systems)
        rows.append(
            row(
                condition.title,
                [
                    _number(bound_tct_s(systems), ",.0f"),
                    _tct(systems, SAGA),
                    join(f"{best} ", tag("b", _tct(systems, best))) if best else NONE,
                    ratio_cell(ratio_between(report, condition, SAGA, best), verdict=True),
                    join(f"{slowest} ", tag("b", _tct(systems, slowest))) if slowest else NONE,
                    ratio_cell(ratio_between(report, condition, SAGA, slowest), verdict=True),
                ],
            )
        )
    return table(GLANCE, rows)


def condition_table(report: Report, condition: Condition, systems: Systems) -> Html:
    """Every system of one condition, ours first, then by mean TCT."""
    best = best_baseline(systems)
    heads = [
        ("System", ""),
        ("Speed", f"{best} = 1" if best else "no stable baseline"),
        *((name, unit) for name, unit, _, _ in COLUMNS),
    ]
    bound_s = bound_tct_s(systems)
    rows = [row("KV bound", [NONE, _number(bound_s, ",.0f"), "1.00", *[NONE] * 8], kind="bound")]
    order = sorted(systems, key=lambda name: (name != SAGA, over_seeds(systems[name], lambda r: r.tct_s.mean) or 9e99))
    for name in order:
        runs = systems[name]
        kind = "ours" if name == SAGA else "best" if name == best else "variant" if is_variant(name) else ""
        ratio = ratio_between(report, condition, name, best)
        rows.append(
            row(
                join(name, *_badges(systems, name, best)),
                [
                    tag("b", "1") if name == best else ratio_cell(ratio),
                    *(_number(over_seeds(runs, pick), spec) for _, _, pick, spec in COLUMNS),
                ],
                kind=kind,
            )
        )
    return table(heads, rows, _caption(condition, systems))


def seeds_table(systems: Systems) -> Html:
    """The same columns for every single run."""
    heads = [
        ("System, seed", ""),
        *((name, unit) for name, unit, _, _ in COLUMNS),
        ("SLO met", "as published, %"),
        ("Tasks", "measured"),
        ("Failed", "tasks"),
    ]
    rows = [
        row(
            join(f"{run.system}, {run.seed}", *_run_badges([run])),
            [
                *(_number(pick(run), spec) for _, _, pick, spec in COLUMNS),
                _number(_percent(run.slo_attainment_by_class_mean), ".0f"),
                f"{run.tasks_measured:,}",
                f"{run.failures:,}",
            ],
            kind="ours" if run.system == SAGA else "",
        )
        for runs in systems.values()
        for run in runs
    ]
    return tag("details", tag("summary", f"All {len(rows)} runs, seed by seed"), table(heads, rows))


def ratio_cell(ratio: Ratio | None, *, verdict: bool = False) -> Html:
    """The ratio with its interval below; coloured, if a verdict is wanted, when the interval leaves out 1."""
    if ratio is None or ratio.tct_ratio is None:
        return Html(NONE)
    kind = ""
    if ratio.ci95 is None:
        interval = "one seed"
    else:
        interval = f"[{ratio.ci95[0]:.2f}, {_short(ratio.ci95[1])}]"
        kind = "faster" if ratio.ci95[0] > 1.0 + SAME else "slower" if ratio.ci95[1] < 1.0 - SAME else ""
    value = tag("b", f"{ratio.tct_ratio:.2f}", class_=kind) if verdict and kind else tag("b", f"{ratio.tct_ratio:.2f}")
    return join(value, tag("span", f" {interval}", class_="interval"))


def _short(value: float) -> str:
    return f"{value:.2f}" if value < 100 else "> 100"


def _slowest(systems: Systems) -> str:
    times = {
        name: over_seeds(runs, lambda run: run.tct_s.mean) or 0.0
        for name, runs in systems.items()
        if name != SAGA and not is_variant(name)
    }
    return max(times, key=lambda name: times[name]) if times else ""


def _tct(systems: Systems, name: str) -> str:
    runs = systems.get(name, ())
    return _number(over_seeds(runs, lambda run: run.tct_s.mean), ",.0f") + (
        " (unstable)" if any(run.unstable for run in runs) else ""
    )


def _number(value: float | None, spec: str) -> str:
    return NONE if value is None else format(value, spec)


def _badges(systems: Systems, name: str, best: str) -> list[Html]:
    found = [tag("span", "best baseline", class_="badge good")] if name == best else []
    found += _run_badges(systems[name])
    if name != best and collapsed(systems, name):
        found.append(tag("span", "collapsed", class_="badge bad"))
    return found


def _run_badges(runs: Sequence[Run]) -> list[Html]:
    found = []
    if any(run.unstable for run in runs):
        found.append(tag("span", "unstable", class_="badge bad"))
    if failures := sum(run.failures for run in runs):
        found.append(tag("span", f"{failures:,} failed", class_="badge bad"))
    return found


def _caption(condition: Condition, systems: Systems) -> str:
    first = next(iter(systems.values()))[0]
    users = f", {first.users:,} users" if first.users else ""
    peak = f", peak {first.peak_tasks_per_min:.1f} tasks/min" if first.peak_tasks_per_min else ""
    seeds = seeds_of(systems)
    return (
        f"{condition.title}{users}{peak}: {first.tasks_measured:,} tasks measured a run, "
        f"means over {len(seeds)} seed{'s' if len(seeds) > 1 else ''}"
    )
