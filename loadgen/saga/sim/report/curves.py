"""Mean task completion time over pressure or load: one chart for each workload and host tier, the KV bound in each."""

import math
from collections.abc import Mapping, Sequence
from typing import Final

from saga.sim.figures import Run
from saga.sim.report.compare import (
    KV_BOUND,
    SAGA,
    Condition,
    Systems,
    bound_tct_s,
    by_condition,
    is_variant,
    over_seeds,
    stable_tct_s,
)
from saga.sim.report.drawing import chart
from saga.sim.report.lines import ALONE, Line, draw, log_at, log_seconds, panel
from saga.sim.report.palette import look

WIDTH, HEIGHT = 552, 390
ROOM: Final = 1.15  # above and below the data, on a log axis

Points = Mapping[float, Systems]  # by pressure or load


def curves(runs: Sequence[Run], least_points: int = 1) -> list[tuple[str, list[str]]]:
    """(heading, one SVG for each host tier) for each workload, cluster and kind of load that has so many points."""
    groups: dict[tuple[str, str, bool], dict[str, dict[float, Systems]]] = {}
    for condition, systems in by_condition(runs).items():
        key = (condition.workload, condition.cluster, condition.pressure is not None)
        kept = {name: found for name, found in systems.items() if not is_variant(name)}
        if kept:
            groups.setdefault(key, {}).setdefault(condition.host_tier, {})[_x(condition)] = kept
    found = []
    for (workload, cluster, closed), tiers in groups.items():
        if max(map(len, tiers.values())) < least_points:
            continue
        limits = _limits(tiers)
        drawings = [
            _curve(f"{workload}, {cluster}", tier, dict(sorted(points.items())), limits, closed=closed)
            for tier, points in sorted(tiers.items())
        ]
        found.append((f"{workload} on {cluster}", drawings))
    return found


def best_overall(points: Points) -> str:
    """The baseline with the lowest geometric mean over all points; empty when none is stable at all of them."""
    scores: dict[str, float] = {}
    for name in dict.fromkeys(name for systems in points.values() for name in systems):
        times = [stable_tct_s(systems.get(name, ())) for systems in points.values()]
        if name not in {SAGA, KV_BOUND} and all(times):
            scores[name] = sum(math.log(time_s) for time_s in times if time_s)
    return min(scores, key=lambda name: scores[name]) if scores else ""


def _x(condition: Condition) -> float:
    return condition.pressure if condition.pressure is not None else condition.load or 0.0


def _limits(tiers: Mapping[str, Points]) -> tuple[float, float]:
    """The same for all tiers: they are to be compared."""
    times = [
        time_s
        for points in tiers.values()
        for systems in points.values()
        for time_s in (bound_tct_s(systems), *(_mean_s(found) for found in systems.values()))
        if time_s
    ]
    return (min(times) / ROOM, max(times) * ROOM) if times else (1.0, 10.0)


def _mean_s(runs: Sequence[Run]) -> float | None:
    return over_seeds(runs, lambda run: run.tct_s.mean)


def _curve(name: str, tier: str, points: Points, limits: tuple[float, float], *, closed: bool) -> str:
    best = best_overall(points)
    names = list(dict.fromkeys(system for systems in points.values() for system in systems))
    names.sort(key=lambda system: (system == SAGA, system == best))
    with chart(f"curve {name} {tier} {closed}", WIDTH, HEIGHT) as drawn:
        axes = panel(drawn, f"Host tier {tier}")
        log_at(axes, list(points))
        log_seconds(axes, *limits)
        axes.set_xlabel("pressure (KV demand of all users / KV capacity)" if closed else "load (fraction of the peak)")
        axes.set_ylabel("mean TCT (s, log scale)")
        lines = [_line(system, points, best) for system in names if system != KV_BOUND]
        draw(drawn, axes, [line for line in (_bound(points), *lines) if line.xs])
        return drawn.svg(f"{name}, host tier {tier}: mean task completion time of each system")


def _line(system: str, points: Points, best: str) -> Line:
    at = [(x, mean_s, systems[system]) for x, systems in points.items() if (mean_s := _mean_s(systems.get(system, ())))]
    return Line(
        name=system,
        look=look(system),
        xs=tuple(x for x, _, _ in at),
        ys=tuple(mean_s for _, mean_s, _ in at),
        tips=tuple(f"{system} at {x:g}: {mean_s:,.0f} s{_range(runs)}" for x, mean_s, runs in at),
        bold=system in {SAGA, best},
        ranges=tuple(_beside_bound(runs, bound_tct_s(points[x])) for x, _, runs in at),
        note=" (best)" if system == best else " (unstable)" if at and any(r.unstable for r in at[-1][2]) else "",
    )


def _seeds(runs: Sequence[Run]) -> tuple[float, float]:
    means = [run.tct_s.mean for run in runs if run.tct_s.mean is not None]
    return min(means), max(means)


def _beside_bound(runs: Sequence[Run], bound_s: float | None) -> tuple[float, float]:
    """Lowest and highest seed, each against its own KV bound: what its tasks are like is nobody's doing."""
    ratios = [run.kv_bound_ratio for run in runs if run.kv_bound_ratio]
    return (min(ratios) * bound_s, max(ratios) * bound_s) if ratios and bound_s else _seeds(runs)


def _range(runs: Sequence[Run]) -> str:
    low_s, high_s = _seeds(runs)
    seeds = f", {low_s:,.0f} to {high_s:,.0f} s over {len(runs)} seeds" if len(runs) > 1 else ""
    return seeds + (", unstable" if any(run.unstable for run in runs) else "")


def _bound(points: Points) -> Line:
    at = [(x, bound_s) for x, systems in points.items() if (bound_s := bound_tct_s(systems))]
    if len(at) == 1:  # a line all the same
        ((x, bound_s),) = at
        at = [(x / ALONE, bound_s), (x, bound_s)]
    return Line(
        name="KV bound",
        look=look(KV_BOUND),
        xs=tuple(x for x, _ in at),
        ys=tuple(bound_s for _, bound_s in at),
        tips=tuple(f"KV bound at {x:g}: {bound_s:,.0f} s" for x, bound_s in at),
        bold=True,
    )
