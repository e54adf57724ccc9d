"""What an agent concludes from silence: nothing while the bus is away, and everything after it."""

from random import Random

from saga.contract.ids import GatewayId, LeaseId, RootId, SessionId, SessionTag, StepId, TenantId, WorkerId
from saga.contract.messages import LeaseTaken, StepStarted
from saga.contract.subjects import Subjects
from saga.kernel.effects import Received, Reconnected, Tick
from saga.worker.events import AbortRequest, Attached, BusAway, EngineFacts
from saga.worker.retention import policy_named
from saga.worker.state import WorkerState

W = WorkerId("w")
TTL_S = 5.0
FACTS = EngineFacts(model="m", page_tokens=16, kv_tokens=1_000, context_tokens=500, max_running=8, session_tags=True)


def agent() -> WorkerState:
    made = WorkerState(W, "http://e", Subjects(), policy_named("tags", 60.0, 300.0), Random(1), lease_ttl_s=TTL_S)
    made.handle(Attached(FACTS, 7), 0.0)
    return made


def taken() -> LeaseTaken:
    return LeaseTaken(
        step_id=StepId("step"), attempt=0, lease_id=LeaseId("lease"), worker_id=W, gateway_id=GatewayId("g"),
        tenant=TenantId("t"), root=RootId("r"), session=SessionId("s"), session_tag=SessionTag("tag"),
        lease_ttl_s=TTL_S,
    )  # fmt: skip


def aborts(effects) -> list[AbortRequest]:
    return [effect for effect in effects if isinstance(effect, AbortRequest)]


def test_a_lease_outlives_an_outage_of_the_bus():
    worker = agent()
    worker.handle(Received(taken()), 0.0)
    worker.handle(BusAway(), 1.0)

    assert aborts(worker.handle(Tick(), 30.0)) == []
    assert aborts(worker.handle(Reconnected(), 31.0)) == []
    assert len(worker.leases) == 1


def test_a_gateway_that_stays_silent_after_the_outage_is_dead():
    worker = agent()
    worker.handle(Received(taken()), 0.0)
    worker.handle(BusAway(), 1.0)
    worker.handle(Reconnected(), 31.0)

    (abort,) = aborts(worker.handle(Tick(), 31.0 + TTL_S + 0.1))

    assert abort.rid == "step-00"


def test_a_step_that_starts_makes_up_for_a_lost_lease_taken():
    worker = agent()
    started = StepStarted(
        step_id=StepId("step"), attempt=0, lease_id=LeaseId("lease"), worker_id=W, session=SessionId("s"),
        session_tag=SessionTag("tag"),
    )  # fmt: skip

    worker.handle(Received(started), 0.0)
    worker.handle(Received(taken()), 0.1)

    assert len(worker.leases) == 1
    assert worker.tags.state_of(SessionTag("tag")) is not None
    worker.check()
