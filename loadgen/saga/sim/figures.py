"""From records of runs to the figures of the report: percentiles, slowdown against the KV bound, ratios with intervals.

Pure arithmetic. The shapes are those of the JSON, stable: keys are only ever added. Called by `bench`.
"""

import math
from collections.abc import Sequence
from itertools import permutations
from statistics import median

from msgspec import Struct

from saga.load.figures import quantiles
from saga.sim.ledger import TaskRecord
from saga.sim.spec import RunRecord, RunSpec

SLO_SLOWDOWN = 1.5
MOST_CLASSES = 10  # recorded sessions have a class for each pair of prompt sizes: no table of those
# Two-sided 95 % quantiles of Student's t for 1, 2, ... degrees of freedom; the last stands for all above.
T95 = (12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262)


class Spread(Struct, frozen=True):
    """Of task completion times, seconds."""

    mean: float | None
    p50: float | None
    p95: float | None
    p99: float | None


class Tail(Struct, frozen=True):
    """Median and P99."""

    p50: float | None
    p99: float | None


class ClassFigures(Struct, frozen=True):
    """Tasks of one class (tenant size, agent kind), where a workload has several. Times in seconds."""

    name: str
    tasks: int
    tct_mean_s: float | None
    tct_p95_s: float | None
    slo_attainment: float
    slo_attainment_by_class_mean: float | None = None
    slo_out_of_reach: float | None = None


class Run(Struct, frozen=True):
    """One system, cluster, seed and load. None: there was nothing to measure."""

    workload: str
    system: str
    cluster: str
    seed: int
    pressure: float | None
    load: float | None
    host_tier: str
    peak_tasks_per_min: float | None
    tct_s: Spread
    slowdown: Tail
    slo_attainment: float | None
    hit_rate: float | None
    regenerated_tokens: int
    useful_kv_share: float | None
    tasks_per_min: float
    ttft_s: Tail
    kv_bound_ratio: float | None
    unstable: bool
    failures: int
    users: int | None
    tasks_measured: int
    steps: int
    retractions: int
    refusals: int
    dropped_sessions: int
    virtual_s: float
    slo_attainment_by_class_mean: float | None = None
    """As published: within 1.5 x the expected TCT of the task's class, here the class's mean in the KV bound."""
    slo_out_of_reach: float | None = None
    """Of that definition: the share of tasks that miss it in the KV bound already, where nothing waits for KV."""
    by_class: tuple[ClassFigures, ...] = ()
    loaded_back_tokens: int = 0
    """From the host KV tier: neither prefilled nor found on the device."""
    imbalance: float | None = None
    """Largest over mean share of time in which an engine ran something, over the time of measurement."""
    done_imbalance: float | None = None
    """The same of the work that engines got done: on a busy cell all of them run something all the time."""
    moves: int = 0
    """Steps stolen from where their session had run. First steps of sessions are `begun_elsewhere`."""
    moved_prefill_s: float = 0.0
    """Engine-seconds of prefilling what those had there."""
    moved_saved_s: float = 0.0
    """Waiting that was expected to be saved by it."""
    moves_per_10_steps: float = 0.0
    """Over all steps of the run."""
    begun_elsewhere: int = 0
    """Sessions whose first step waited for one worker and started on another: nothing was left behind."""
    shared_loaded_tokens: int = 0
    """From a KV tier that engines share, to their host tiers."""
    service_gap_s: float | None = None
    """Largest difference of two tenants' normalised service while both were busy: engine-seconds per unit of weight."""


class Ratio(Struct, frozen=True):
    """`tct_ratio`: mean TCT of the baseline over that of the system, median over seeds; above 1: it is faster."""

    workload: str
    system: str
    baseline: str
    cluster: str
    pressure: float | None
    load: float | None
    host_tier: str
    tct_ratio: float | None
    ci95: tuple[float, float] | None


class Report(Struct, frozen=True):
    """The whole file."""

    runs: tuple[Run, ...]
    ratios: tuple[Ratio, ...]


def figures(
    spec: RunSpec, record: RunRecord, bound: RunRecord, *, load: float | None, peak_tasks_per_min: float | None
) -> Run:
    """The figures of one run, against the KV-bound run of the same tasks and arrivals."""
    tct = quantiles([task.tct_s for task in record.measured])
    bound_tct_s = {(task.number, task.turn): task.tct_s for task in bound.measured}
    slowdowns = slowdowns_of(record, bound)
    slow = quantiles(slowdowns)
    expected_s = _class_means_s(bound.measured)
    bound_mean_s = quantiles(list(bound_tct_s.values())).mean
    ttft = quantiles(record.ttft_s)
    expected = len(bound_tct_s) or len(record.measured)
    return Run(
        workload=spec.workload,
        system=spec.system,
        cluster=spec.cluster,
        seed=spec.seed,
        pressure=spec.pressure,
        load=load,
        host_tier=spec.host_tier,
        peak_tasks_per_min=peak_tasks_per_min,
        tct_s=Spread(tct.mean, tct.p50, tct.p95, tct.p99),
        slowdown=Tail(slow.p50, slow.p99),
        # A task that never ended met no objective.
        slo_attainment=sum(s <= SLO_SLOWDOWN for s in slowdowns) / expected if expected else None,
        hit_rate=record.cached_tokens / record.prompt_tokens if record.prompt_tokens else None,
        regenerated_tokens=record.regenerated_tokens,
        useful_kv_share=record.useful_kv_share,
        tasks_per_min=record.tasks_per_min,
        ttft_s=Tail(ttft.p50, ttft.p99),
        kv_bound_ratio=tct.mean / bound_mean_s if tct.mean is not None and bound_mean_s else None,
        unstable=record.unstable,
        failures=record.failures,
        users=record.users or None,
        tasks_measured=len(record.measured),
        steps=record.steps,
        retractions=record.retractions,
        refusals=record.refusals,
        dropped_sessions=record.dropped_sessions,
        virtual_s=record.ended_s,
        slo_attainment_by_class_mean=_share_within(record.measured, expected_s, expected),
        slo_out_of_reach=_out_of_reach(bound.measured, expected_s),
        loaded_back_tokens=record.loaded_back_tokens,
        imbalance=_imbalance(record.busy_shares),
        done_imbalance=_imbalance(record.done_s),
        moves=record.moves,
        moved_prefill_s=record.moved_prefill_s,
        moved_saved_s=record.moved_saved_s,
        moves_per_10_steps=10.0 * record.moves / record.steps if record.steps else 0.0,
        begun_elsewhere=record.begun_elsewhere,
        shared_loaded_tokens=record.shared_loaded_tokens,
        service_gap_s=record.service_gap_s,
        by_class=_by_class(record.measured, bound.measured) if 1 < len(expected_s) <= MOST_CLASSES else (),
    )


def _imbalance(by_worker: Sequence[float]) -> float | None:
    mean = sum(by_worker) / len(by_worker) if by_worker else 0.0
    return max(by_worker) / mean if mean > 0.0 else None


def _class_means_s(tasks: Sequence[TaskRecord]) -> dict[str, float]:
    by_class: dict[str, list[float]] = {}
    for task in tasks:
        by_class.setdefault(task.agent_class, []).append(task.tct_s)
    return {name: sum(values) / len(values) for name, values in sorted(by_class.items())}


def _share_within(tasks: Sequence[TaskRecord], expected_s: dict[str, float], of: int) -> float | None:
    inside = sum(task.tct_s <= SLO_SLOWDOWN * expected_s.get(task.agent_class, 0.0) for task in tasks)
    return inside / of if of else None


def _out_of_reach(bound: Sequence[TaskRecord], expected_s: dict[str, float]) -> float | None:
    """As published, of the bound's own tasks: a class's mean is no bound on its members."""
    inside = _share_within(bound, expected_s, len(bound))
    return None if inside is None else 1.0 - inside


def _by_class(tasks: Sequence[TaskRecord], bound: Sequence[TaskRecord]) -> tuple[ClassFigures, ...]:
    bound_tct_s = {(task.number, task.turn): task.tct_s for task in bound}
    found = []
    for name in sorted({task.agent_class for task in bound}):
        of_class = [task for task in tasks if task.agent_class == name]
        bound_of_class = [task for task in bound if task.agent_class == name]
        expected = len(bound_of_class)
        expected_s = _class_means_s(bound_of_class)
        tct = quantiles([task.tct_s for task in of_class])
        met = sum(t.tct_s <= SLO_SLOWDOWN * bound_tct_s.get((t.number, t.turn), 0.0) for t in of_class)
        found.append(
            ClassFigures(
                name,
                len(of_class),
                tct.mean,
                tct.p95,
                met / expected,
                _share_within(of_class, expected_s, expected),
                _out_of_reach(bound_of_class, expected_s),
            )
        )
    return tuple(found)


def slowdowns_of(record: RunRecord, bound: RunRecord) -> list[float]:
    """Of each measured task, its TCT over its own in the KV-bound run."""
    bound_tct_s = {(task.number, task.turn): task.tct_s for task in bound.measured}
    return [
        task.tct_s / bound_tct_s[task.number, task.turn]
        for task in record.measured
        if bound_tct_s.get((task.number, task.turn), 0.0) > 0
    ]


def ratios(runs: Sequence[Run]) -> tuple[Ratio, ...]:
    """One for each ordered pair of systems under the same conditions, in the order in which these first appear."""
    conditions: dict[tuple[str, str, float | None, float | None, str], dict[str, dict[int, Run]]] = {}
    for run in runs:
        condition = (run.workload, run.cluster, run.pressure, run.load, run.host_tier)
        conditions.setdefault(condition, {}).setdefault(run.system, {})[run.seed] = run
    found = []
    for (workload, cluster, pressure, load, host_tier), systems in conditions.items():
        for baseline, system in permutations(systems, 2):
            value, ci95 = paired_ratio(systems[baseline], systems[system])
            found.append(Ratio(workload, system, baseline, cluster, pressure, load, host_tier, value, ci95))
    return tuple(found)


def paired_ratio(baseline: dict[int, Run], system: dict[int, Run]) -> tuple[float | None, tuple[float, float] | None]:
    """(median over seeds, Student's 95 % interval of the mean log ratio), by seed; None where a run is unstable."""
    values = []
    for seed, run in system.items():
        other = baseline.get(seed)
        if other is None or run.unstable or other.unstable or not run.tct_s.mean or not other.tct_s.mean:
            return None, None
        values.append(other.tct_s.mean / run.tct_s.mean)
    if len(values) < 2:
        return median(values), None
    logs = [math.log(value) for value in values]
    mean = sum(logs) / len(logs)
    variance = sum((log - mean) ** 2 for log in logs) / (len(logs) - 1)
    half = T95[min(len(logs) - 2, len(T95) - 1)] * math.sqrt(variance / len(logs))
    return median(values), (math.exp(mean - half), math.exp(mean + half))
