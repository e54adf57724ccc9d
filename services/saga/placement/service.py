"""The life of a placement process: follow, lead when it is our turn, hand over when told to stop."""

import os
from typing import NoReturn

from saga.contract.subjects import Subjects
from saga.placement.config import PREFIX, PlacementSettings
from saga.placement.policy import POLICIES
from saga.placement.state import PlacementState
from saga.runtime import app as runtime_app
from saga.runtime import metrics
from saga.runtime.app import App
from saga.runtime.candidate import Candidate
from saga.runtime.clock import MonotonicClock
from saga.runtime.config import load
from saga.runtime.driver import Driver
from saga.runtime.errors import StartError


def make_state(settings: PlacementSettings, holder_id: str, subjects: Subjects, now_s: float) -> PlacementState:
    """The core as configured. Raises StartError for a policy that does not exist."""
    policy = POLICIES.get(settings.policy)
    if policy is None:
        raise StartError(f"{PREFIX}POLICY={settings.policy!r}: unknown policy; known are {', '.join(sorted(POLICIES))}")
    return PlacementState(holder_id, subjects, policy(), lookahead=settings.lookahead_steps, now_s=now_s)


async def serve(app: App) -> None:
    """One candidate for the lead, until it is told to stop."""
    settings = load(PlacementSettings, PREFIX)
    clock = MonotonicClock()
    subjects = Subjects(settings.cell)
    holder_id = settings.id or f"placement-{os.urandom(4).hex()}"
    state = make_state(settings, holder_id, subjects, clock.monotonic_s())
    bus = await app.connect()
    driver = Driver(state, bus, clock=clock)
    _watch_levels(state)

    candidate = Candidate(
        app,
        bus,
        driver,
        "placement",
        holder_id,
        subjects,
        follows=[
            subjects.worker_presence(),
            subjects.every_residency(),
            subjects.resync_inbox(holder_id),
            subjects.leader_hello(),
        ],
        leads_on=[
            subjects.step_admitted(),
            subjects.every_lease(),
            subjects.every_step_end(),
            subjects.gateway_word(),
            subjects.every_sessions_released(),
        ],
    )
    await candidate.start()
    await app.stopping.wait()
    await candidate.stop()
    await bus.drain()


def _watch_levels(state: PlacementState) -> None:
    board = state.board
    metrics.gauge("saga_placement_leading", "1 while this process leads").set_function(lambda: state.leading)
    metrics.gauge("saga_placement_waiting_steps", "Admitted steps without a slot").set_function(lambda: board.waiting)
    metrics.gauge("saga_placement_leases", "Leases out").set_function(lambda: len(board.leases))
    metrics.gauge("saga_placement_sessions", "Sessions remembered").set_function(lambda: len(board.sessions))
    metrics.gauge("saga_placement_resident_pages", "Pages in the residency index").set_function(
        lambda: board.index.pages
    )
    metrics.gauge("saga_placement_stale_workers", "Workers whose residency awaits a snapshot").set_function(
        lambda: len(board.index.stale_workers())
    )


def main() -> NoReturn:
    """`python -m saga.placement`."""
    runtime_app.run(serve, name="placement")
