"""Runs put side by side: by condition, by system, against the best baseline and the KV bound. Pure.

Called by the terminal's table and by every section of the HTML report, so that all of them name the same best baseline.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from statistics import mean, median

from msgspec import Struct

from saga.sim.figures import Ratio, Report, Run

SAGA = "saga"
KV_BOUND = "kv-bound"
COLLAPSE = 2.0  # times the best baseline's mean TCT from which a system is marked as collapsed


class Condition(Struct, frozen=True):
    """What systems have in common when they are compared."""

    workload: str
    cluster: str
    pressure: float | None
    load: float | None
    host_tier: str

    @property
    def at(self) -> str:
        """How much is asked of the cluster."""
        return f"pressure {self.pressure:g}" if self.pressure is not None else f"load {self.load or 0.0:g} of the peak"

    @property
    def title(self) -> str:
        """In words."""
        return f"{self.workload} on {self.cluster}, {self.at}, host tier {self.host_tier}"


Systems = Mapping[str, Sequence[Run]]


def by_condition(runs: Iterable[Run]) -> dict[Condition, dict[str, list[Run]]]:
    """Conditions and, in each, systems in the order in which they first appear; runs of a system in that of seeds."""
    found: dict[Condition, dict[str, list[Run]]] = {}
    for run in runs:
        found.setdefault(condition_of(run), {}).setdefault(run.system, []).append(run)
    return found


def condition_of(run: Run | Ratio) -> Condition:
    """Under which it was measured."""
    return Condition(run.workload, run.cluster, run.pressure, run.load, run.host_tier)


def is_variant(system: str) -> bool:
    """Ours with something taken away or set differently, or a part of it alone: neither the headline nor a baseline."""
    return system.startswith((f"{SAGA}-", f"{SAGA}:", "alone-"))


def best_baseline(systems: Systems) -> str:
    """The fastest stable system that is not ours; empty when there is none."""
    stable = {
        name: value
        for name, runs in systems.items()
        if name not in {SAGA, KV_BOUND} and not is_variant(name) and (value := stable_tct_s(runs)) is not None
    }
    return min(stable, key=lambda name: stable[name]) if stable else ""


def stable_tct_s(runs: Sequence[Run]) -> float | None:
    """Mean over seeds of the mean TCT; None when one run is unstable or measured nothing."""
    return None if any(run.unstable for run in runs) else over_seeds(runs, lambda run: run.tct_s.mean, every=True)


def over_seeds(runs: Sequence[Run], pick: Callable[[Run], float | None], *, every: bool = False) -> float | None:
    """Mean over the seeds that have it; with `every`, None unless all have."""
    values = [value for run in runs if (value := pick(run)) is not None]
    return None if not values or (every and len(values) < len(runs)) else mean(values)


def bound_tct_s(systems: Systems) -> float | None:
    """Mean TCT of the KV bound over seeds; of each seed the median over systems, which agree unless tasks failed."""
    seeds: dict[int, list[float]] = {}
    for runs in systems.values():
        for run in runs:
            if run.tct_s.mean and run.kv_bound_ratio:
                seeds.setdefault(run.seed, []).append(run.tct_s.mean / run.kv_bound_ratio)
    return mean(median(values) for values in seeds.values()) if seeds else None


def collapsed(systems: Systems, system: str) -> bool:
    """Whether it is far behind the best baseline: what systems without a cap on concurrency do under pressure."""
    best, own = systems.get(best_baseline(systems), ()), over_seeds(systems[system], lambda run: run.tct_s.mean)
    best_s = stable_tct_s(best) if best else None
    return best_s is not None and own is not None and own > COLLAPSE * best_s


def ratio_between(report: Report, condition: Condition, system: str, baseline: str) -> Ratio | None:
    """How many times faster than the baseline the system is, there; None if it was not computed."""
    for ratio in report.ratios:
        if (ratio.system, ratio.baseline) == (system, baseline) and condition_of(ratio) == condition:
            return ratio
    return None


def seeds_of(systems: Systems) -> tuple[int, ...]:
    """All of them, in order of first appearance."""
    return tuple(dict.fromkeys(run.seed for runs in systems.values() for run in runs))
