"""Figures from records: who counts where, and what makes a run invalid."""

import pytest

from saga.load.client import StepAnswer
from saga.load.figures import Capacity, figures, quantiles
from saga.load.replay import Replayed, StepRecord, TaskRecord


def step(prompt=100, ideal=80, **answer):
    fields = {
        "first_s": 1.0,
        "last_s": 2.0,
        "cached_tokens": 64,
        "control_ms": 3.0,
        "waited": "none",
        "prompt_tokens": 100,
    }
    return StepRecord("a", 0, prompt, ideal, StepAnswer(0.0, **fields | answer))


ONE_TASK = (TaskRecord("a", 0.0, 4.0, 0),)


def run(*steps, tasks=ONE_TASK, held=()):
    return Replayed(tuple(tasks), tuple(steps), tuple(held), (0.001, 0.003), 0.0, 10.0)


def test_rates_and_regenerated_tokens():
    made = figures("saga", run(step(), step(cached_tokens=96), step(cached_tokens=0)), 10.0, Capacity(2, 1000), 0.01)
    assert made.hit_rate == pytest.approx(160 / 300)
    assert made.ideal_hit_rate == pytest.approx(240 / 300)
    assert made.regenerated_tokens == 16 + 0 + 80
    assert made.tct_s.mean == 40.0
    assert made.ttft_s.p50 == 10.0
    assert made.steps_per_real_s == pytest.approx(0.3)
    assert made.valid
    assert made.generator_late_real_ms.p99 == pytest.approx(3.0)


def test_failed_steps_count_as_failures_and_nowhere_else():
    tasks = (TaskRecord("a", 0.0, 4.0, 0), TaskRecord("b", 0.0, 9.0, 1))
    bad = step(error="HTTP 500", ideal=-1, cached_tokens=-1)
    made = figures("saga", run(step(), bad, tasks=tasks), 1.0, Capacity(0, 0), None)
    assert (made.steps, made.steps_failed, made.tasks_failed) == (2, 1, 1)
    assert made.prompt_tokens == 100
    assert made.tct_s.count == 1
    assert made.errors == ("HTTP 500",)
    assert made.pressure_mean is None


def test_control_plane_latency_is_over_steps_that_waited_for_nothing():
    steps = [step(worker="w0"), step(waited="slot", control_ms=900.0), step(waited="", control_ms=-1.0)]
    made = figures("saga", run(*steps), 1.0, Capacity(1, 10), None)
    assert (made.control_ms.count, made.control_ms.p99) == (1, 3.0)
    assert made.steps_by_worker == {"unknown": 2, "w0": 1}
    assert made.steps_waited == {"none": 1, "slot": 1, "unknown": 1}


def test_pressure_is_held_tokens_over_time():
    made = figures("saga", run(step(), held=[(0.0, 100), (5.0, 100), (10.0, -200)]), 1.0, Capacity(1, 100), None)
    assert made.pressure_mean == pytest.approx(1.5)
    assert made.pressure_peak == 2.0


def test_a_lagging_engine_makes_the_run_invalid():
    made = figures("saga", run(step()), 1.0, Capacity(1, 100), 0.06)
    assert not made.valid
    assert "6.0% of a step" in made.invalid_because


def test_percentiles_are_measured_values():
    assert quantiles([]).p50 is None
    made = quantiles([float(value) for value in range(1, 101)])
    assert (made.p50, made.p95, made.p99, made.mean) == (50.0, 95.0, 99.0, 50.5)
    assert quantiles([5.0]).p99 == 5.0
