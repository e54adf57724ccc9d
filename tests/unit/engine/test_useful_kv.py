"""What the pool says its room was used for, against sums made by hand."""

import pytest
from engine_drive import PAGE, Drive, small_profile

from saga.engine.events import Abort


def watched(drive: Drive) -> float:
    """Run to the end; the integral of the pages in use, made from what is seen between wake-ups."""
    total = 0.0
    while drive.wake_s is not None:
        used_pages = drive.core.pool.used_tokens // PAGE
        total += used_pages * (drive.wake_s - drive.now_s)
        drive.step()
    return total


@pytest.mark.parametrize("shrink", [1, 3])
def test_pages_in_use_are_integrated_exactly(shrink):
    integrals = []
    for progress in (True, False):
        drive = Drive(small_profile(kv_tokens=400, context_tokens=400, shrink=shrink), progress=progress)
        for number in range(3):
            drive.ask(f"r{number}", str(number) * 50, "o" * (20 + 15 * number))
        if progress:
            assert watched(drive) == pytest.approx(drive.core.pool.in_use_page_s(drive.now_s))
        drive.run()
        integrals.append(drive.core.pool.in_use_page_s(drive.now_s))
        assert drive.core.pool.in_use_page_s(drive.now_s + 50.0) == pytest.approx(integrals[-1])
    assert integrals[0] == pytest.approx(integrals[1])


def test_one_late_wake_up_integrates_the_same():
    integrals = []
    for late in (False, True):
        drive = Drive()
        drive.ask("a", "a" * 30, "o" * 20)
        drive.ask("b", "b" * 9, "o" * 30)
        if not late:
            drive.run()
        drive.now_s = 100.0
        drive.do(Abort("nobody"))
        integrals.append(drive.core.pool.in_use_page_s(100.0))
    assert integrals[0] == pytest.approx(integrals[1])


def test_an_idle_page_that_is_hit_again_counts_from_its_release():
    drive = Drive()
    drive.ask("one", "p" * 16, "o" * 5)
    drive.run()
    pool = drive.core.pool
    assert pool.reused_page_s == 0.0
    idle_since_s = drive.now_s
    drive.now_s += 10.0
    drive.ask("two", "p" * 16 + "q" * 4, "o")
    assert pool.reused_page_s == pytest.approx(4 * (drive.now_s - idle_since_s))
    # Shared with one that runs, it is not idle.
    drive.ask("three", "p" * 16 + "r" * 4, "o")
    drive.run()
    assert pool.reused_page_s == pytest.approx(40.0)


def test_what_is_evicted_unused_or_only_tried_for_does_not_count():
    drive = Drive(small_profile(kv_tokens=80))
    drive.ask("one", "p" * 20, "o")
    drive.run()
    drive.now_s += 10.0
    drive.ask("big", "b" * 60, "o" * 10)
    drive.step()
    drive.ask("two", "p" * 20 + "q" * 20, "o")  # no room beside `big`: tried, not started
    while "big" not in drive.finished:
        drive.step()
        assert drive.core.pool.reused_page_s == 0.0
        drive.check()
    drive.run()
    assert drive.finished["two"].output_tokens == 1
    drive.now_s += 10.0
    drive.ask("again", "z" * 79, "o")
    drive.run()
    seen = drive.core.pool.reused_page_s
    drive.ask("one more", "p" * 20, "o")
    drive.run()
    assert drive.core.pool.reused_page_s == seen
