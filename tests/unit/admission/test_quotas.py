"""Quotas of a tenant: each delays or refuses, by name; nothing that runs is cut."""

import pytest
from admission_story import Story, beat_of, hello, ready, step_id
from quota_story import admitted_in, agreed, change, refusal, usage, waited_in

from saga.admission.events import TenantChanged
from saga.admission.policy import Everybody
from saga.admission.quotas import HELD_S, TAKEOVER_S
from saga.admission.worker_budgets import WorkerBudgets
from saga.contract.ids import GatewayId, LeaseId, SessionId, TenantId, WorkerId
from saga.contract.messages import (
    Accepted,
    GatewayBeat,
    SessionsReleased,
    StepCancelled,
    StepClaim,
    StepRefused,
)
from saga.kernel.effects import Promoted, Tick

T = TenantId("t")


def test_a_workflow_over_the_quota_of_active_ones_stays_queued_until_one_ends():
    story = agreed(active_workflows=1)
    assert admitted_in(story.hear(ready(1))) == [1]

    (accepted,) = story.hear(ready(2))

    assert isinstance(accepted, Accepted)
    story.take(1)
    story.now_s += 1.0
    after = story.finish(1, final=True)
    assert admitted_in(after) == [2]
    assert waited_in(after) == ["quota"]


def test_an_active_workflow_keeps_its_place_through_a_gap_and_gives_it_up_when_dormant():
    story = agreed(active_workflows=1)
    story.hear(ready(1))
    story.take(1)
    story.hear(ready(2))
    assert admitted_in(story.finish(1)) == []

    story.now_s += 61.0
    story.hear(hello())

    assert admitted_in(story.hear(ready(3, "root-3"))) == []
    story.hear(GatewayBeat(gateway_id=GatewayId("g0"), waiting=(beat_of(2), beat_of(3))))
    assert admitted_in(story.tell(Tick())) == [2]


def test_steps_over_the_quota_of_running_ones_wait_oldest_workflow_first():
    story = agreed(running_steps=1)
    assert admitted_in(story.hear(ready(1))) == [1]
    story.take(1)
    story.now_s += 1.0
    assert admitted_in(story.hear(ready(2))) == []
    assert admitted_in(story.hear(ready(3, "root-1", session=SessionId("sub")))) == []

    assert admitted_in(story.finish(1)) == [3]  # of the older workflow, though it came later
    story.take(3, "root-1", session="sub")
    assert admitted_in(story.finish(3, "root-1", session=SessionId("sub"))) == [2]


def test_kv_of_running_steps_and_of_gaps_together_stays_within_the_quota():
    story = agreed(kv_tokens=7_000)
    story.hear(ready(1))  # 3,100 with its answer
    story.take(1)
    story.finish(1)  # 3,100 kept for its return
    assert admitted_in(story.hear(ready(2))) == [2]
    story.now_s += 1.0

    assert admitted_in(story.hear(ready(3))) == []  # the first, older, keeps what it has

    story.take(2)
    assert admitted_in(story.finish(2, final=True)) == [3]


def test_kv_kept_for_younger_workflows_is_given_up_for_an_older_one():
    story = agreed(kv_tokens=7_000)
    for number in (1, 2):
        story.hear(ready(number))
        story.now_s += 1.0
        story.take(number)
        story.finish(number)

    messages = story.hear(ready(3, "root-1", prompt_tokens=4_000))

    assert admitted_in(messages) == [3]
    assert [m.sessions for m in messages if isinstance(m, SessionsReleased)] == [("root-2",)]


def test_a_prompt_alone_over_the_kv_quota_is_refused_with_its_name_and_value():
    story = agreed(kv_tokens=3_000)

    refused = refusal(story.hear(ready(1)))

    assert refused.reason == "quota"
    assert "kv_tokens=3000" in refused.detail
    assert refused.retry_after_s >= 1
    assert story.core.roster.workflows == {}


def test_a_step_that_may_answer_at_more_length_than_the_quota_has_it_all_for_itself():
    story = agreed(kv_tokens=5_000)
    assert admitted_in(story.hear(ready(1, max_output_tokens=100_000))) == [1]
    assert admitted_in(story.hear(ready(2, prompt_tokens=10))) == []

    story.take(1)
    assert admitted_in(story.finish(1, final=True)) == [2]


def test_prompts_of_a_minute_are_counted_in_any_sixty_seconds():
    story = agreed(input_tokens_per_minute=6_000)
    start_s = story.now_s
    for number in (1, 2):
        assert admitted_in(story.hear(ready(number))) == [number]
        story.take(number)
        story.finish(number, final=True)
        story.now_s += 20.0
    assert admitted_in(story.hear(ready(3))) == []

    def tick_at(at_s: float) -> list[int]:
        story.now_s = at_s
        story.hear(hello())
        story.hear(GatewayBeat(gateway_id=GatewayId("g0"), waiting=(beat_of(3),)))
        return admitted_in(story.tell(Tick()))

    assert tick_at(start_s + 59.9) == []
    assert tick_at(start_s + 61.1) == [3]


def test_answers_are_reserved_in_full_and_settled_by_what_was_generated():
    story = agreed(output_tokens_per_minute=1_000)
    assert admitted_in(story.hear(ready(1, max_output_tokens=600))) == [1]
    assert admitted_in(story.hear(ready(2, max_output_tokens=600))) == []
    story.take(1)

    assert admitted_in(story.finish(1, output_tokens=50)) == [2]


def test_a_step_that_never_ran_gives_back_its_prompt():
    story = agreed(input_tokens_per_minute=3_000)
    story.hear(ready(1))
    story.hear(ready(2))

    after = story.hear(cancelled(1))

    assert admitted_in(after) == [2]


def test_what_a_cancelled_step_has_generated_counts():
    story = agreed(output_tokens_per_minute=100)
    story.hear(ready(1))
    story.take(1)
    story.hear(ready(2))

    assert admitted_in(story.hear(cancelled(1, output_tokens=70))) == []
    assert usage(story).output_tokens_per_minute == 70


def cancelled(number: int, output_tokens: int = 0) -> StepCancelled:
    return StepCancelled(
        step_id=step_id(number),
        attempt=0,
        gateway_id=GatewayId("g0"),
        tenant=T,
        root=f"root-{number}",
        session=SessionId(f"root-{number}"),
        output_tokens=output_tokens,
    )


def test_more_waiting_steps_than_the_quota_are_refused_and_leave_nothing_behind():
    story = agreed(running_steps=1, waiting_steps=1)
    story.hear(ready(1))
    story.hear(ready(2))

    refused = refusal(story.hear(ready(3)))

    assert (refused.reason, refused.retry_after_s) == ("quota", 5.0)
    assert "waiting_steps=1" in refused.detail
    assert "running_steps=1" in refused.detail
    assert set(story.core.roster.workflows) == {"root-1", "root-2"}
    assert len(story.rows) == 2


def test_a_step_that_may_run_at_once_is_not_refused_because_others_wait():
    story = agreed(active_workflows=1, waiting_steps=1)
    story.hear(ready(1))
    story.hear(ready(2))

    assert admitted_in(story.hear(ready(3, "root-1", session=SessionId("sub")))) == [3]


def test_the_same_step_sent_again_after_a_refusal_is_judged_anew():
    story = agreed(running_steps=1, waiting_steps=0)
    story.hear(ready(1))
    for _ in range(3):
        assert refusal(story.hear(ready(2))).reason == "quota"
    story.take(1)
    story.finish(1, final=True)

    assert admitted_in(story.hear(ready(2))) == [2]


# --- live changes ----------------------------------------------------------------------------------------------------


def test_lowering_a_quota_cuts_nothing_that_runs_and_lets_nothing_new_go_on():
    story = agreed(running_steps=3)
    for number in (1, 2, 3):
        story.hear(ready(number))
        story.take(number)

    assert [m for m in change(story, running_steps=1) if isinstance(m, StepRefused)] == []

    assert usage(story).running_steps == 3
    story.hear(ready(4))
    assert admitted_in(story.finish(1, final=True)) == []
    assert admitted_in(story.finish(2, final=True)) == []
    assert admitted_in(story.finish(3, final=True)) == [4]


def test_lowering_the_quota_of_active_workflows_pauses_the_youngest_in_a_gap():
    story = agreed(active_workflows=3)
    for number in (1, 2, 3):
        story.hear(ready(number))
        story.now_s += 1.0
        story.take(number)
    story.finish(2)
    story.finish(3)

    messages = change(story, active_workflows=2)

    assert [m.sessions for m in messages if isinstance(m, SessionsReleased)] == [("root-3",)]
    assert usage(story).active_workflows == 2


def test_raising_or_removing_a_quota_lets_go_on_at_once():
    story = agreed(running_steps=1)
    for number in (1, 2, 3):
        story.hear(ready(number))

    assert admitted_in(change(story, running_steps=2)) == [2]
    assert admitted_in(story.tell(TenantChanged(T, None))) == [3]


@pytest.mark.parametrize("quota", ["active_workflows", "running_steps", "kv_tokens", "input_tokens_per_minute"])
def test_zero_means_that_nothing_may_run(quota):
    story = agreed(running_steps=1)
    story.hear(ready(1))
    story.take(1)
    story.hear(ready(2))

    refused = refusal(change(story, **{quota: 0}))

    assert (refused.step_id, refused.reason) == (step_id(2), "quota")
    assert f"{quota}=0" in refused.detail
    assert usage(story).running_steps == 1, "what runs goes on"
    assert f"{quota}=0" in refusal(story.hear(ready(3))).detail


def test_no_step_may_wait_at_zero_waiting_steps_but_those_that_need_not_run():
    story = agreed(waiting_steps=0)

    assert admitted_in(story.hear(ready(1))) == [1]


def test_a_tenant_removed_in_mid_flight_is_as_if_nothing_had_been_said():
    story = agreed(running_steps=1, weight=4.0)
    story.hear(ready(1))
    story.take(1)
    story.hear(ready(2))

    assert admitted_in(story.tell(TenantChanged(T, None))) == [2]
    story.take(2)
    story.finish(1, final=True)
    story.finish(2, final=True)

    use = usage(story)
    assert (use.weight, use.running_steps, use.known_workflows) == (1.0, 0, 0)


def test_weights_come_from_the_terms_then_from_the_settings():
    story = Story(Everybody(), weights={T: 3.0})
    assert usage(story, ready(1)).weight == 3.0

    change(story, weight=5.0)
    assert usage(story).weight == 5.0

    change(story, running_steps=9)
    assert usage(story).weight == 3.0


# --- beside others ---------------------------------------------------------------------------------------------------


def test_what_waits_for_a_quota_holds_no_place_from_other_tenants():
    story = Story(WorkerBudgets(learns=False), workers=1)  # one worker of 10,000 tokens
    story.now_s += TAKEOVER_S
    change(story, running_steps=1)
    for number in range(1, 4):
        story.hear(ready(number, prompt_tokens=2_000))

    messages = story.hear(ready(9, tenant=TenantId("other"), prompt_tokens=6_000))

    assert admitted_in(messages) == [9]


def test_an_active_workflow_held_for_long_gives_its_place_to_others():
    story = Story(WorkerBudgets(learns=False), workers=1)
    story.now_s += TAKEOVER_S
    story.hear(ready(1, prompt_tokens=4_000))
    story.hear(ready(2, prompt_tokens=4_000))
    for number in (1, 2):
        story.take(number)
    change(story, running_steps=1)
    story.finish(2, prompt_tokens=4_000)
    assert admitted_in(story.hear(ready(4, "root-2", prompt_tokens=4_200))) == []
    other = ready(9, tenant=TenantId("other"), prompt_tokens=5_000)
    assert admitted_in(story.hear(other)) == []

    story.now_s += HELD_S + 0.1
    story.hear(hello())
    beat = GatewayBeat(gateway_id=GatewayId("g0"), waiting=tuple(beat_of(n) for n in (1, 4, 9)))
    story.hear(beat)

    assert admitted_in(story.tell(Tick())) == [9]


def test_a_new_leader_waits_for_word_of_what_runs():
    story = Story(Everybody(), leading=False, workers=0)
    story.hear(hello())
    change(story, running_steps=1)
    story.tell(Promoted(7))
    assert admitted_in(story.hear(ready(2))) == []
    claim = StepClaim(step=ready(1), lease_id=LeaseId("l"), worker_id=WorkerId("w0"), session_tag="", output_tokens=3)
    story.hear(claim)

    story.now_s += TAKEOVER_S
    assert admitted_in(story.tell(Tick())) == []

    assert admitted_in(story.finish(1, final=True)) == [2]


def test_waiting_in_vain_for_a_quota_is_told_with_its_name():
    story = Story(Everybody(), max_wait_s=5.0)
    story.now_s += TAKEOVER_S
    change(story, running_steps=1)
    story.hear(ready(1))
    story.take(1)
    story.hear(ready(2))
    refused = []
    for _ in range(7):
        story.now_s += 1.0
        story.hear(hello())
        story.hear(GatewayBeat(gateway_id=GatewayId("g0"), waiting=(beat_of(1), beat_of(2))))
        refused += [m for m in story.tell(Tick()) if isinstance(m, StepRefused)]

    assert [(m.step_id, m.reason) for m in refused] == [(step_id(2), "wait_bound")]
    assert "running_steps=1" in refused[0].detail


# --- bounds on memory ------------------------------------------------------------------------------------------------
