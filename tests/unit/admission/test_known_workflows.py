"""How many workflows are remembered, and which go first to make room."""

from admission_story import Story, hello, ready, step_id
from quota_story import admitted_in, refusal

from saga.admission.door import Bounds
from saga.admission.policy import Everybody
from saga.contract.ids import GatewayId, SessionId, TenantId
from saga.contract.messages import (
    Refused,
    StepAdmitted,
    StepCancelled,
)
from saga.kernel.effects import Tick

T = TenantId("t")


def test_a_client_that_opens_any_number_of_workflows_is_remembered_up_to_a_bound():
    story = Story(Everybody(), bounds=Bounds(max_workflows_per_tenant=20, max_workflows=30))
    refused = 0
    for number in range(1, 200):
        messages = story.hear(ready(number))
        refused += any(isinstance(m, Refused) and m.reason == "too_many_workflows" for m in messages)
        if any(isinstance(m, StepAdmitted) for m in messages):
            story.take(number)
            story.finish(number)

    assert refused == 179
    assert len(story.core.roster.workflows) == len(story.rows) == 20
    last = refusal(story.hear(ready(999)))
    assert "the limit is 20" in last.detail
    assert last.retry_after_s > 0


def test_dormant_workflows_make_room_for_new_ones():
    story = Story(Everybody(), bounds=Bounds(max_workflows_per_tenant=20))
    for number in range(1, 21):
        story.hear(ready(number))
        story.take(number)
        story.finish(number)
    story.now_s += 61.0
    story.hear(hello())
    story.tell(Tick())

    assert admitted_in(story.hear(ready(21))) == [21]


def test_all_tenants_together_have_a_bound_too():
    story = Story(Everybody(), bounds=Bounds(max_workflows=3))
    for number in range(1, 4):
        story.hear(ready(number, tenant=TenantId(f"t{number}")))

    refused = refusal(story.hear(ready(4, tenant=TenantId("t4"))))

    assert refused.reason == "too_many_workflows"
    assert "the limit is 3" in refused.detail


def test_a_workflow_with_any_number_of_sessions_is_remembered_up_to_a_bound():
    story = Story(Everybody())
    for number in range(1, 1_300):
        story.core.handle(Tick(), story.now_s)
        session = SessionId(f"s{number}")
        for message in (ready(number, "root", session=session), cancelled_in("root", number, session)):
            story.core.handle(_received(message), story.now_s)

    assert len(story.core.roster.workflows["root"].sessions) <= 1_000


def cancelled_in(root: str, number: int, session: SessionId) -> StepCancelled:
    return StepCancelled(
        step_id=step_id(number), attempt=0, gateway_id=GatewayId("g0"), tenant=T, root=root, session=session
    )


def _received(message):
    from saga.kernel.effects import Received  # noqa: PLC0415 - for this alone

    return Received(message)


# --- usage -----------------------------------------------------------------------------------------------------------
