"""Resident memory over time, and what the second half of it says."""

import asyncio
import os

import pytest

from saga.load.process_memory import Memory, rss_bytes, sampled


def test_the_slope_is_of_the_second_half():
    filling_up = Memory("a", [0.0, 10.0, 20.0, 30.0, 40.0, 50.0], [0, 500, 1_000, 1_000, 1_000, 1_000])
    leaking = Memory("b", [0.0, 10.0, 20.0, 30.0, 40.0, 50.0], [0, 0, 0, 100, 200, 300])

    assert filling_up.slope_bytes_per_s == 0.0
    assert leaking.slope_bytes_per_s == pytest.approx(10.0)
    assert Memory("c", [0.0], [5]).slope_bytes_per_s == 0.0


def test_a_process_that_is_not_there_has_no_memory():
    assert rss_bytes(2**22 + 1) is None


async def test_it_looks_until_it_is_cancelled_and_then_tells():
    names = {"me": os.getpid(), "nobody": 2**22 + 1}
    looking = asyncio.create_task(sampled(lambda: names, 0.01))
    await asyncio.sleep(0.05)

    looking.cancel()

    (me,) = await looking
    assert me.name == "me"
    assert len(me.at_s) >= 2
    assert all(size > 2**20 for size in me.rss_bytes)
