import math

import pytest

from saga.sim.figures import figures, paired_ratio, ratios
from saga.sim.ledger import TaskRecord
from saga.sim.runner import grows
from saga.sim.spec import RunRecord, RunSpec


def record(*tct_s: float, unstable: bool = False, failures: int = 0) -> RunRecord:
    tasks = tuple(TaskRecord(number, 0, 10.0, 10.0 + tct) for number, tct in enumerate(tct_s))
    return RunRecord(
        users=3, conversations=5, dropped_sessions=0, measured=tasks, ttft_s=(0.1, 0.3), prompt_tokens=100,
        cached_tokens=80, regenerated_tokens=7, loaded_back_tokens=5, tasks_per_min=2.0, failures=failures,
        refusals=0, steps=9, retractions=0, unstable=unstable, ended_s=99.0, useful_kv_share=0.5,
    )  # fmt: skip


def run(system: str, seed: int, tct_s: float, *, unstable: bool = False):
    spec = RunSpec("swe-bench", system, "small", seed, pressure=1.0)
    found = record(tct_s, unstable=unstable)
    return figures(spec, found, record(10.0), load=None, peak_tasks_per_min=None)


def test_a_task_is_compared_with_itself_in_the_bound():
    spec = RunSpec("swe-bench", "saga", "small", 42, pressure=1.0)
    found = figures(spec, record(10.0, 40.0), record(10.0, 20.0), load=None, peak_tasks_per_min=None)
    assert found.slowdown.p50 == 1.0
    assert found.slowdown.p99 == 2.0
    assert found.slo_attainment == 0.5
    assert found.kv_bound_ratio == pytest.approx(25 / 15)
    assert found.hit_rate == 0.8


def test_a_task_that_never_ended_met_no_objective():
    spec = RunSpec("swe-bench", "saga", "small", 42, pressure=1.0)
    found = figures(spec, record(10.0, failures=1), record(10.0, 20.0), load=None, peak_tasks_per_min=None)
    assert found.slo_attainment == 0.5
    assert found.failures == 1


def test_ratios_are_paired_by_seed_one_per_ordered_pair():
    runs = [run(system, seed, tct) for seed in (1, 2, 3) for system, tct in (("a", 20.0 + seed), ("b", 10.0))]
    found = {(r.system, r.baseline): r for r in ratios(runs)}
    assert set(found) == {("a", "b"), ("b", "a")}
    assert found["b", "a"].tct_ratio == pytest.approx(2.2)
    low, high = found["b", "a"].ci95
    assert low < 2.2 < high
    assert found["a", "b"].ci95[0] == pytest.approx(1 / high)


def test_one_seed_has_no_interval_and_an_unstable_run_no_ratio():
    assert paired_ratio({1: run("a", 1, 20.0)}, {1: run("b", 1, 10.0)}) == (2.0, None)
    assert paired_ratio({1: run("a", 1, 20.0, unstable=True)}, {1: run("b", 1, 10.0)}) == (None, None)


def test_the_interval_is_students():
    baseline = {seed: run("a", seed, 10.0 * math.e**seed) for seed in (1, 2, 3)}
    system = {seed: run("b", seed, 10.0) for seed in (1, 2, 3)}
    ratio, ci95 = paired_ratio(baseline, system)
    assert ratio == pytest.approx(math.e**2)
    assert ci95 == pytest.approx((math.exp(2 - 4.303 / math.sqrt(3)), math.exp(2 + 4.303 / math.sqrt(3))))


def test_a_queue_that_grows_throughout_is_told_from_one_that_does_not():
    assert grows([*range(1, 41)])
    assert not grows([3, 4, 3, 5] * 10)
    assert not grows([1, 9, 9, 9, 9, 9, 9, 9])
