"""The life of an admission process: follow, lead when it is our turn, hand over when told to stop."""

import os
from typing import NoReturn

from saga.admission.config import PREFIX, AdmissionSettings
from saga.admission.policy import POLICIES
from saga.admission.state import AdmissionState, Loaded
from saga.contract.ids import TenantId
from saga.contract.subjects import Subjects, kv_bucket
from saga.runtime import app as runtime_app
from saga.runtime import metrics
from saga.runtime.app import App
from saga.runtime.candidate import Candidate
from saga.runtime.clock import MonotonicClock
from saga.runtime.config import load
from saga.runtime.driver import Driver
from saga.runtime.errors import StartError
from saga.runtime.write_behind import WriteBehind

TABLE = "workflows"


def make_state(settings: AdmissionSettings, subjects: Subjects, wall_offset_s: float) -> AdmissionState:
    """The core as configured. Raises StartError for a policy that does not exist."""
    policy = POLICIES.get(settings.policy)
    if policy is None:
        raise StartError(f"{PREFIX}POLICY={settings.policy!r}: unknown policy; known are {', '.join(sorted(POLICIES))}")
    state = AdmissionState(
        subjects,
        policy(),
        wall_offset_s=wall_offset_s,
        max_waiting_steps=settings.max_waiting_steps,
        max_wait_s=settings.max_wait_s,
    )
    for tenant, weight in settings.tenant_weights().items():
        state.book.fair.set_weight(TenantId(tenant), weight)
    return state


async def serve(app: App) -> None:
    """One candidate for the lead, until it is told to stop."""
    settings = load(AdmissionSettings, PREFIX)
    clock = MonotonicClock()
    subjects = Subjects(settings.cell)
    state = make_state(settings, subjects, clock.wall_s() - clock.monotonic_s())
    bus = await app.connect()
    table = WriteBehind(bus, kv_bucket(settings.cell, TABLE))
    driver = Driver(state, bus, write_behind=table.take, clock=clock)
    _watch_levels(state)

    async def read_table() -> None:
        await driver.tell(Loaded(await table.load()))

    candidate = Candidate(
        app,
        bus,
        driver,
        "admission",
        settings.id or f"admission-{os.urandom(4).hex()}",
        subjects,
        follows=[subjects.worker_presence(), subjects.leader_hello()],
        leads_on=[
            subjects.step_ready(),
            subjects.every_gateway(),
            subjects.every_lease(),
            subjects.every_step_end(),
            subjects.every_forecast(),
            subjects.gateway_word(),
            subjects.placement_word(),
        ],
    )
    candidate.around_lead(read_table, table.drop)
    app.spawn(table.run(), name="write behind")
    await candidate.start()
    await app.stopping.wait()
    if candidate.leader.leading:
        await table.flush()
    await candidate.stop()
    await bus.drain()


def _watch_levels(state: AdmissionState) -> None:
    metrics.gauge("saga_admission_leading", "1 while this process leads").set_function(lambda: state.leading)
    metrics.gauge("saga_admission_steps", "Steps that are not over").set_function(lambda: len(state.book.steps))
    metrics.gauge("saga_admission_waiting_steps", "Steps whose workflow is not active").set_function(
        lambda: state.book.waiting
    )
    metrics.gauge("saga_admission_workflows", "Workflows known").set_function(lambda: len(state.roster.workflows))
    metrics.gauge("saga_admission_active_workflows", "Workflows that may run").set_function(
        lambda: sum(len(pool.active) for pool in state.roster.pools.values())
    )


def main() -> NoReturn:
    """`python -m saga.admission`."""
    runtime_app.run(serve, name="admission")
