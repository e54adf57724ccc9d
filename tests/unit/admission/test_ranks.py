"""In what order the workflows of one tenant come."""

import pytest
from admission_story import Story, ready

from saga.admission.expectations import Means
from saga.admission.making import Making, make_core
from saga.admission.ranks import RANKS, ByAge, LeastAttained, LeastSlack, LeastWorkLeft
from saga.admission.records import Workflow
from saga.admission.worker_budgets import WorkerBudgets
from saga.contract.messages import StepAdmitted

NOTHING_KNOWN = Means()
TYPICAL = Means(seconds=1_000.0, work_s=10.0, samples=5)  # a second of work takes a hundred


def workflow(
    number: int, submitted_s: float = 0.0, *, served_s: float = 0.0, left_s: float = 0.0, **fields
) -> Workflow:
    made = Workflow(ready(number, **fields), submitted_s)
    made.served_s, made.remaining_engine_s = served_s, left_s
    return made


def first(rank, one: Workflow, other: Workflow, expected: Means = TYPICAL) -> Workflow:
    return min(one, other, key=lambda w: rank.of(w, expected))


def test_by_age_whoever_came_first_comes_first_whatever_it_had():
    old, young = workflow(1, 0.0, served_s=50.0), workflow(2, 1.0)

    assert first(ByAge(), old, young) is old


def test_by_attained_service_a_newcomer_passes_one_that_had_twice_as_much():
    old, young = workflow(1, 0.0, served_s=8.0), workflow(2, 500.0, served_s=3.0)

    assert first(LeastAttained(), old, young) is young


def test_workflows_that_had_about_as_much_do_not_take_turns():
    old, young = workflow(1, 0.0, served_s=3.9), workflow(2, 500.0, served_s=3.1)

    assert first(LeastAttained(), old, young) is old


def test_by_slack_the_one_that_would_be_late_soonest_comes_first():
    relaxed = workflow(1, 0.0, left_s=1.0, deadline_s=5_000.0)
    urgent = workflow(2, 100.0, left_s=1.0, deadline_s=1_000.0)
    long_one = workflow(3, 100.0, left_s=9.0, deadline_s=1_000.0)

    assert first(LeastSlack(), relaxed, urgent) is urgent
    assert first(LeastSlack(), urgent, long_one) is long_one


def test_by_work_left_the_one_that_is_through_sooner_comes_first():
    long_one, short_one = workflow(1, 0.0, left_s=9.0), workflow(2, 100.0, left_s=1.0)

    assert first(LeastWorkLeft(), long_one, short_one) is short_one


def test_nobody_waits_for_those_who_came_later_by_more_than_what_is_left_of_it():
    waits, newcomer = workflow(1, 0.0, left_s=9.0), workflow(2, 901.0, left_s=0.0)

    assert first(LeastWorkLeft(), waits, newcomer) is waits


def test_before_anybody_has_finished_work_left_counts_as_it_is():
    old, young = workflow(1, 0.0, left_s=9.0), workflow(2, 5.0, left_s=1.0)

    assert first(LeastWorkLeft(), old, young, NOTHING_KNOWN) is young
    assert first(LeastWorkLeft(), old, workflow(2, 9.0, left_s=1.0), NOTHING_KNOWN) is old


@pytest.mark.parametrize("name", sorted(RANKS))
def test_every_rank_can_be_chosen_by_name(name: str):
    making = Making(
        cell="test", policy="saga", rank=name, wall_offset_s=0.0, max_waiting_steps=10, max_wait_s=60.0, weights={}
    )

    make_core(making).check()


def test_the_rank_decides_who_joins_next():
    story = Story(WorkerBudgets(1.0, learns=False), rank=LeastAttained())
    assert story.admitted(ready(1, prompt_tokens=7_000))
    story.take(1)
    for number in (2, 3):
        story.now_s += 1.0
        assert story.admitted(ready(number, prompt_tokens=7_000)) == []
    had_more = story.core.roster.workflows["root-2"]
    had_more.served_s = 50.0
    story.core.roster.rank(had_more)

    said = story.finish(1, final=True)

    assert [m.step.step_id[-1] for m in said if isinstance(m, StepAdmitted)] == ["3"]


def test_a_share_of_kv_is_kept_to_where_one_is_set():
    story = Story(WorkerBudgets(0.5, learns=False))

    assert story.admitted(ready(1)) == [ready(1).step_id]
    assert story.admitted(ready(2)) == []
