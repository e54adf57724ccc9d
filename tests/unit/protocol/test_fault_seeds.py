"""All cores of a cell under faults drawn from seeds: nothing is lost, leaks, runs twice or listens to an older leader.

More of them: `make chaos-seeds SEEDS=1000`. One: the command that a failure prints.
"""

from concurrent.futures import ProcessPoolExecutor

import pytest
from fault_run import Told, minimised, replay_command, run
from fault_schedule import draw

SEEDS = 120


@pytest.fixture(scope="module")
def told() -> list[Told]:
    """What became of each seed."""
    with ProcessPoolExecutor(2) as pool:
        return list(pool.map(run, range(SEEDS)))


@pytest.mark.timeout(1800)
def test_every_accepted_step_ends_and_nothing_is_left_over_whatever_goes_wrong(told):
    failed = [one for one in told if one.problems]

    assert not failed, "\n".join(
        f"{one.problems[0]} and {len(one.problems) - 1} more: {replay_command(one.seed, minimised(one.seed))}"
        for one in failed[:3]
    )


def test_the_seeds_meet_what_they_are_to_meet(told):
    ends = {end for one in told for end in one.ends}
    seen = {what for one in told for what, number in one.seen.items() if number}

    assert {"answered", "client gone", "gateway died", "failed: not resumable"} <= ends
    assert seen == {what for one in told for what in one.seen}


def test_the_same_seed_is_the_same_run():
    assert draw(7) == draw(7)
    first, second = run(7), run(7)

    assert (first.ends, first.events, first.seen) == (second.ends, second.events, second.seen)
