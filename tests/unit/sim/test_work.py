"""How evenly work falls on workers, as a run tells it."""

from dataclasses import dataclass, field

import pytest
from msgspec.structs import replace
from placement_story import Story

from saga.contract.messages import Grant
from saga.sim.figures import _imbalance
from saga.sim.runner import simulate
from saga.sim.spec import RunSpec
from saga.sim.work import Work


@dataclass
class QuietWorld:
    """As much of a world as moves need."""

    placement: object
    ears: dict = field(default_factory=dict)


def test_each_engine_is_busy_for_a_share_of_the_time_of_measurement():
    record = simulate(RunSpec("webarena", "saga", "small", 1001, pressure=0.2, workers=2, tasks=40))

    assert len(record.busy_shares) == 2
    assert all(0.3 < share < 1.0 + 1e-9 for share in record.busy_shares)


def test_imbalance_is_the_busiest_over_the_mean():
    assert _imbalance((0.9, 0.3)) == pytest.approx(1.5)
    assert _imbalance(()) is None
    assert _imbalance((0.0, 0.0)) is None


def test_a_move_costs_what_was_resident_where_the_session_had_run():
    story = Story()
    grant = story.grant(1)
    world = QuietWorld(type("Placement", (), {"core": story.core}))
    work = Work(world)
    told = world.ears[Grant]

    told(grant)
    told(_moved(grant, reason="home", left_tokens=5_000))
    assert work.moves == 0

    told(_moved(grant, reason="saves_wait", left_tokens=5_000))
    assert work.moves == 1
    assert work.moved_prefill_s == pytest.approx(5_000 * 1e-4)


def _moved(grant: Grant, *, reason: str, left_tokens: int) -> Grant:
    return replace(grant, reason=reason, left_tokens=left_tokens, moved_from="w9")
