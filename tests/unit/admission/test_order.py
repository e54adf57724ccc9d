"""In what order steps start: the tag, and the fair queue behind it."""

from admission_story import Story, grant_of, ready, step_id

from saga.admission.order import ORDERS, FairStart, ProgramFcfs
from saga.admission.policy import Everybody
from saga.contract.ids import RootId, SessionId, TenantId
from saga.contract.messages import StepAdmitted


def admitted(story: Story, number: int, root: str, tenant: str = "t", **fields) -> StepAdmitted:
    """The step as placement is told of it, one second after the last."""
    story.now_s += 1.0
    said = story.hear(ready(number, root, tenant=TenantId(tenant), **fields))
    return next(m for m in said if isinstance(m, StepAdmitted))


def test_the_default_lets_a_tenant_pass_one_that_has_had_its_share():
    story = Story(Everybody(), FairStart())
    greedy = [admitted(story, n, f"greedy-{n}", "greedy") for n in (1, 2, 3)]

    modest = admitted(story, 4, "modest", "modest")

    assert greedy[0].tag < modest.tag < greedy[1].tag


def test_program_fcfs_puts_a_later_step_of_an_older_workflow_first():
    story = Story(Everybody(), ProgramFcfs())
    admitted(story, 1, "old")
    young = admitted(story, 2, "young")

    later = admitted(story, 3, "old", session=SessionId("sub-agent"))

    assert later.tag < young.tag


def test_a_tag_that_is_no_virtual_time_leaves_the_fair_clock_alone():
    story = Story(Everybody(), ProgramFcfs())
    first = admitted(story, 1, "root")

    story.hear(grant_of(first))

    assert first.tag.order > 100.0
    assert story.core.book.fair.virtual_s == 0.0


def test_the_fair_queue_is_charged_whatever_the_order():
    story = Story(Everybody(), ProgramFcfs())
    admitted(story, 1, "root")

    assert story.core.book.steps[step_id(1)].charged_s > 0
    assert story.core.book.fair.account(TenantId("t")).finish_s > 0


def test_orders_are_chosen_by_name():
    assert set(ORDERS) == {"fair", "program-fcfs"}
    assert RootId("root") in {admitted(Story(Everybody(), ORDERS[name]()), 1, "root").step.root for name in ORDERS}
