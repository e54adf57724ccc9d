"""Admission's core: what it answers, refuses, persists and hears from others."""

import pytest
from admission_story import POOL, Story, beat_of, grant_of, hello, ready, step_id

from saga.admission.door import Bounds
from saga.admission.events import Loaded
from saga.admission.policy import Everybody
from saga.contract.ids import GatewayId, LeaseId, PoolId, TenantId, WorkerId
from saga.contract.messages import (
    Accepted,
    GatewayBeat,
    LeaderHello,
    LeaseReturned,
    Refused,
    ResendSteps,
    SessionsReleased,
    StepAdmitted,
    StepRefused,
    WorkerStands,
)
from saga.kernel.effects import Promoted, Tick


def test_a_model_nobody_serves_is_refused_with_those_that_are():
    story = Story()

    (refused,) = story.hear(ready(1, pool=PoolId("gpt-9")))

    assert isinstance(refused, Refused)
    assert refused.reason == "unknown_model"
    assert "model" in refused.detail


def test_a_prompt_no_worker_can_hold_is_refused():
    story = Story()

    (refused,) = story.hear(ready(1, prompt_tokens=10_001))

    assert refused.reason == "too_large"


def test_waiting_is_bounded_in_number():
    story = Story(bounds=Bounds(max_waiting_steps=2))
    story.admitted(ready(1, prompt_tokens=9_000))
    for number in (2, 3):
        story.hear(ready(number))

    (refused,) = story.hear(ready(4))

    assert (refused.reason, refused.retry_after_s > 0) == ("too_many_waiting", True)


def test_waiting_is_bounded_in_time():
    story = Story(max_wait_s=10.0)
    story.admitted(ready(1, prompt_tokens=9_000))
    story.hear(ready(2))
    beat = GatewayBeat(gateway_id=GatewayId("g0"), waiting=(beat_of(1), beat_of(2)))
    refused = []
    for _ in range(12):
        story.now_s += 1.0
        story.hear(beat)
        story.hear(hello())
        refused += [m for m in story.tell(Tick()) if isinstance(m, StepRefused)]

    assert [(m.step_id, m.reason) for m in refused] == [(step_id(2), "wait_bound")]


def test_a_step_sent_twice_is_admitted_to_placement_again_but_charged_once():
    story = Story(Everybody())
    story.hear(ready(1))
    finish_before = story.core.book.fair.account(TenantId("t")).finish_s

    accepted, again = story.hear(ready(1, waited_s=0.25))

    assert isinstance(accepted, Accepted)
    assert isinstance(again, StepAdmitted)
    assert story.core.book.fair.account(TenantId("t")).finish_s == finish_before


def test_a_dead_engine_leads_back_to_admitted_with_the_next_attempt():
    story = Story()
    story.admitted(ready(1))
    story.take(1)
    story.hear(
        LeaseReturned(
            step_id=step_id(1),
            attempt=0,
            lease_id=LeaseId("lease-1"),
            worker_id=WorkerId("w0"),
            gateway_id=GatewayId("g0"),
            reason="engine_died",
            next_attempt=1,
        )
    )

    (again,) = story.hear(LeaderHello(service="placement", fence=2))

    assert again.step.attempt == 1


def test_a_step_nobody_names_is_aborted():
    story = Story()
    story.admitted(ready(1))
    story.now_s += 6.0

    story.tell(Tick())

    assert story.core.book.steps == {}


def test_a_beat_that_names_unknown_steps_is_asked_back():
    story = Story()

    (ask,) = story.hear(GatewayBeat(gateway_id=GatewayId("g0"), waiting=(beat_of(1), beat_of(2, waited_s=0.1))))

    assert isinstance(ask, ResendSteps)
    assert ask.step_ids == (step_id(1),)


def test_the_end_of_a_workflow_releases_its_kv_and_its_row():
    story = Story()
    story.admitted(ready(1))
    story.take(1)
    assert len(story.rows) == 1

    messages = story.finish(1, final=True)

    assert [m.reason for m in messages if isinstance(m, SessionsReleased)] == ["closed"]
    assert story.rows == {}
    assert story.core.roster.workflows == {}


def test_a_new_leader_knows_ages_and_homes_from_the_table():
    old = Story(wall_offset_s=1_000.0)
    old.admitted(ready(1))
    old.take(1)
    old.now_s += 50.0
    old.finish(1)

    new = Story(leading=False, wall_offset_s=500.0)  # another machine: its monotonic clock began elsewhere
    new.now_s = 700.0
    new.tell(Loaded(tuple(old.rows.values())))
    new.tell(Promoted(4))
    (admitted,) = [m for m in new.hear(ready(2, "root-1")) if isinstance(m, StepAdmitted)]

    assert admitted.home == "w0"
    assert admitted.tag.order == pytest.approx(100.0 + 1_000.0 - 500.0)


def test_a_standby_follows_in_silence_and_admits_again_when_promoted():
    standby = Story(leading=False)
    assert standby.hear(ready(1)) == []

    hello_, admitted = standby.tell(Promoted(9))

    assert hello_ == LeaderHello(service="admission", fence=9)
    assert (admitted.step.step_id, admitted.fence) == (step_id(1), 9)


@pytest.mark.parametrize("said", ["grant", "refusal", "question"])
def test_a_leader_that_hears_a_later_ones_word_says_nothing_more(said):
    story = Story()
    (admitted,) = [m for m in story.hear(ready(1)) if isinstance(m, StepAdmitted)]
    refusal = {"attempt": 0, "reason": "quota", "detail": "", "retry_after_s": 1.0}
    words = {
        "grant": grant_of(admitted, admission_fence=8),
        "refusal": StepRefused(step_id=step_id(7), fence=8, **refusal),
        "question": ResendSteps(service="admission", fence=8, step_ids=()),
    }

    story.hear(words[said])

    assert not story.core.leading
    assert story.hear(ready(2)) == []


def test_what_a_replaced_placement_thinks_of_a_worker_does_not_count():
    story = Story(workers=2)
    story.hear(LeaderHello(service="placement", fence=5))

    def stands(worker: str, fence: int) -> None:
        story.hear(WorkerStands(worker_id=WorkerId(worker), epoch=1, standing="quarantined", fence=fence))

    stands("w0", fence=4)
    stands("w1", fence=5)

    assert set(story.core.roster.pool(POOL).workers) == {"w0"}
