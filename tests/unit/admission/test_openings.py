"""Which workers admission names to placement for a session that has run nowhere."""

from admission_story import Story, hello, ready

from saga.admission.openings import MOST_NAMED, openings
from saga.admission.worker_budgets import WorkerBudgets
from saga.contract.ids import WorkerId
from saga.contract.messages import StepAdmitted


def fits_of(messages) -> tuple[WorkerId, ...]:
    (admitted,) = [m for m in messages if isinstance(m, StepAdmitted)]
    return admitted.fits


def test_a_new_workflow_may_begin_wherever_it_fits_the_worker_of_its_budget_first():
    story = Story(WorkerBudgets(), workers=3)
    story.hear(ready(1, prompt_tokens=8_000))  # w0 is nearly full now
    story.take(1)

    fits = fits_of(story.hear(ready(2)))

    assert fits == ("w1", "w2")


def test_later_steps_go_home_so_nothing_is_named():
    story = Story(WorkerBudgets(), workers=2)
    story.hear(ready(1))
    story.take(1)
    story.finish(1, tools=("bash",))

    assert fits_of(story.hear(ready(2, "root-1"))) == ()


def test_a_sub_agent_may_begin_beside_its_parents_worker():
    story = Story(WorkerBudgets(), workers=2)
    story.hear(ready(1))
    story.take(1)

    assert fits_of(story.hear(ready(2, "root-1", session="child", parent="root-1"))) == ("w0", "w1")


def test_policies_that_bind_nobody_and_those_told_not_to_ask_leave_it_to_the_home():
    for policy in (None, WorkerBudgets(asks_placement=False)):
        assert fits_of(Story(policy, workers=2).hear(ready(1))) == ()


def test_a_worker_that_is_promised_is_not_named():
    pool = Story(WorkerBudgets(), workers=3).core.roster.pool("model")
    pool.promised = frozenset((WorkerId("w1"),))

    assert openings(pool, 1_000, WorkerId("w0")) == ("w0", "w2")


def test_of_many_workers_the_least_full_are_named():
    story = Story(WorkerBudgets(), workers=0)
    for number in range(2 * MOST_NAMED):
        story.hear(hello(f"w{number:03}", kv_tokens=10_000 + number))
    pool = story.core.roster.pool("model")
    pool.promised = frozenset()

    named = openings(pool, 1_000, WorkerId("w000"))

    assert len(named) == MOST_NAMED
    assert named[:2] == ("w000", "w127")
