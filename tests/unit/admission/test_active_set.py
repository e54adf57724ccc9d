"""Which workflows may run: oldest first until the KV is spoken for, and never a jam."""

from admission_story import POOL, Story, beat_of, hello, ready, step_id
from forecasts import forecast

from saga.admission.policy import Everybody
from saga.contract.ids import GatewayId, RootId, SessionId, WorkerId
from saga.contract.messages import (
    Accepted,
    GatewayBeat,
    SessionsReleased,
    StepAdmitted,
    WorkerLeaving,
)
from saga.kernel.effects import Tick


def test_a_step_of_a_workflow_that_fits_goes_on_at_once():
    story = Story()

    accepted, admitted = story.hear(ready(1))

    assert accepted == Accepted(step_id=step_id(1), attempt=0, fence=3)
    assert isinstance(admitted, StepAdmitted)
    assert admitted.waited == "none"


def test_workflows_beyond_the_kv_wait_their_turn_oldest_first():
    story = Story()  # 10,000 tokens of KV, three workflows of 3,100 fit in 95 % of it
    for number in (1, 2, 3):
        assert story.admitted(ready(number)) == [step_id(number)]
        story.now_s += 1.0
    assert story.admitted(ready(4)) == []
    story.now_s += 1.0
    assert story.admitted(ready(5)) == []

    messages = story.finish(2, final=True)

    (next_up,) = [m for m in messages if isinstance(m, StepAdmitted)]
    assert next_up.step.step_id == step_id(4)
    assert next_up.waited == "inactive"


def test_a_large_workflow_is_not_overtaken():
    story = Story()
    story.admitted(ready(1, prompt_tokens=5_000))
    story.now_s += 1.0
    assert story.admitted(ready(2, prompt_tokens=6_000)) == []
    story.now_s += 1.0

    assert story.admitted(ready(3, prompt_tokens=1_000)) == []


def test_one_workflow_is_always_active_even_if_it_is_larger_than_the_budget():
    story = Story()

    assert story.admitted(ready(1, prompt_tokens=9_900)) == [step_id(1)]


def test_steps_of_an_active_workflow_are_never_held_back():
    story = Story()
    for number in (1, 2, 3):
        story.admitted(ready(number))
        story.take(number)

    assert story.admitted(ready(9, "root-1", session=SessionId("sub-agent"), parent=SessionId("root-1"))) == [
        step_id(9)
    ]


def test_a_workflow_is_paused_at_its_step_boundary_and_its_kv_released():
    story = Story()
    for number in (1, 2, 3):
        story.admitted(ready(number))
        story.take(number)
        story.now_s += 1.0
    story.finish(1, prompt_tokens=3_000, output_tokens=3_000)  # the oldest has grown: 6,000 + 3 x 3,100 do not fit

    messages = story.finish(3)

    (released,) = [m for m in messages if isinstance(m, SessionsReleased)]
    assert released.sessions == (SessionId("root-3"),)
    assert released.reason == "paused"
    assert story.core.pauses == 1
    assert story.admitted(ready(8, "root-3")) == []


def test_a_workflow_that_stays_away_longer_than_forecast_makes_room():
    story = Story()
    for number in (1, 2, 3):
        story.admitted(ready(number))
        story.take(number)
        story.finish(number)
        story.now_s += 0.1
    assert story.admitted(ready(4)) == []
    story.hear(forecast(root=RootId("root-1"), session=SessionId("root-1"), step_id=step_id(1)))
    story.hear(hello())
    story.now_s += 2.1
    story.hear(GatewayBeat(gateway_id=GatewayId("g0"), waiting=(beat_of(4),)))

    messages = story.tell(Tick())

    assert [m.step.step_id for m in messages if isinstance(m, StepAdmitted)] == [step_id(4)]


def test_a_parent_that_waits_for_its_children_claims_nothing():
    story = Story()
    story.admitted(ready(1, "root"))
    story.take(1, "root")
    story.finish(1, "root")
    before = story.core.roster.pool(POOL).together_tokens[0]

    story.hear(ready(2, "root", session=SessionId("child"), parent=SessionId("root"), prompt_tokens=500))

    assert before == 3_100
    assert story.core.roster.pool(POOL).together_tokens[0] == 600


def test_the_baseline_admits_everybody():
    story = Story(Everybody())

    assert [story.admitted(ready(n)) for n in range(20)] == [[step_id(n)] for n in range(20)]


def test_lost_workers_shrink_the_active_set_but_cut_nothing_that_runs():
    story = Story(workers=2)
    for number in range(1, 6):
        story.admitted(ready(number))
        story.take(number)
        story.now_s += 0.01

    story.hear(WorkerLeaving(worker_id=WorkerId("w1"), epoch=1, engine_died=True))

    assert len(story.core.book.steps) == 5
    assert story.admitted(ready(9)) == []
