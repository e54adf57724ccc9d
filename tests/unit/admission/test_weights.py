"""Weights: guaranteed, raised by urgency to twice that at most, whatever deadlines are named."""

import pytest
from admission_story import Story, ready
from hypothesis import given
from hypothesis import strategies as st

from saga.admission.policy import Everybody
from saga.admission.records import Workflow
from saga.admission.weights import Weights
from saga.contract.ids import RootId, TenantId
from saga.contract.messages import StepAdmitted

TENANT = TenantId("t")


def weights(work: float = 0.2, least_s: float = 10.0) -> Weights:
    return Weights(lambda _: (work, least_s))


def workflow(number: int, deadline_s: float, submitted_s: float = 0.0) -> Workflow:
    return Workflow(ready(number, deadline_s=deadline_s), submitted_s)


def test_without_deadlines_it_is_what_is_guaranteed():
    told = weights()
    told.guarantee(TENANT, 3.0)
    told.begun(workflow(1, 0.0))

    assert told.of(TENANT) == told.guaranteed(TENANT) == 3.0
    assert told.of(TenantId("never heard of")) == 1.0


def test_work_left_over_time_to_deadline_raises_it():
    told = weights(work=10.0)
    told.begun(workflow(1, 100.0))
    told.now_s = 50.0

    assert told.of(TENANT) == pytest.approx(1.0 + 10.0 / 50.0)


def test_an_overdue_task_counts_nothing():
    told = weights(work=10.0)
    told.begun(workflow(1, 100.0))
    told.now_s = 100.5

    assert told.of(TENANT) == 1.0


def test_a_backlog_of_overdue_tasks_leaves_nothing_to_rescue():
    """They are older and go first, so a task behind them will be late as well, however large the share."""
    few, many = weights(work=10.0), weights(work=10.0)
    for told, overdue in ((few, 2), (many, 20)):
        for number in range(overdue):
            told.begun(workflow(number, 50.0))
        told.begun(workflow(99, 150.0))
        told.now_s = 60.0

    assert few.of(TENANT) == pytest.approx(1.0 + 10.0 / 90.0)
    assert many.of(TENANT) == 1.0


def test_a_deadline_sooner_than_the_task_could_end_is_as_good_as_the_one_it_could_meet():
    told = [weights(work=5.0, least_s=50.0) for _ in range(2)]
    told[0].begun(workflow(1, 0.001))
    told[1].begun(workflow(1, 50.0))

    assert told[0].of(TENANT) == told[1].of(TENANT) == pytest.approx(1.1)


def test_it_is_worked_out_anew_after_a_second_and_not_before():
    told = weights(work=10.0)
    told.begun(workflow(1, 100.0))
    first = told.of(TENANT)
    told.begun(workflow(2, 100.0))

    told.now_s = 0.5
    assert told.of(TENANT) == first
    told.now_s = 1.0
    assert told.of(TENANT) > first


def test_a_workflow_that_is_over_leaves_nothing_behind():
    told = weights(work=10.0)
    known = workflow(1, 100.0)
    told.begun(known)
    told.over(known)
    told.over(known)

    assert told.of(TENANT) == 1.0
    assert told.urgency(TENANT) == 0.0


def urgency_of(tasks: int, *, beside: int = 2) -> float:
    """Of a tenant with so many tasks of 10 s of the pool due in 100 s, beside tenants with one each."""
    told = weights(work=10.0)
    for number in range(beside):
        told.begun(Workflow(ready(1_000 + number, deadline_s=100.0, tenant=TenantId(f"other-{number}")), 0.0))
    for number in range(tasks):
        told.begun(workflow(number, 100.0))
    return told.urgency(TENANT)


def test_a_flood_is_no_more_urgent_than_what_could_be_rescued_of_it():
    assert urgency_of(2) == pytest.approx(0.2)
    assert urgency_of(6) == urgency_of(60) == pytest.approx(0.6), "twice a third of the pool"


def test_alone_a_tenant_may_have_the_whole_pool_rescue_it():
    assert urgency_of(60, beside=0) == pytest.approx(1.0)


def test_who_leaves_makes_room_for_the_urgency_of_others():
    told = weights(work=10.0)
    others = [Workflow(ready(100 + n, deadline_s=100.0, tenant=TenantId(f"other-{n}")), 0.0) for n in range(9)]
    for other in others:
        told.begun(other)
    for number in range(60):
        told.begun(workflow(number, 100.0))
    assert told.urgency(TENANT) == pytest.approx(0.2)

    for other in others:
        told.over(other)

    assert told.urgency(TENANT) == pytest.approx(1.0)


def test_a_weight_that_changes_changes_what_could_be_rescued():
    told = weights(work=10.0)
    told.begun(Workflow(ready(100, deadline_s=100.0, tenant=TenantId("other")), 0.0))
    for number in range(60):
        told.begun(workflow(number, 100.0))
    told.guarantee(TenantId("other"), 4.0)

    assert told.urgency(TENANT) == pytest.approx(0.4)


@given(
    deadlines=st.lists(st.floats(1e-6, 1e6), max_size=100),
    work=st.floats(0.0, 1e6),
    least_s=st.floats(0.0, 1e4),
    now_s=st.floats(0.0, 1e6),
)
def test_no_deadlines_buy_more_than_twice_the_guaranteed_weight(deadlines, work, least_s, now_s):
    told = weights(work, least_s)
    told.guarantee(TENANT, 0.5)
    for number, deadline_s in enumerate(deadlines):
        told.begun(workflow(number, deadline_s))
    told.now_s = now_s

    assert 0.5 <= told.of(TENANT) <= 1.0


@pytest.mark.parametrize("weight", [0.0, -1.0, float("inf"), float("nan")])
def test_a_weight_that_is_none_is_refused(weight: float):
    with pytest.raises(ValueError, match="must be positive"):
        weights().guarantee(TENANT, weight)


def test_the_clients_deadline_is_fixed_with_the_first_step():
    story = Story(Everybody())
    story.hear(ready(1, "root", deadline_s=30.0))
    story.take(1, "root")
    story.finish(1, "root")
    story.hear(ready(2, "root", deadline_s=1.0))

    assert story.core.roster.workflows[RootId("root")].deadline_s == 30.0


def test_who_names_no_deadline_gets_one_and_a_half_times_what_its_class_took():
    story = Story(Everybody())
    assert story.core.roster.expectations.deadline_s(workflow(99, 0.0)) == 0.0
    story.hear(ready(1, "root", agent_class="coder"))
    story.take(1, "root")
    story.now_s += 40.0
    story.finish(1, "root", final=True)

    story.hear(ready(2, "next", agent_class="coder"))
    story.hear(ready(3, "other", agent_class="unheard of"))
    story.hear(ready(4, "third", agent_class="unheard of", tenant=TenantId("unheard of too")))

    deadlines = [story.core.roster.workflows[RootId(root)].deadline_s for root in ("next", "other", "third")]
    assert deadlines == [60.0, 60.0, 60.0]


def test_a_step_keeps_the_weight_it_was_tagged_with():
    story = Story(Everybody())
    story.core.book.fair.set_weight(TENANT, 4.0)
    (admitted,) = [m for m in story.hear(ready(1, "root")) if isinstance(m, StepAdmitted)]
    story.core.book.fair.set_weight(TENANT, 1.0)

    story.take(1, "root")
    story.finish(1, "root", cached_tokens=3_000, output_tokens=100)

    assert admitted.tag.virtual_start_s == 0.0
    assert story.core.book.fair.account(TENANT).finish_s == pytest.approx(1.0 / 4.0)
