"""A core is its events: those recorded in a run, fed to a fresh core, give the same effects."""

from random import Random
from typing import Any

import msgspec
import pytest

from saga.admission.state import AdmissionState
from saga.admission.worker_budgets import WorkerBudgets
from saga.contract.ids import WorkerId
from saga.contract.subjects import Subjects
from saga.gateway.state import GatewayState
from saga.graph.forecast import Saga
from saga.graph.state import GraphState
from saga.placement.policy import CheapestStart
from saga.placement.state import PlacementState
from saga.sim.runner import Simulation
from saga.sim.spec import RunSpec
from saga.sim.systems.registry import TAG_CAP_S, TAG_DEFAULT_S
from saga.sim.world import CAREFREE, CELL, GATEWAY, LEASE_TTL_S
from saga.worker.retention import Saga as SagaRetention
from saga.worker.state import WorkerState

SUBJECTS = Subjects(CELL)
SEED = 42


def fresh(name: str) -> Any:
    """The core as `World` makes it."""
    match name:
        case "gateway":
            return GatewayState(GATEWAY, SUBJECTS)
        case "admission":
            return AdmissionState(SUBJECTS, WorkerBudgets())
        case "placement":
            return PlacementState("p0", SUBJECTS, CheapestStart(), lookahead=1)
        case "graph":
            return GraphState(SUBJECTS, Saga())
        case _:
            retention = SagaRetention(TAG_DEFAULT_S, TAG_CAP_S)
            return WorkerState(
                WorkerId(name),
                f"sim://{name}",
                SUBJECTS,
                retention,
                Random(f"{SEED}/{name}"),
                lease_ttl_s=LEASE_TTL_S,
                heartbeat_s=CAREFREE.heartbeat_s,
            )


@pytest.fixture(scope="module")
def records() -> dict[str, list[tuple[float, Any, list[Any]]]]:
    """Everything that each core was told in a run under pressure, and what it answered."""
    simulation = Simulation(RunSpec("swe-bench", "saga", "small", SEED, pressure=1.5, workers=2, tasks=100))
    world = simulation.world
    parties = [world.gateway, world.admission, world.placement, world.graph, *world.workers.values()]
    # The first events came while the world was put together: a core of the same kind is told them again.
    found = {}
    for party in parties:
        party.core = fresh(party.name)
        party.record = found[party.name] = []
    world._lead()
    simulation.agenda.run(500.0)
    return found


@pytest.mark.parametrize("name", ["gateway", "admission", "placement", "graph", "w0", "w1"])
def test_a_fresh_core_answers_recorded_events_alike(name: str, records: dict[str, list[tuple[float, Any, list[Any]]]]):
    record = records[name]
    core = fresh(name)
    assert len(record) > 200
    for number, (now_s, event, effects) in enumerate(record):
        again = core.handle(event, now_s)
        assert msgspec.to_builtins(again) == msgspec.to_builtins(effects), f"event {number}: {event}"
    core.check()
