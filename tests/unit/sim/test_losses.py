"""A worker that dies in the middle of a run: its KV is gone, its steps go on elsewhere, and nothing leaks."""

from typing import Any

import pytest

from saga.contract.ids import WorkerId
from saga.sim.runner import Simulation
from saga.sim.spec import RunRecord, RunSpec

LOST_AT_S = 60.0


def run(system: str, *, for_s: float | None) -> tuple[Simulation, RunRecord]:
    """A small run in which the second worker is away for so long (None: never), and a little more time after it."""
    simulation = Simulation(RunSpec("swe-bench", system, "small", 42, pressure=0.6, workers=2, tasks=16))
    seen: list[Any] = []

    def lose(_: None) -> None:
        seen.append(simulation.world.engines[WorkerId("w1")].core.running)
        simulation.world.lose(1, for_s or 0.0)

    if for_s is not None:
        simulation.agenda.at(LOST_AT_S, lose, None)
    record = simulation.run()
    if for_s is not None:
        assert seen[0] > 0, "nothing ran there"
    simulation.agenda.stopped = False
    simulation.agenda.run(max(simulation.agenda.now_s, LOST_AT_S + (for_s or 0.0)) + 8.0)
    return simulation, record


@pytest.mark.parametrize(("system", "for_s"), [("saga", 0.2), ("saga", 120.0), ("session-affinity", 2.0)])
def test_every_task_ends_although_a_worker_dies(system: str, for_s: float):
    simulation, record = run(system, for_s=for_s)
    world = simulation.world
    world.check()
    assert record.failures == 0
    assert len(simulation.ledger.tasks) == 16
    assert world.placement.core.board.leases == {}
    assert len(world.gateway.core._steps) == 0
    assert all(engine.core.idle for engine in world.engines.values())


def test_what_it_held_is_computed_again_and_the_new_engine_serves():
    _, calm = run("saga", for_s=None)
    simulation, record = run("saga", for_s=5.0)
    assert record.steps == calm.steps
    assert record.regenerated_tokens > calm.regenerated_tokens
    engine, index = simulation.world.engines[WorkerId("w1")], simulation.world.placement.core.board.index
    assert engine.core.pool.tree.pages > 0
    assert index.pages_on(WorkerId("w1")) == engine.core.pool.tree.pages
    assert index.position(WorkerId("w1"))[0] == 2


def test_a_worker_cannot_be_lost_twice_at_once():
    simulation = Simulation(RunSpec("webarena", "saga", "small", 42, pressure=0.3, workers=1, tasks=3))
    simulation.world.lose(0, 10.0)
    simulation.world.lose(0, 100.0)
    assert simulation.run().failures == 0
    assert simulation.agenda.now_s < 100.0 or not simulation.world.engines[WorkerId("w0")].down
