"""The life of an admission process: follow, lead when it is our turn, hand over when told to stop."""

import os
from typing import NoReturn

from saga.admission.config import PREFIX, AdmissionSettings
from saga.admission.events import Loaded, TenantChanged
from saga.admission.making import Making, make_core
from saga.admission.order import ORDERS
from saga.admission.policies import POLICIES
from saga.admission.ranks import RANKS
from saga.admission.state import AdmissionState
from saga.admission.task_metrics import TaskMetrics
from saga.contract.ids import TenantId
from saga.contract.subjects import Subjects, kv_bucket
from saga.contract.tenants import TERMS_BUCKET, BadRowError, TenantTerms, check_tenant, read_terms
from saga.runtime import app as runtime_app
from saga.runtime import metrics
from saga.runtime.app import App
from saga.runtime.bus import Entry
from saga.runtime.candidate import Candidate
from saga.runtime.clock import MonotonicClock
from saga.runtime.config import load
from saga.runtime.driver import Driver
from saga.runtime.errors import StartError
from saga.runtime.log import get_logger
from saga.runtime.recording import recorded
from saga.runtime.rows import follow
from saga.runtime.write_behind import WriteBehind

TABLE = "workflows"
log = get_logger()


def making_of(settings: AdmissionSettings, wall_offset_s: float) -> Making:
    """What the core is made from. Raises StartError for a policy that does not exist."""
    if settings.policy not in POLICIES:
        raise StartError(f"{PREFIX}POLICY={settings.policy!r}: unknown policy; known are {', '.join(sorted(POLICIES))}")
    if settings.order not in ORDERS:
        raise StartError(f"{PREFIX}ORDER={settings.order!r}: unknown order; known are {', '.join(sorted(ORDERS))}")
    if settings.rank not in RANKS:
        raise StartError(f"{PREFIX}RANK={settings.rank!r}: unknown rank; known are {', '.join(sorted(RANKS))}")
    return Making(
        cell=settings.cell,
        policy=settings.policy,
        order=settings.order,
        rank=settings.rank,
        kv_share=settings.kv_share,
        speed=settings.speed,
        wall_offset_s=wall_offset_s,
        max_waiting_steps=settings.max_waiting_steps,
        max_workflows=settings.max_workflows,
        max_workflows_per_tenant=settings.max_workflows_per_tenant,
        max_wait_s=settings.max_wait_s,
        infer_end_s=settings.infer_end_s,
        weights=settings.tenant_weights(),
    )


async def serve(app: App) -> None:
    """One candidate for the lead, until it is told to stop."""
    settings = load(AdmissionSettings, PREFIX)
    clock = MonotonicClock()
    subjects = Subjects(settings.cell)
    holder_id = settings.id or f"admission-{os.urandom(4).hex()}"
    making = making_of(settings, clock.wall_s() - clock.monotonic_s())
    state = make_core(making)
    bus = await app.connect()
    table = WriteBehind(bus, kv_bucket(settings.cell, TABLE))
    handle = recorded(app.shared.record, "admission", holder_id, making, state.handle)
    driver = Driver(state, bus, write_behind=table.take, clock=clock, handle=handle)
    _watch_levels(state)
    TaskMetrics(state)

    async def read_table() -> None:
        await driver.tell(Loaded(await table.load()))

    candidate = Candidate(
        app,
        bus,
        driver,
        "admission",
        holder_id,
        subjects,
        follows=[subjects.worker_presence(), subjects.leader_hello(), subjects.worker_standing()],
        leads_on=[
            subjects.step_ready(),
            subjects.every_gateway(),
            subjects.every_lease(),
            subjects.every_step_end(),
            subjects.every_forecast(),
            subjects.gateway_word(),
            subjects.placement_word(),
            subjects.tenants_ask(),
            subjects.admission_ask(),
            subjects.workflow_ended(),
        ],
    )

    async def terms_changed(key: str, entry: Entry | None) -> None:
        try:
            tenant, terms = terms_in(key, entry)
        except BadRowError as error:  # what was said before goes on to hold
            log.error("tenant.bad_row", tenant=key, error=str(error))  # noqa: TRY400 - no bug of ours
            return
        log.info("tenant.changed", tenant=tenant, **({} if terms is None else terms.limits))
        await driver.tell(TenantChanged(tenant, terms))

    candidate.around_lead(read_table, table.drop)
    app.spawn(table.run(), name="write behind")
    await follow(bus, kv_bucket(settings.cell, TERMS_BUCKET), terms_changed, app.stopping)
    await candidate.start()
    await app.stopping.wait()
    if candidate.leader.leading:
        await table.flush()
    await candidate.stop()
    await bus.drain()


def terms_in(key: str, entry: Entry | None) -> tuple[TenantId, TenantTerms | None]:
    """What a row, or its going, says of which tenant. Raises BadRowError."""
    try:
        tenant = check_tenant(key)
    except ValueError as error:
        raise BadRowError(str(error)) from None
    return tenant, None if entry is None else read_terms(entry.value)


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
    metrics.gauge("saga_admission_pauses", "Workflows paused at a step boundary to make room").set_function(
        lambda: state.pauses
    )
    metrics.levels(
        "saga_admission_overhead_engine_seconds",
        "Prefill done again by our own doing, charged to no tenant",
        "cause",
        lambda: state.book.overheads.lost_s,
    )
    metrics.levels(
        "saga_admission_ahead_engine_seconds",
        "Charged to a tenant that waits, per unit of weight, above the one of these that was charged least",
        "tenant",
        lambda: {str(tenant): ahead_s for tenant, ahead_s in state.roster.furthest_ahead_s().items()},
    )


def main() -> NoReturn:
    """`python -m saga.admission`."""
    runtime_app.run(serve, name="admission")
