"""Two readings of time."""

import time

import pytest

from saga.runtime.clock import MonotonicClock, VirtualClock


def test_a_virtual_clock_moves_only_when_told_to():
    clock = VirtualClock(start_s=10.0, wall_at_zero_s=1000.0)

    assert (clock.monotonic_s(), clock.wall_s()) == (10.0, 1010.0)
    assert clock.advance(2.5) == 12.5
    assert clock.advance_to(20.0) == clock.monotonic_s() == 20.0
    assert clock.wall_s() == 1020.0


def test_a_virtual_clock_never_goes_back():
    clock = VirtualClock(start_s=1.0)
    with pytest.raises(ValueError, match="cannot go back from 1"):
        clock.advance(-0.1)

    assert clock.monotonic_s() == 1.0


def test_the_real_clock_reads_the_machine():
    clock = MonotonicClock()
    before_s = time.monotonic()

    assert before_s <= clock.monotonic_s() <= time.monotonic()
    assert abs(clock.wall_s() - time.time()) < 1
