"""The gateway's core arbitrates a step: give it events, look at what it tells whom."""

import pytest

from saga.contract.ids import GatewayId, LeaseId, PoolId, RootId, SessionId, SessionTag, StepId, TenantId, WorkerId
from saga.contract.messages import (
    Accepted,
    GatewayBeat,
    Grant,
    LeaderHello,
    LeaseReturned,
    LeasesRenewed,
    LeaseTaken,
    NeedChain,
    Refused,
    ResendSteps,
    StepCancelled,
    StepClaim,
    StepFinished,
    StepProgress,
    StepReady,
    StepStarted,
)
from saga.contract.subjects import Subjects
from saga.gateway.events import (
    Completed,
    EngineDied,
    GaveUp,
    Progressed,
    Reject,
    Run,
    SendChain,
    Sending,
    Submitted,
)
from saga.gateway.state import MAX_ATTEMPTS, GatewayState
from saga.kernel.effects import Append, Publish, Received, Request, Tick, WakeAt

STEP = StepId("0" * 32)


def ready(step_id: StepId = STEP) -> StepReady:
    return StepReady(
        step_id=step_id,
        attempt=0,
        gateway_id=GatewayId("g0"),
        tenant=TenantId("t"),
        root=RootId("r"),
        session=SessionId("s"),
        pool=PoolId("m"),
        prompt_tokens=100,
        max_output_tokens=10,
        page_tokens=16,
    )


def grant(lease: str = "lease-1", *, attempt: int = 0, worker: str = "w0", **fields) -> Grant:
    given = {"admission_fence": 1, "fence": 1, "step_id": STEP}
    return Grant(
        attempt=attempt,
        lease_id=LeaseId(lease),
        root=RootId("r"),
        session=SessionId("s"),
        worker_id=WorkerId(worker),
        engine_url=f"http://{worker}",
        session_tag=SessionTag("tag"),
        cached_tokens=0,
        ttl_s=2.0,
        lease_ttl_s=5.0,
        **(given | fields),
    )


class Story:
    """A gateway core with one step, and short words for what happens to it."""

    def __init__(self) -> None:
        self.now_s = 10.0
        self.core = GatewayState(GatewayId("g0"), Subjects())
        self.tell(Submitted(ready()))

    def tell(self, event) -> list:
        """Messages and local effects, without requests for a wake-up."""
        effects = self.core.handle(event, self.now_s)
        self.core.check()
        plain = [e.message if isinstance(e, Publish | Append | Request) else e for e in effects]
        return [effect for effect in plain if not isinstance(effect, WakeAt)]

    def hear(self, message) -> list:
        return self.tell(Received(message))

    def start(self, given: Grant) -> Grant:
        self.hear(given)
        assert isinstance(self.tell(Sending(STEP, given))[0], StepStarted)
        return given


def test_a_step_is_asked_for_again_ever_more_slowly_until_somebody_answers():
    story = Story()
    asked_at = []
    for _ in range(400):
        story.now_s += 0.01
        if any(isinstance(message, StepReady) for message in story.tell(Tick())):
            asked_at.append(round(story.now_s - 10.0, 2))

    assert asked_at[:4] == [0.26, 0.77, 1.78, 3.79] or asked_at[:4] == [0.25, 0.75, 1.75, 3.75]

    story.hear(Accepted(step_id=STEP, attempt=0, fence=1))
    story.now_s += 30.0
    assert not [message for message in story.tell(Tick()) if isinstance(message, StepReady)]


def test_the_first_grant_is_taken_and_run():
    story = Story()
    given = grant()

    taken, run = story.hear(given)

    assert isinstance(taken, LeaseTaken)
    assert run == Run(STEP, 0, given)


def test_any_other_grant_is_returned():
    story = Story()
    story.hear(grant("first"))

    (returned,) = story.hear(grant("second", worker="w1"))

    assert isinstance(returned, LeaseReturned)
    assert (returned.lease_id, returned.worker_id, returned.reason) == ("second", "w1", "not_first")


def test_the_same_grant_twice_is_one():
    story = Story()
    story.hear(grant())

    assert story.hear(grant()) == []


def test_a_grant_for_nobody_is_returned():
    story = Story()
    story.tell(GaveUp(STEP))

    (returned,) = story.hear(grant())

    assert returned.reason == "client_gone"


def test_a_grant_of_a_replaced_leader_is_returned():
    story = Story()
    story.hear(LeaderHello(service="placement", fence=5))

    (returned,) = story.hear(grant(fence=4))

    assert returned.reason == "fenced"


@pytest.mark.parametrize(
    "word",
    [
        Accepted(step_id=StepId("f" * 32), attempt=0, fence=5),
        Refused(step_id=StepId("f" * 32), attempt=0, fence=5, reason="quota", detail="", retry_after_s=1.0),
        ResendSteps(service="admission", fence=5, step_ids=()),
        grant("lease-9", fence=0, admission_fence=5),
    ],
    ids=lambda word: type(word).__name__,
)
def test_a_later_leader_is_heard_of_in_any_word_though_the_word_is_about_nothing(word):
    story = Story()
    story.tell(Submitted(ready()))
    story.hear(LeaderHello(service="placement", fence=1))

    story.hear(word)

    (returned,) = story.hear(grant(admission_fence=4))
    assert isinstance(returned, LeaseReturned)
    assert returned.reason == "fenced"


def test_a_request_is_not_sent_under_an_expired_lease():
    story = Story()
    given = grant()
    story.hear(given)
    story.now_s += 2.1

    returned, again = story.tell(Sending(STEP, given))

    assert returned.reason == "expired"
    assert again.attempt == 1
    assert not story.core.holds(STEP, given)


def test_a_request_is_sent_under_a_lease_in_time():
    story = Story()
    given = story.start(grant())

    assert story.core.holds(STEP, given)


def test_progress_and_end_are_told_with_their_lease():
    story = Story()
    story.start(grant())

    (progress,) = story.tell(Progressed(STEP, 1))
    (finished,) = story.tell(
        Completed(step_id=STEP, prompt_tokens=100, output_tokens=9, cached_tokens=64, finish_reason="length")
    )

    assert isinstance(progress, StepProgress)
    assert isinstance(finished, StepFinished)
    assert (finished.lease_id, finished.cached_tokens, finished.attempts) == ("lease-1", 64, 1)
    assert story.core.running == story.core.waiting == 0


def test_a_dead_engine_gives_the_lease_back_and_asks_for_another():
    story = Story()
    story.start(grant())

    returned, again = story.tell(EngineDied(STEP, 5))

    assert (returned.reason, returned.next_attempt) == ("engine_died", 1)
    assert isinstance(again, StepReady)
    assert again.attempt == 1
    (stale,) = story.hear(grant("late"))  # granted for the attempt that died
    assert stale.reason == "not_first"
    assert isinstance(story.hear(grant("new", attempt=1, worker="w1"))[1], Run)


def test_a_step_that_kills_engine_after_engine_is_given_up():
    story = Story()
    for attempt in range(MAX_ATTEMPTS):
        story.start(grant(f"lease-{attempt}", attempt=attempt))
        effects = story.tell(EngineDied(STEP, 0))

    assert isinstance(effects[0], StepCancelled)
    assert effects[0].failed
    assert isinstance(effects[1], Reject)


def test_a_client_that_leaves_cancels_its_step_under_its_lease():
    story = Story()
    story.start(grant())

    (cancelled,) = story.tell(GaveUp(STEP, 3))

    assert isinstance(cancelled, StepCancelled)
    assert (cancelled.lease_id, cancelled.output_tokens, cancelled.failed) == ("lease-1", 3, False)


def test_a_refusal_reaches_the_client():
    story = Story()
    refusal = Refused(step_id=STEP, attempt=0, fence=1, reason="too_many_waiting", detail="full", retry_after_s=5.0)

    assert story.hear(refusal) == [Reject(STEP, "too_many_waiting", "full", 5.0)]


def test_a_refusal_that_comes_after_the_grant_is_not_believed():
    story = Story()
    story.hear(grant())

    assert story.hear(Refused(step_id=STEP, attempt=0, fence=1, reason="wait_bound", detail="", retry_after_s=1)) == []


def test_beats_name_what_waits_and_renew_what_runs():
    story = Story()
    story.now_s += 1.0
    beats = [m for m in story.tell(Tick()) if isinstance(m, GatewayBeat)]
    assert [w.step_id for w in beats[0].waiting] == [STEP]
    story.start(grant())
    story.now_s += 1.0

    said = story.tell(Tick())

    (beat,) = [m for m in said if isinstance(m, GatewayBeat)]
    (renewed,) = [m for m in said if isinstance(m, LeasesRenewed)]
    assert [lease.lease_id for lease in beat.running] == ["lease-1"]
    assert renewed.lease_ids == ("lease-1",)


def test_a_new_leader_is_told_what_waits_and_what_runs():
    story = Story()
    other = StepId("1" * 32)
    story.tell(Submitted(ready(other)))
    story.start(grant())

    claim, again = story.hear(LeaderHello(service="admission", fence=9))

    assert isinstance(claim, StepClaim)
    assert (claim.step.step_id, claim.lease_id) == (STEP, "lease-1")
    assert isinstance(again, StepReady)
    assert again.step_id == other


def test_a_leader_that_asks_is_told_again():
    story = Story()

    (again,) = story.hear(ResendSteps(service="admission", fence=1, step_ids=(STEP, StepId("f" * 32))))

    assert isinstance(again, StepReady)


def test_a_missing_chain_is_sent_by_the_shell():
    story = Story()

    assert story.hear(NeedChain(step_id=STEP, attempt=0, session=SessionId("s"), fence=1)) == [
        SendChain(STEP, SessionId("s"))
    ]
