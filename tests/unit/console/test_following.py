"""What the page is told of workflows, step by step."""

import pytest
from console_story import G, Story, admitted, finished, forecast, grant, ready, released

from saga.console.events import Replayed
from saga.console.following import AWAY_S
from saga.console.records import SESSIONS_KEPT, STEPS_KEPT
from saga.console.table import CLOSED_KEPT_S, UNNAMED_S
from saga.contract.ids import LeaseId, RootId, StepId, TenantId, WorkerId
from saga.contract.messages import (
    GatewayBeat,
    RunningLease,
    StepCancelled,
    StepRefused,
    WaitingStep,
    WorkflowEnded,
)


@pytest.fixture
def story():
    return Story(max_workflows=100)


def test_a_step_waits_runs_and_ends(story):
    story.now_s = 10.0
    story.say(ready(prompt=1000, waited_s=0.5))
    (waiting,) = story.steps()
    assert (waiting.phase, waiting.ready_s, waiting.start_s) == ("waiting", 9.5, -1.0)
    assert story.workflow().state == "queued"

    story.say(admitted(home="w1", waited="inactive"))
    (queued,) = story.steps()
    assert (queued.phase, queued.worker, queued.cause) == ("queued", "w1", "inactive")

    story.after(1.0, grant(cached=900, waited="inactive"))
    (running,) = story.steps()
    assert (running.phase, running.start_s, running.cached_tokens) == ("running", 11.0, 900)
    assert story.workflow().kv == ("w1", 1000, 1)

    story.after(2.0, finished(prompt=1000, cached=950, output=20, engine_s=1.9))
    (over,) = story.steps()
    assert (over.phase, over.start_s, over.first_token_s, over.end_s) == ("finished", 11.1, 0.5, 13.0)
    assert (over.cached_tokens, over.output_tokens, over.tools) == (950, 20, ("bash",))
    row = story.workflow()
    assert (row.state, row.steps, row.kv) == ("gap", 1, ("w1", 1020, 0))
    assert (row.prompt_tokens, row.cached_tokens, row.output_tokens) == (1000, 950, 20)


def test_a_forecast_says_when_it_is_expected_back(story):
    story.run_step()
    story.say(forecast(p50=3.0))
    assert story.workflow().back_s == 5.0

    story.say(ready("s2"))
    assert story.workflow().back_s == -1.0


def test_a_workflow_is_dormant_when_admission_says_so(story):
    story.run_step()
    story.frame()

    story.after(8.0, released("dormant"))

    (row,) = story.frame().workflows
    assert (row.state, row.kv) == ("dormant", ())


def test_without_that_word_it_is_dormant_after_a_minute_and_the_page_is_told(story):
    story.run_step()
    story.frame()
    story.after(AWAY_S - 1.0)
    assert story.frame().workflows == ()

    story.after(2.0)

    (row,) = story.frame().workflows
    assert row.state == "dormant"


def test_a_session_that_was_let_go_and_begins_elsewhere_has_moved(story):
    story.run_step("a")
    story.say(released("unbound"), ready("b"), grant("b", worker="w2", reason="home"))

    assert story.steps()[-1].moved_from == "w1"
    assert story.decisions()[-1] == ("moved", "home")


def test_a_forecast_that_is_quicker_than_its_steps_end_holds_all_the_same(story):
    story.say(ready(), grant(), forecast(p50=4.0), finished())

    assert story.workflow().back_s == 4.0
    assert story.workflow().remaining_s == 40.0


def test_a_grant_that_is_quicker_than_its_step_is_completed_by_it(story):
    story.say(grant(cached=5))
    story.say(ready(prompt=700, deadline_s=60.0))

    (step,) = story.steps()
    assert (step.phase, step.prompt_tokens) == ("running", 700)
    assert story.workflow().deadline_s == 60.0
    assert story.workflow().tenant == "acme"


def test_what_is_said_twice_or_too_late_counts_once(story):
    story.run_step()
    story.say(finished(), ready(), grant())

    assert story.workflow().steps == 1
    assert [step.phase for step in story.steps()] == ["finished"]


def test_a_grant_of_a_leader_that_was_replaced_is_dropped(story):
    story.say(ready("a"), ready("b"), grant("a", fence=5), grant("b", fence=4))

    assert [step.phase for step in story.steps()] == ["running", "waiting"]


def test_a_moved_session_takes_its_kv_along_and_its_steal_is_a_decision(story):
    story.run_step("a")
    story.say(ready("b", prompt=1010))
    story.after(3.0, grant("b", worker="w2", moved_from=WorkerId("w1"), reason="stolen", waited="home"))

    assert story.workflow().kv == ("w2", 1010, 1)
    moved = story.state.whole(story.now_s).decisions[-1]
    assert (moved.kind, moved.reason, moved.other, moved.worker, moved.amount) == ("moved", "stolen", "w1", "w2", 3.0)


def test_a_paused_workflow_loses_its_claim_and_the_decision_says_why(story):
    story.run_step()
    story.say(released("paused"))

    assert story.workflow().kv == ()
    assert ("paused", "paused") in story.decisions()


def test_kv_let_go_on_a_worker_that_is_no_longer_its_home_changes_nothing(story):
    story.run_step(worker="w2")
    story.say(released("moved", worker="w1"))

    assert story.workflow().kv == ("w2", 1010, 0)


def test_sub_agents_are_sessions_of_their_workflow(story):
    story.run_step("a")
    story.run_step("b", session="acme/fix/sub", parent="acme/fix/main", worker="w2")

    assert story.workflow().sessions == 2
    assert [step.session for step in story.steps()] == [0, 1]
    assert story.workflow().kv == ("w1", 1010, 0, "w2", 1010, 0)


def test_a_workflow_that_is_over_stays_for_a_minute(story):
    story.run_step(final=True)
    assert story.workflow().state == "closed"
    assert story.workflow().kv == ()
    story.frame()

    story.after(CLOSED_KEPT_S + 2.0)

    assert story.workflow() is None
    assert story.frame().workflows_gone == (1,)


def test_its_client_may_say_that_it_is_over(story):
    story.run_step()
    story.say(WorkflowEnded(tenant=TenantId("acme"), root=RootId("acme/fix")))

    assert story.workflow().state == "closed"


def test_a_step_whose_engine_died_waits_again(story):
    story.say(ready(), grant())
    story.after(1.0, ready(attempt=1))

    (step,) = story.steps()
    assert (step.phase, step.start_s) == ("waiting", -1.0)
    assert ("restarted", "engine_died") in story.decisions()


@pytest.mark.parametrize(("failed", "phase"), [(True, "failed"), (False, "cancelled")])
def test_a_step_may_end_without_an_answer(story, failed, phase):
    story.say(ready(), grant())
    gone = {"step_id": StepId("s1"), "attempt": 0, "gateway_id": G, "tenant": TenantId("acme")}
    story.say(StepCancelled(**gone, root=RootId("acme/fix"), session="acme/fix/main", failed=failed))

    assert [step.phase for step in story.steps()] == [phase]
    assert [kind for kind, _ in story.decisions()] == (["failed"] if failed else [])


def test_a_refused_step_is_a_decision(story):
    story.say(ready())
    story.after(
        2.0,
        StepRefused(step_id=StepId("s1"), attempt=0, fence=1, reason="wait_bound", detail="", retry_after_s=5.0),
    )

    assert story.decisions() == [("refused", "wait_bound")]
    assert [step.phase for step in story.steps()] == ["cancelled"]


def test_beats_say_how_far_a_step_is_and_keep_it_alive(story):
    story.say(ready("a"), ready("b"), grant("a"))
    lease = RunningLease(
        step_id=StepId("a"), attempt=0, lease_id=LeaseId("l"), worker_id=WorkerId("w1"), output_tokens=7
    )
    beat = GatewayBeat(
        gateway_id=G, running=(lease,), waiting=(WaitingStep(step_id=StepId("b"), attempt=0, waited_s=1),)
    )
    for _ in range(20):
        story.after(1.0, beat)
    assert {step.phase for step in story.steps()} == {"running", "waiting"}
    assert story.steps()[0].output_tokens == 7

    story.after(UNNAMED_S + 2.0)

    assert {step.phase for step in story.steps()} == {"cancelled"}


def test_the_past_is_shown_but_not_counted_as_served_now(story):
    story.now_s = 100.0
    story.state.handle(Replayed(finished("old", at=40.0, waited_s=1.0)), story.now_s)

    (step,) = story.steps()
    assert (step.ready_s, step.start_s, step.end_s) == (37.0, 38.0, 40.0)
    assert story.state.whole(100.0).totals.steps_per_s == 0.0


def test_memory_is_bounded(story):
    for number in range(STEPS_KEPT + 10):
        story.run_step(f"s{number}", for_s=0.1)
    for number in range(SESSIONS_KEPT + 10):
        story.run_step(f"t{number}", for_s=0.1, session=f"acme/fix/{number}")
    for number in range(300):
        story.run_step(f"u{number}", root=f"acme/{number}", for_s=0.1)

    assert story.workflow("acme/299") is not None
    assert len(story.state.table.workflows) == 100
    assert story.state.whole(story.now_s).totals.left_out == 201
