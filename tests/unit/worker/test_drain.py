"""An agent whose worker is to be empty: it says so with its first word, and lets go of KV as steps end."""

from random import Random

from saga.contract.ids import LeaseId, SessionId, SessionTag, StepId, WorkerId
from saga.contract.messages import Heartbeat, LeaseReturned, LeaseTaken, WorkerHello
from saga.contract.subjects import Subjects
from saga.kernel.effects import Publish, Received
from saga.worker.events import Attached, CloseTag, Drain, EngineFacts
from saga.worker.retention import policy_named
from saga.worker.state import WorkerState

FACTS = EngineFacts(
    model="m", page_tokens=16, kv_tokens=1_000, context_tokens=500, max_running=8, session_tags=True, speed=1.0
)


def core(*, attach: bool = True) -> WorkerState:
    policy = policy_named("tags", 60.0, 300.0)
    made = WorkerState(WorkerId("w"), "http://e", Subjects("c"), policy, Random(1), lease_ttl_s=6.0)
    if attach:
        made.handle(Attached(FACTS, 7), 0.0)
    return made


def taken(lease: str, session: str) -> LeaseTaken:
    return LeaseTaken(
        step_id=StepId(f"step-{lease}"), attempt=0, lease_id=LeaseId(lease), worker_id=WorkerId("w"), gateway_id="g",
        tenant="t", root="r", session=SessionId(session), session_tag=SessionTag(f"{session}-0"), lease_ttl_s=6.0,
    )  # fmt: skip


def heard(effects) -> list:
    return [effect.message for effect in effects if isinstance(effect, Publish)]


def closed(effects) -> list[str]:
    return [effect.tag for effect in effects if isinstance(effect, CloseTag)]


def returned(lease: str) -> LeaseReturned:
    return LeaseReturned(
        step_id="step", attempt=0, lease_id=LeaseId(lease), worker_id="w", gateway_id="g", reason="not_first"
    )


def test_the_mesh_hears_of_it_at_once_and_again_with_each_heartbeat():
    agent = core()

    (beat,) = heard(agent.handle(Drain(True), 1.0))

    assert isinstance(beat, Heartbeat)
    assert beat.draining
    assert heard(agent.handle(Drain(True), 1.1)) == [], "nothing new"
    (beat,) = heard(agent.handle(Drain(False), 1.2))
    assert not beat.draining


def test_tags_without_a_step_close_at_once_and_the_others_when_their_steps_end():
    agent = core()
    for lease, session in (("a", "s"), ("b", "t")):
        agent.handle(Received(taken(lease, session)), 1.0)
    agent.handle(Received(returned("a")), 1.1)

    assert closed(agent.handle(Drain(True), 1.2)) == ["s-0"]
    assert closed(agent.handle(Received(returned("b")), 1.3)) == ["t-0"]


def test_a_lease_that_was_under_way_meanwhile_leaves_nothing_behind():
    agent = core()
    agent.handle(Drain(True), 1.0)
    agent.handle(Received(taken("late", "s")), 1.1)

    assert closed(agent.handle(Received(returned("late")), 1.2)) == ["s-0"]


def test_one_that_was_told_before_it_has_an_engine_never_says_a_plain_hello():
    agent = core(attach=False)
    assert heard(agent.handle(Drain(True), 0.0)) == []

    told = heard(agent.handle(Attached(FACTS, 7), 0.1))

    assert [type(message) for message in told if isinstance(message, WorkerHello | Heartbeat)] == [Heartbeat]
    assert told[-1].draining
