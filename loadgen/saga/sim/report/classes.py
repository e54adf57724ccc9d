"""Task completion times by class of task (size of tenant, kind of agent), where a workload has several."""

from collections.abc import Sequence
from statistics import mean

from saga.sim.figures import ClassFigures, Run
from saga.sim.report.compare import SAGA, Systems
from saga.sim.report.markup import Html, join, row, table, tag


def classes_table(systems: Systems) -> Html:
    """One row for each system, one column for each class; nothing when tasks are of one class."""
    classes = list(dict.fromkeys(c.name for runs in systems.values() for run in runs for c in run.by_class))
    if not classes:
        return Html("")
    heads = [("System", ""), *((name, "TCT mean / P95, s; SLO met, %") for name in classes)]
    rows = [
        row(system, [_cell(runs, name) for name in classes], kind="ours" if system == SAGA else "")
        for system, runs in systems.items()
    ]
    return tag("details", tag("summary", f"By class of task: {', '.join(classes)}"), table(heads, rows))


def _cell(runs: Sequence[Run], name: str) -> Html:
    """Means over seeds."""
    found = [each for run in runs for each in run.by_class if each.name == name]
    times = [_mean([figures.tct_mean_s for figures in found]), _mean([figures.tct_p95_s for figures in found])]
    return join(" / ".join(times), tag("span", _slo(found), class_="interval"))


def _mean(values: Sequence[float | None]) -> str:
    known = [value for value in values if value is not None]
    return f"{mean(known):,.0f}" if known else "\N{EN DASH}"


def _slo(found: Sequence[ClassFigures]) -> str:
    return f"; {100 * mean(each.slo_attainment for each in found):.0f} %" if found else ""
