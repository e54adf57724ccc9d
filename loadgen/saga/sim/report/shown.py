"""Which of the runs with details are shown: a page with all of them would be long and heavy, and say the same thing."""

from collections.abc import Sequence
from typing import Final

from msgspec import Struct

from saga.sim.detail import RunDetail
from saga.sim.figures import Report
from saga.sim.report.compare import SAGA, Condition, best_baseline, by_condition

PRESSURE: Final = 2.0  # the one shown, or the highest below, or the lowest above


class Shown(Struct, frozen=True):
    """Runs of one condition and seed, and the best baseline among them."""

    condition: Condition
    seed: int
    details: tuple[RunDetail, ...]
    best: str

    @property
    def title(self) -> str:
        """In words."""
        return f"{self.condition.title}, seed {self.seed}"

    @property
    def pair(self) -> tuple[RunDetail, ...]:
        """Ours and the best baseline, as far as they are there."""
        by_name = {detail.system: detail for detail in self.details}
        return tuple(by_name[name] for name in (SAGA, self.best) if name in by_name)


def choose(report: Report, details: Sequence[RunDetail]) -> tuple[Shown, ...]:
    """One for each workload, cluster and host tier: pressure 2 or the nearest, or the highest load; first seed."""
    groups: dict[Condition, dict[int, list[RunDetail]]] = {}
    for detail in details:
        groups.setdefault(_condition(detail), {}).setdefault(detail.seed, []).append(detail)
    chosen: dict[tuple[str, str, bool, str], Condition] = {}
    for condition in groups:
        key = (condition.workload, condition.cluster, condition.pressure is None, condition.host_tier)
        chosen[key] = max(chosen.get(key, condition), condition, key=_worth)
    return tuple(_shown(report, condition, groups[condition]) for condition in chosen.values())


def _worth(condition: Condition) -> tuple[bool, float]:
    if condition.pressure is None:
        return True, condition.load or 0.0
    below = condition.pressure <= PRESSURE
    return below, condition.pressure if below else -condition.pressure


def _shown(report: Report, condition: Condition, seeds: dict[int, list[RunDetail]]) -> Shown:
    seed, details = next(iter(seeds.items()))
    there = {detail.system for detail in details}
    measured = by_condition(report.runs).get(condition, {})
    return Shown(condition, seed, tuple(details), best_baseline({n: r for n, r in measured.items() if n in there}))


def _condition(detail: RunDetail) -> Condition:
    return Condition(detail.workload, detail.cluster, detail.pressure, detail.load, detail.host_tier)
