"""How evenly work falls on workers, as a run tells it."""

from collections.abc import Callable
from dataclasses import dataclass, field

import pytest
from msgspec.structs import replace
from placement_story import Story

from saga.contract.messages import Grant
from saga.sim.agenda import Agenda
from saga.sim.figures import _imbalance
from saga.sim.runner import Simulation, simulate
from saga.sim.spec import RunSpec
from saga.sim.work import Work


@dataclass
class QuietWorld:
    """As much of a world as moves need."""

    placement: object
    agenda: Agenda = field(default_factory=Agenda)
    ears: dict = field(default_factory=dict)


def test_each_engine_is_busy_for_a_share_of_the_time_of_measurement():
    record = simulate(RunSpec("webarena", "saga", "small", 1001, pressure=0.2, workers=2, tasks=40))

    assert len(record.busy_shares) == 2
    assert all(0.3 < share < 1.0 + 1e-9 for share in record.busy_shares)
    assert len(record.done_s) == 2
    assert all(0.0 < done_s < record.ended_s for done_s in record.done_s)


def test_imbalance_is_the_busiest_over_the_mean():
    assert _imbalance((0.9, 0.3)) == pytest.approx(1.5)
    assert _imbalance(()) is None
    assert _imbalance((0.0, 0.0)) is None


def test_a_move_costs_what_was_resident_where_the_session_had_run():
    story, work, told = watched()
    grant = story.grant(1)

    told(grant)
    told(_moved(grant, reason="home", left_tokens=5_000))
    assert work.moves == 0

    told(_moved(grant, reason="saves_wait", left_tokens=5_000))
    assert work.moves == 1
    assert work.moved_prefill_s == pytest.approx(5_000 * 1e-4)
    assert [(move.left, move.worker, move.begins) for move in work.seen] == [("w9", grant.worker_id, False)]


def test_a_session_that_has_run_nowhere_leaves_nothing_behind_and_does_not_count_as_a_move():
    story, work, told = watched()

    told(replace(story.grant(1), reason="saves_wait", moved_from="w9"))

    assert (work.moves, work.begun_elsewhere, work.moved_prefill_s) == (0, 1, 0.0)
    assert [move.begins for move in work.seen] == [True]


def watched() -> tuple[Story, Work, Callable[[Grant], None]]:
    """A placement, eyes on it, and what tells them of its grants."""
    story = Story()
    world = QuietWorld(type("Placement", (), {"core": story.core}))
    return story, Work(world), world.ears[Grant]


def _moved(grant: Grant, *, reason: str, left_tokens: int) -> Grant:
    return replace(grant, reason=reason, left_tokens=left_tokens, moved_from="w9", ran_at="w9")


def test_a_worker_that_joins_late_is_empty_until_then_and_works_afterwards():
    simulation = Simulation(RunSpec("webarena", "saga", "joining", 1001, pressure=0.3, workers=2, tasks=30))
    seen = []
    join = simulation.world.join

    def joins() -> None:
        seen.append(simulation.agenda.now_s)
        assert simulation.world.engines["w1"].core.stats.finished == 0
        assert list(simulation.world.placement.core.board.workers) == ["w0"]
        join()

    simulation.world.join = joins
    record = simulation.run()
    simulation.world.check()

    assert len(seen) == 1
    assert seen[0] > 0.0
    assert record.failures == 0
    assert simulation.world.engines["w1"].core.stats.finished > 0
