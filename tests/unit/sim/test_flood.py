"""One tenant offers many times its share: what the others do stays the same."""

from itertools import pairwise

import pytest

from saga.sim.flood import FLOOD, STEADY, TENANTS, Flood
from saga.sim.runner import simulate
from saga.sim.spec import RunSpec
from saga.sim.workloads import WorkloadError, check_workload

PER_S = 0.05


def made(times: float) -> tuple[Flood, list[float]]:
    flood = Flood(times, 42, 32_768, 16)
    return flood, flood.starts(PER_S, 40)


def of_others(times: float) -> list[tuple[float, str, int]]:
    """When they start what, how many steps long."""
    flood, starts = made(times)
    drawn = [(at_s, flood.draw(number)) for number, at_s in enumerate(starts)]
    return [(at_s, talk.tenant, len(talk.agents[0].steps)) for at_s, talk in drawn if talk.tenant != FLOOD]


def test_the_others_start_the_same_tasks_at_the_same_moments_whatever_is_offered_beside_them():
    assert of_others(1.0) == of_others(10.0)
    assert {tenant for _, tenant, _ in of_others(1.0)} == set(STEADY)


def test_the_flood_offers_ten_times_its_share_and_has_a_backlog_from_the_start():
    for times in (1.0, 10.0):
        flood, starts = made(times)
        assert starts == sorted(starts)
        later = [s for n, s in enumerate(starts) if s > 0.0 and flood.draw(n).tenant == FLOOD]
        expected = times * PER_S / len(TENANTS) * starts[-1]
        assert len(later) == pytest.approx(expected, rel=0.4)
        assert starts.count(0.0) == 40


def test_a_run_waits_for_the_others_alone():
    flood, starts = made(10.0)

    assert len(flood.awaited()) == 40 < len(starts)
    assert all(flood.draw(number).tenant in STEADY for number in flood.awaited())


def test_no_two_tasks_are_the_same():
    flood, starts = made(2.0)
    tokens = [flood.draw(number).agents[0].steps for number in range(len(starts))]

    assert all(one != other for one, other in pairwise(tokens))


def test_in_the_closed_loop_tenants_take_turns_whatever_is_offered():
    one, ten = Flood(1.0, 42, 32_768, 16), Flood(10.0, 42, 32_768, 16)

    assert [one.draw(n) for n in range(6)] == [ten.draw(n) for n in range(6)]
    assert [one.draw(n).tenant for n in range(3)] == list(TENANTS)


@pytest.mark.parametrize("name", ["flood", "flood:0", "flood:-1", "flood:many", "flood:101", "flood:nan"])
def test_a_flood_of_nothing_is_refused_and_says_what_is_expected(name: str):
    with pytest.raises(WorkloadError, match="flood:10"):
        check_workload(name)


def test_a_flooded_run_ends_with_the_last_of_the_others():
    spec = RunSpec(workload="flood:10", system="saga", cluster="small", seed=42, workers=1, tasks=4, per_min=2.0)

    record = simulate(spec, check=True)

    assert record.failures == 0
    assert record.conversations > 8
    assert {task.agent_class for task in record.measured} <= set(TENANTS)
