"""Tables for the documents, in Markdown: what docs/evaluation.md shows is written by this and by nothing else.

Called by `saga bench report --markdown`.
"""

from collections.abc import Callable, Sequence

from saga.sim.figures import Ratio, Report, Run
from saga.sim.report.compare import (
    SAGA,
    Condition,
    best_baseline,
    by_condition,
    is_variant,
    over_seeds,
    ratio_between,
    seeds_of,
    stable_tct_s,
)

Systems = dict[str, list[Run]]
Column = tuple[str, Callable[[Run], float | None], str]

DETAILS: tuple[Column, ...] = (
    ("TCT P50 s", lambda r: r.tct_s.p50, ",.0f"),
    ("P95 s", lambda r: r.tct_s.p95, ",.0f"),
    ("P99 s", lambda r: r.tct_s.p99, ",.0f"),
    ("SLO %", lambda r: _percent(r.slo_attainment), ".1f"),
    ("class SLO %", lambda r: _percent(r.slo_attainment_by_class_mean), ".1f"),
    ("class SLO out of reach %", lambda r: _percent(r.slo_out_of_reach), ".1f"),
    ("hit %", lambda r: _percent(r.hit_rate), ".1f"),
    ("regenerated Mtok", lambda r: r.regenerated_tokens / 1e6, ",.1f"),
    ("useful KV %", lambda r: _percent(r.useful_kv_share), ".0f"),
    ("tasks/min", lambda r: r.tasks_per_min, ".2f"),
    ("TTFT P99 s", lambda r: r.ttft_s.p99, ",.0f"),
    ("service gap s", lambda r: r.service_gap_s, ",.0f"),
)


HEAD = """# Evaluation: tables

Written by `saga bench report`, all of it; what stands behind the numbers is in [evaluation.md](evaluation.md).
"""


def markdown(report: Report) -> str:
    """All tables: an overview for each workload and host tier, then the details of each place in it."""
    parts = [HEAD]
    groups: dict[tuple[str, str, str], dict[Condition, Systems]] = {}
    for condition, systems in by_condition(report.runs).items():
        groups.setdefault((condition.workload, condition.cluster, condition.host_tier), {})[condition] = systems
    for (workload, cluster, tier), places in groups.items():
        seeds = seeds_of(next(iter(places.values())))
        parts.append(f"### {workload} on {cluster}, host tier {tier}\n")
        parts.append(
            f"Mean TCT in seconds and, in brackets, as a multiple of the KV bound; means over {len(seeds)} seeds. "
            "Bold: the best baseline. u: the queue grew throughout; f: tasks failed.\n"
        )
        parts.append(_overview(places))
        parts.append(_against_best(report, places))
        parts.append(_against_variants(report, places))
        for condition, systems in places.items():
            parts.append(f"<details><summary>{condition.at}: tails, hits, throughput</summary>\n")
            parts.append(_details(systems))
            parts.append(_classes(systems))
            parts.append("</details>\n")
    return "\n".join(part for part in parts if part) + "\n"


def _overview(places: dict[Condition, Systems]) -> str:
    rows = [["system", *(condition.at for condition in places)]]
    for system in dict.fromkeys(name for systems in places.values() for name in systems):
        cells = [_headline(systems[system], best_baseline(systems) == system) for systems in places.values()]
        rows.append([system, *cells])
    return _table(rows)


def _headline(runs: Sequence[Run], best: bool) -> str:  # noqa: FBT001 - one caller, by position
    tct_s = over_seeds(runs, lambda r: r.tct_s.mean)
    if tct_s is None:
        return "-"
    over = over_seeds(runs, lambda r: r.kv_bound_ratio)
    text = f"{tct_s:,.0f}" + (f" ({over:.2f})" if over is not None else "")
    marks = " u" * any(run.unstable for run in runs) + " f" * any(run.failures for run in runs)
    return f"**{text}**{marks}" if best else text + marks


def _against_best(report: Report, places: dict[Condition, Systems]) -> str:
    said = []
    for condition, systems in places.items():
        best = best_baseline(systems)
        if SAGA in systems and best:
            ratio = ratio_between(report, condition, SAGA, best)
            said.append(f"{condition.at}: {_ratio(ratio)} ({best})")
    return f"Best baseline over `saga`, mean TCT, median over seeds [95 %]: {'; '.join(said)}.\n" if said else ""


def _against_variants(report: Report, places: dict[Condition, Systems]) -> str:
    """Ours set differently against ours, or against the first of them where it was not run itself."""
    names = list(dict.fromkeys(name for systems in places.values() for name in systems))
    ours = SAGA if SAGA in names else next(filter(is_variant, names), "")
    lines = []
    for other in filter(is_variant, names):
        if other != ours:
            found = [(where.at, ratio_between(report, where, ours, other)) for where in places]
            lines.append(f"- `{other}`: " + "; ".join(f"{at}: {_ratio(ratio)}" for at, ratio in found if ratio))
    if not lines:
        return ""
    told = f"Mean TCT over that of `{ours}`, median over seeds [95 %]; above 1: `{ours}` is faster.\n"
    return "\n".join([told, *lines]) + "\n"


def _ratio(ratio: Ratio | None) -> str:
    if ratio is None or ratio.tct_ratio is None:
        return "none, one of them is unstable"
    interval = f" [{ratio.ci95[0]:.2f}, {ratio.ci95[1]:.2f}]" if ratio.ci95 else ""
    return f"{ratio.tct_ratio:.2f}{interval}"


def _details(systems: Systems) -> str:
    columns = [column for column in DETAILS if any(column[1](r) is not None for runs in systems.values() for r in runs)]
    rows = [["system", *(name for name, _, _ in columns)]]
    for system, runs in sorted(systems.items(), key=lambda item: (stable_tct_s(item[1]) is None, _mean_s(item[1]))):
        values = [over_seeds(runs, pick) for _, pick, _ in columns]
        rows.append([system, *(_told(value, spec) for value, (_, _, spec) in zip(values, columns, strict=True))])
    return _table(rows)


def _classes(systems: Systems) -> str:
    """SLO attainment by class of task, where a workload has several: by each task's own bound, and as published."""
    names = [figures.name for figures in next(iter(systems.values()))[0].by_class]
    if not names:
        return ""
    rows = [["system", *(f"{name}: SLO %, class SLO %, P95 s" for name in names)]]
    for system, runs in systems.items():
        rows.append([system, *(_class(runs, index) for index in range(len(names)))])
    found = next(iter(systems.values()))
    unmet = [_out_of_reach(found, index) for index in range(len(names))]
    if any(share is not None for share in unmet):
        rows.append(["out of anyone's reach", *(f"-, {_told(share, '.1f')}, -" for share in unmet)])
    return _table(rows)


def _out_of_reach(runs: Sequence[Run], index: int) -> float | None:
    return over_seeds(runs, lambda r: _percent(r.by_class[index].slo_out_of_reach))


def _class(runs: Sequence[Run], index: int) -> str:
    slo = over_seeds(runs, lambda r: _percent(r.by_class[index].slo_attainment))
    published = over_seeds(runs, lambda r: _percent(r.by_class[index].slo_attainment_by_class_mean))
    p95_s = over_seeds(runs, lambda r: r.by_class[index].tct_p95_s)
    return f"{_told(slo, '.1f')}, {_told(published, '.1f')}, {_told(p95_s, ',.0f')}"


def _told(value: float | None, spec: str) -> str:
    return "-" if value is None else format(value, spec)


def _mean_s(runs: Sequence[Run]) -> float:
    return over_seeds(runs, lambda r: r.tct_s.mean) or 0.0


def _percent(share: float | None) -> float | None:
    return None if share is None else 100 * share


def _table(rows: Sequence[Sequence[str]]) -> str:
    head, *body = rows
    lines = [f"| {' | '.join(head)} |", "|---" + "|---:" * (len(head) - 1) + "|"]
    return "\n".join([*lines, *(f"| {' | '.join(row)} |" for row in body)]) + "\n"
