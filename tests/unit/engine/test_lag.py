"""The lag meter: P99 lateness against the median step."""

import pytest

from saga.engine.lag import LagMeter


def test_a_run_is_judged_by_p99_lateness_over_the_median_step():
    meter = LagMeter()
    assert (meter.p99_s, meter.step_s, meter.p99_fraction) == (0.0, 0.0, 0.0)
    for number in range(100):
        meter.woke(0.001 if number < 98 else 0.5)
    assert meter.p99_fraction == 0.0
    for step_s in (1.0, 2.0, 30.0):
        meter.stepped(step_s)
    assert meter.p99_s == pytest.approx(0.5)
    assert meter.step_s == pytest.approx(2.0)
    assert meter.p99_fraction == pytest.approx(0.25)
