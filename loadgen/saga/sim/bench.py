"""`saga bench sim` and `saga bench suite`: all runs of some comparisons, in as many processes as asked for, and the
report of them.

Every run is a pure function of its spec, so the report does not depend on the number of processes, nor on which runs
were kept from an earlier, interrupted command. Called by `cli`.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from pathlib import Path

import orjson
from msgspec import Struct, to_builtins
from msgspec.structs import replace

from saga.load.settings import SWE_BENCH
from saga.sim.clusters import load_cluster, shared_tier_of, with_host_tier
from saga.sim.detail import RunDetail
from saga.sim.figures import Report, Run, figures, ratios, slowdowns_of
from saga.sim.kept import KeptRuns
from saga.sim.runner import KV_BOUND, simulate
from saga.sim.spec import HORIZON_S, ROUNDS, TASKS, HostTier, RunRecord, RunSpec
from saga.sim.systems.registry import make_system

SEEDS = (42, 123, 456, 789, 1001, 1337, 2024, 7777, 8192, 31415)
PEAK_PRESSURES = (0.5, 1.0, 2.0)  # the best throughput of any system at any of these is the peak

Told = Callable[[RunSpec], None]  # a run is done


class Comparison(Struct, frozen=True, forbid_unknown_fields=True):
    """What to compare. Either pressures or loads; conversations a run as in RunSpec."""

    workload: str = SWE_BENCH
    sessions: Path | None = None
    skip_bad: bool = False
    systems: tuple[str, ...] = ("session-affinity", "saga")
    cluster: str = "small"
    workers: int | None = None
    pressures: tuple[float, ...] = ()
    loads: tuple[float, ...] = ()
    host_tiers: tuple[HostTier, ...] = ("off",)
    seeds: int = 1
    tasks: int | None = None
    least_tasks: int = TASKS
    rounds: float = ROUNDS
    horizon_s: float = HORIZON_S
    detail: bool = False
    """Samples and a story for the report, of the runs with the first seed."""


class Results(Struct, frozen=True):
    """The figures, and the detail that was asked for."""

    report: Report
    details: tuple[RunDetail, ...]


class Point(Struct, frozen=True):
    """One place in a comparison: what is run there, and beside which bound."""

    spec: RunSpec
    load: float | None = None
    peak_tasks_per_min: float | None = None

    @property
    def bound(self) -> RunSpec:
        """The KV-bound run of the same tasks and arrivals; it needs no host tier."""
        return replace(self.spec, system=KV_BOUND, host_tier="off", detail=False)


def compare(comparisons: Sequence[Comparison], told: Told, *, jobs: int = 1, keep: Path | None = None) -> Results:
    """Run everything. Raises what reading clusters, profiles, systems and sessions raises, before anything runs."""
    for comparison in comparisons:
        cluster, profile = load_cluster(comparison.cluster, comparison.workers)
        for tier in comparison.host_tiers:
            shared_tier_of(cluster, profile, tier)
        for system in comparison.systems:
            for tier in comparison.host_tiers:
                with_host_tier(make_system(system, 1).engine, profile, tier)
    kept = KeptRuns(keep) if keep is not None else None
    closed = {i: _closed_points(comparison) for i, comparison in enumerate(comparisons) if not comparison.loads}
    peaks = {i: _peak_specs(comparison) for i, comparison in enumerate(comparisons) if comparison.loads}
    first = [spec for points in closed.values() for spec in _specs(points)]
    first += [spec for specs in peaks.values() for spec in specs.values()]
    records = _simulate(first, jobs, kept, told)
    opened = {i: _open_points(comparisons[i], specs, records) for i, specs in peaks.items()}
    records |= _simulate([spec for points in opened.values() for spec in _specs(points)], jobs, kept, told)
    points = [point for i in range(len(comparisons)) for point in (closed.get(i) or opened[i])]
    runs = [_figures(point, records) for point in points]
    details = [detail for point in points if (detail := _detail(point, records)) is not None]
    return Results(Report(tuple(runs), ratios(runs)), tuple(details))


def count_runs(comparisons: Sequence[Comparison]) -> int:
    """Runs that `compare` will tell of, bounds and peaks included."""
    total = 0
    specs: set[RunSpec] = set()
    for comparison in comparisons:
        systems, tiers = len(comparison.systems), len(comparison.host_tiers)
        if comparison.loads:
            total += len(_peak_specs(comparison)) + len(comparison.loads) * comparison.seeds * (systems * tiers + 1)
        else:
            specs.update(_specs(_closed_points(comparison)))
    return total + len(specs)


def as_json(report: Report) -> bytes:
    """The file: same runs, same bytes."""
    return orjson.dumps(to_builtins(report), option=orjson.OPT_INDENT_2) + b"\n"


def _spec(comparison: Comparison, system: str, seed: int, tier: HostTier) -> RunSpec:
    return RunSpec(
        workload=comparison.workload,
        system=system,
        cluster=comparison.cluster,
        seed=seed,
        workers=comparison.workers,
        tasks=comparison.tasks,
        least_tasks=comparison.least_tasks,
        rounds=comparison.rounds,
        sessions=comparison.sessions,
        skip_bad=comparison.skip_bad,
        horizon_s=comparison.horizon_s,
        host_tier=tier,
        detail=comparison.detail and seed == SEEDS[0],
    )


def _closed_points(comparison: Comparison) -> list[Point]:
    return [
        Point(replace(_spec(comparison, system, seed, tier), pressure=pressure))
        for pressure in comparison.pressures
        for tier in comparison.host_tiers
        for seed in SEEDS[: comparison.seeds]
        for system in comparison.systems
    ]


def _peak_specs(comparison: Comparison) -> dict[tuple[str, HostTier, float], RunSpec]:
    """Runs at pressure whose best throughput is the peak."""
    return {
        (system, tier, pressure): replace(_spec(comparison, system, SEEDS[0], tier), pressure=pressure, detail=False)
        for pressure in PEAK_PRESSURES
        for tier in comparison.host_tiers
        for system in comparison.systems
    }


def _open_points(
    comparison: Comparison,
    peaks: Mapping[tuple[str, HostTier, float], RunSpec],
    records: Mapping[RunSpec, RunRecord],
) -> list[Point]:
    """Poisson arrivals at fractions of the peak."""
    peak = max(records[spec].tasks_per_min for spec in peaks.values())
    return [
        Point(replace(_spec(comparison, system, seed, tier), per_min=load * peak), load, peak)
        for load in comparison.loads
        for tier in comparison.host_tiers
        for seed in SEEDS[: comparison.seeds]
        for system in comparison.systems
    ]


def _specs(points: Iterable[Point]) -> list[RunSpec]:
    """What to run for these, bounds once each."""
    return list(dict.fromkeys(spec for point in points for spec in (point.bound, point.spec)))


def _figures(point: Point, records: Mapping[RunSpec, RunRecord]) -> Run:
    spec = point.spec
    return figures(
        spec, records[spec], records[point.bound], load=point.load, peak_tasks_per_min=point.peak_tasks_per_min
    )


def _detail(point: Point, records: Mapping[RunSpec, RunRecord]) -> RunDetail | None:
    spec, record = point.spec, records[point.spec]
    seen = record.detail
    if seen is None:
        return None
    return RunDetail(
        workload=spec.workload,
        system=spec.system,
        cluster=spec.cluster,
        seed=spec.seed,
        pressure=spec.pressure,
        load=point.load,
        host_tier=spec.host_tier,
        workers=seen.workers,
        tenants=seen.tenants,
        weights=seen.weights,
        kv_tokens=seen.kv_tokens,
        samples=seen.samples,
        shown=seen.shown,
        spans=seen.spans,
        moves=seen.moves,
        tct_s=tuple(sorted(task.tct_s for task in record.measured)),
        slowdowns=tuple(sorted(slowdowns_of(record, records[point.bound]))),
    )


def _simulate(specs: Sequence[RunSpec], jobs: int, kept: KeptRuns | None, told: Told) -> dict[RunSpec, RunRecord]:
    records: dict[RunSpec, RunRecord] = {}
    left: list[RunSpec] = []
    for spec in dict.fromkeys(specs):
        record = kept.get(spec) if kept is not None else None
        if record is None:
            left.append(spec)
        else:
            records[spec] = record
            told(spec)

    def done(spec: RunSpec, record: RunRecord) -> None:
        records[spec] = record
        if kept is not None:
            kept.put(spec, record)
        told(spec)

    if jobs == 1:
        for spec in left:
            done(spec, simulate(spec))
        return records
    # The longest first, so that no process is left alone with one at the end.
    left.sort(key=lambda spec: -(spec.pressure or 1.0))
    with ProcessPoolExecutor(jobs) as pool:
        running = {pool.submit(simulate, spec): spec for spec in left}
        try:
            for future in as_completed(running):
                done(running[future], future.result())
        finally:
            pool.shutdown(cancel_futures=True)  # after an error or Ctrl-C nobody waits for the rest
    return records
