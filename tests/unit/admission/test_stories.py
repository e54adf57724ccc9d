"""What admission tells of a step that it held back: by which limit, who was before it, and who went first."""

from admission_story import Story, ready, step_id

from saga.admission.events import TenantChanged
from saga.contract.ids import RootId, TenantId
from saga.contract.messages import WhyAsk, WhyTold
from saga.contract.tenants import TenantTerms
from saga.kernel.effects import Tick


def told(story: Story, number: int = 0, root: str = "") -> WhyTold:
    ask = WhyAsk(root=RootId(root)) if root else WhyAsk(step_id=step_id(number))
    (answer,) = story.hear(ask)
    return answer


def words(answer: WhyTold) -> list[str]:
    return [moment.what for moment in answer.steps[0].moments]


def test_a_step_that_may_run_at_once_waits_for_nothing():
    story = Story(stories=True)
    story.hear(ready(1))

    assert words(told(story, 1)) == ["ready", "admitted"]
    assert told(story, 1).workflow.state == "active"


def test_one_that_does_not_fit_says_what_there_is_and_who_comes_first():
    story = Story(stories=True)  # 10,000 KV tokens, 3,000 for each prompt
    for number in (1, 2, 3, 4, 5):
        story.hear(ready(number))
        story.now_s += 1.0

    answer = told(story, 5)

    assert words(answer) == ["ready", "waits", "waits_now"]
    facts = answer.steps[0].moments[1].facts
    assert facts["limit"] == "kv"
    assert facts["kv_tokens"] == 10_000
    assert facts["active_tokens"] + facts["needs_tokens"] > facts["kv_tokens"]
    assert (facts["active_workflows"], facts["own_before"], facts["first"]) == (3, 1, "root-4")
    assert answer.workflow.state == "queued"


def test_and_afterwards_who_went_before_it():
    story = Story(stories=True)
    for number in (1, 2, 3, 4, 5):
        story.hear(ready(number))
    for number in (1, 2):
        story.take(number)
        story.finish(number, final=True)
        story.now_s += 2.0

    answer = told(story, 5)

    assert words(answer) == ["ready", "waits", "admitted"]
    facts = answer.steps[0].moments[-1].facts
    assert (facts["waited"], facts["joined_before"], facts["last_of_them"]) == ("inactive", 1, "root-4")


def test_a_quota_is_named_with_its_value():
    story = Story(stories=True)
    story.tell(TenantChanged(TenantId("t"), TenantTerms(running_steps=1)))
    story.hear(ready(0))
    assert told(story, 0).steps[0].moments[1].facts == {"limit": "takeover"}, "what runs is told in a moment"
    story.now_s += 2.0
    story.hear(ready(1))
    story.hear(ready(2))

    facts = told(story, 2).steps[0].moments[-1].facts

    assert facts == {"limit": "quota", "quota": "running_steps=1", "tenant": "t"}


def test_without_a_worker_it_waits_for_one():
    story = Story(stories=True, workers=0)
    for number in (1, 2):
        story.hear(ready(number))

    assert told(story, 2).steps[0].moments[-1].facts == {"limit": "no_worker"}


def test_a_refusal_is_told_as_the_client_was_told():
    story = Story(stories=True)
    story.hear(ready(1, prompt_tokens=11_000))

    answer = told(story, 1)

    assert words(answer) == ["ready", "refused"]
    assert answer.steps[0].over
    assert "the largest worker holds 10000" in answer.steps[0].moments[-1].facts["detail"]


def test_a_workflow_tells_when_it_joined_and_left():
    story = Story(stories=True)
    story.hear(ready(1, "w"))
    story.take(1, "w")
    story.finish(1, "w")
    story.now_s += 600.0
    story.hear(ready(2, "other"))

    story.tell(Tick())

    answer = told(story, root="w")

    assert [moment.what for moment in answer.workflow.moments] == ["joined", "left"]
    assert answer.workflow.state == "dormant"
    assert [step.step_id for step in answer.steps] == [step_id(1)]


def test_nothing_is_remembered_where_nobody_asks():
    story = Story()
    story.hear(ready(1))

    assert story.hear(WhyAsk(step_id=step_id(1))) == []
