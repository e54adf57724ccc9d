"""The life of a placement process: follow, lead when it is our turn, hand over when told to stop."""

import os
from functools import partial
from typing import NoReturn

from saga.contract.subjects import Subjects
from saga.placement.config import PREFIX, PlacementSettings
from saga.placement.grant_metrics import counted
from saga.placement.lease_accounts import ENDS
from saga.placement.making import Making, make_core
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
from saga.runtime.freshness import watched
from saga.runtime.recording import recorded


def making_of(settings: PlacementSettings, holder_id: str, now_s: float) -> Making:
    """What the core is made from. Raises StartError for a policy that does not exist."""
    if settings.policy not in POLICIES:
        raise StartError(f"{PREFIX}POLICY={settings.policy!r}: unknown policy; known are {', '.join(sorted(POLICIES))}")
    return Making(
        cell=settings.cell,
        holder_id=holder_id,
        policy=settings.policy,
        lookahead_steps=settings.lookahead_steps,
        supersede=settings.supersede == "on",
        preempt=settings.preempt == "on",
        stealing=settings.stealing,
        born_s=now_s,
    )


async def serve(app: App) -> None:
    """One candidate for the lead, until it is told to stop."""
    settings = load(PlacementSettings, PREFIX)
    clock = MonotonicClock()
    subjects = Subjects(settings.cell)
    holder_id = settings.id or f"placement-{os.urandom(4).hex()}"
    making = making_of(settings, holder_id, clock.monotonic_s())
    state = make_core(making)
    bus = await app.connect()
    handle = recorded(app.shared.record, "placement", holder_id, making, state.handle)
    driver = Driver(state, bus, clock=clock, handle=counted(watched(handle, clock)))
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
            subjects.worker_standing(),
        ],
        leads_on=[
            subjects.step_admitted(),
            subjects.every_lease(),
            subjects.every_step_end(),
            subjects.gateway_word(),
            subjects.every_sessions_released(),
            subjects.placement_ask(),
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
    accounts = board.lease_accounts
    metrics.gauge("saga_leases_granted", "Leases booked by this process").set_function(lambda: accounts.granted)
    metrics.gauge("saga_leases_live", "Of those, leases out").set_function(lambda: len(board.leases))
    for end in ENDS:
        gauge = metrics.gauge(f"saga_leases_{end}", f"Of those, leases that ended: {end}")
        gauge.set_function(partial(accounts.ended.__getitem__, end))
    metrics.gauge("saga_placement_sessions", "Sessions remembered").set_function(lambda: len(board.sessions))
    metrics.gauge("saga_placement_resident_pages", "Pages in the residency index").set_function(
        lambda: board.index.pages
    )
    metrics.gauge("saga_placement_superseded_pages", "Pages that fresh session tags have let go").set_function(
        lambda: state.superseded_pages
    )
    preempting = state.preempting
    metrics.gauge("saga_placement_preemptions", "Steps that took the slot of one that ran").set_function(
        lambda: preempting.made
    )
    metrics.levels(
        "saga_placement_preemption_engine_seconds",
        "Expected of those: waits spared (gain), and by how much later the interrupted end (loss)",
        "stake",
        lambda: {"gain": preempting.gain_s, "loss": preempting.loss_s},
    )
    metrics.levels(
        "saga_placement_quarantined_workers", "Workers that are not believed", "reason", state.trust.quarantined
    )
    metrics.gauge("saga_placement_draining_workers", "Workers that an operator wants empty").set_function(
        lambda: sum(worker.draining for worker in tuple(board.workers.values()))
    )
    metrics.gauge("saga_placement_stale_workers", "Workers whose residency awaits a snapshot").set_function(
        lambda: len(board.index.stale_workers())
    )


def main() -> NoReturn:
    """`python -m saga.placement`."""
    runtime_app.run(serve, name="placement")
