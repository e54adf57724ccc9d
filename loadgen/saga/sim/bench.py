"""`saga bench sim`: all runs of a comparison, in as many processes as asked for, and the report of them.

Every run is a pure function of its spec, so the report does not depend on the number of processes. Called by `cli`.
"""

from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import orjson
from msgspec import Struct, to_builtins
from msgspec.structs import replace

from saga.load.settings import SWE_BENCH
from saga.sim.clusters import load_cluster
from saga.sim.figures import Report, Run, figures, ratios
from saga.sim.runner import HORIZON_S, KV_BOUND, RunRecord, RunSpec, simulate
from saga.sim.systems import make_system

SEEDS = (42, 123, 456, 789, 1001, 1337, 2024, 7777, 8192, 31415)
PEAK_PRESSURES = (0.5, 1.0, 2.0)  # the best throughput of any system at any of these is the peak

Told = Callable[[RunSpec, RunRecord], None]


class SimSettings(Struct, frozen=True):
    """What to compare. Either pressures or loads; `tasks`: conversations a run, None: enough for its users."""

    workload: str = SWE_BENCH
    sessions: Path | None = None
    systems: tuple[str, ...] = ("session-affinity", "saga")
    cluster: str = "small"
    workers: int | None = None
    pressures: tuple[float, ...] = ()
    loads: tuple[float, ...] = ()
    seeds: int = 1
    tasks: int | None = None
    horizon_s: float = HORIZON_S
    jobs: int = 1
    json: Path | None = None


def bench_sim(settings: SimSettings, told: Told) -> Report:
    """Run everything. Raises what reading the cluster, profile, systems and sessions raises, before anything runs."""
    load_cluster(settings.cluster, settings.workers)
    for system in settings.systems:
        make_system(system, 1)
    runs = _closed(settings, told) if not settings.loads else _open(settings, told)
    report = Report(tuple(runs), ratios(runs))
    if settings.json is not None:
        settings.json.write_bytes(as_json(report))
    return report


def as_json(report: Report) -> bytes:
    """The file: same runs, same bytes."""
    return orjson.dumps(to_builtins(report), option=orjson.OPT_INDENT_2) + b"\n"


def _spec(settings: SimSettings, system: str, seed: int) -> RunSpec:
    return RunSpec(
        workload=settings.workload,
        system=system,
        cluster=settings.cluster,
        seed=seed,
        workers=settings.workers,
        tasks=settings.tasks,
        sessions=settings.sessions,
        horizon_s=settings.horizon_s,
    )


def _closed(settings: SimSettings, told: Told) -> list[Run]:
    specs = [
        replace(_spec(settings, system, seed), pressure=pressure)
        for pressure in settings.pressures
        for seed in SEEDS[: settings.seeds]
        for system in (KV_BOUND, *settings.systems)
    ]
    records = _simulate(specs, settings.jobs, told)
    return [
        figures(spec, records[spec], records[replace(spec, system=KV_BOUND)], load=None, peak_tasks_per_min=None)
        for spec in specs
        if spec.system != KV_BOUND
    ]


def _open(settings: SimSettings, told: Told) -> list[Run]:
    """First the peak, at pressure; then Poisson arrivals at fractions of it."""
    seeds = SEEDS[: settings.seeds]
    peak_specs = [
        replace(_spec(settings, system, seeds[0]), pressure=pressure)
        for pressure in PEAK_PRESSURES
        for system in settings.systems
    ]
    peak = max(record.tasks_per_min for record in _simulate(peak_specs, settings.jobs, told).values())
    points = [
        (load, replace(_spec(settings, system, seed), per_min=load * peak))
        for load in settings.loads
        for seed in seeds
        for system in (KV_BOUND, *settings.systems)
    ]
    records = _simulate([spec for _, spec in points], settings.jobs, told)
    return [
        figures(spec, records[spec], records[replace(spec, system=KV_BOUND)], load=load, peak_tasks_per_min=peak)
        for load, spec in points
        if spec.system != KV_BOUND
    ]


def _simulate(specs: Sequence[RunSpec], jobs: int, told: Told) -> dict[RunSpec, RunRecord]:
    records: dict[RunSpec, RunRecord] = {}
    if jobs == 1:
        for spec in specs:
            records[spec] = simulate(spec)
            told(spec, records[spec])
        return records
    with ProcessPoolExecutor(jobs) as pool:
        for spec, record in zip(specs, pool.map(simulate, specs), strict=True):
            records[spec] = record
            told(spec, record)
    return records
