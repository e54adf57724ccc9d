"""Who joins and who leaves: the quick answer, the whole rule behind it, and what an unbound workflow is told."""

from admission_story import POOL, Story, hello, ready, step_id
from hypothesis import given
from hypothesis import strategies as st

from saga.admission.expectations import Means
from saga.admission.needs import HORIZONS
from saga.admission.policy import NO_CHANGE, OldestThatFit, Revision
from saga.admission.ranks import ByAge
from saga.admission.records import Workflow
from saga.admission.roster import Roster
from saga.contract.ids import RootId, SessionId, WorkerId
from saga.contract.messages import SessionsReleased, StepAdmitted

NEEDS = st.tuples(*[st.integers(0, 6_000)] * len(HORIZONS))


class Needy(Workflow):
    """A workflow that claims so much, whatever its sessions say."""

    def __init__(self, number: int, needs: tuple[int, ...]) -> None:
        super().__init__(ready(number, f"r{number}"), float(number))
        self.needs = needs

    def dormant(self, now_s: float) -> bool:
        del now_s
        return False

    def needs_tokens(self, now_s: float) -> tuple[int, ...]:
        del now_s
        return self.needs


@given(st.lists(st.tuples(NEEDS, st.booleans()), max_size=8))
def test_the_quick_answer_is_that_of_the_whole_rule(claimants):
    roster = Roster(ByAge())
    pool = roster.pool(POOL)
    pool.serves(hello(kv_tokens=10_000))
    for number, (needs, active) in enumerate(claimants):
        workflow = roster.workflows[RootId(f"r{number}")] = Needy(number, needs)
        roster.claim(workflow, 0.0)
        if active:
            roster.activate(workflow)
    policy = OldestThatFit(0.95, 1.0)

    revision = policy.revise(pool, 0.0)

    chosen = set(policy.active(pool.ranked(), pool.kv_tokens))
    assert (pool.active | set(revision.joins)) - set(revision.leaves) == chosen
    assert not pool.active & set(revision.joins)
    assert set(revision.leaves) <= pool.active


def test_nothing_changes_while_the_next_in_line_has_to_wait():
    story = Story()
    for number in range(1, 5):
        story.admitted(ready(number))
        story.now_s += 1.0

    assert OldestThatFit(0.95, 1.0).revise(story.core.roster.pool(POOL), story.now_s) is NO_CHANGE


class NewestFirst:
    def of(self, workflow: Workflow, expected: Means) -> float:
        del expected
        return -workflow.submitted_s


class OneAtATime:
    """A policy that binds: the first claimant runs alone, on the worker named."""

    unbinds = True

    def revise(self, claims, now_s):
        del now_s
        if not claims.needs:
            return NO_CHANGE
        first = min((*claims.inside, *claims.outside))[1]
        others = tuple(root for _, root in claims.inside if root != first)
        joins = () if first in {root for _, root in claims.inside} else (first,)
        return Revision(joins, others, dict.fromkeys(joins, WorkerId("w7")))


def test_a_workflow_bound_to_a_worker_starts_there():
    story = Story(OneAtATime(), rank=NewestFirst())

    said = story.hear(ready(1))

    assert next(m for m in said if isinstance(m, StepAdmitted)).home == "w7"


def test_a_workflow_that_is_unbound_when_paused_has_no_home_any_more():
    story = Story(OneAtATime(), rank=NewestFirst())
    story.hear(ready(1))
    story.take(1, worker="w7")
    story.finish(1, worker_id=WorkerId("w7"))
    story.now_s += 1.0

    said = story.hear(ready(2))

    (released,) = [m for m in said if isinstance(m, SessionsReleased)]
    assert (released.worker_id, released.sessions, released.reason) == ("w7", (SessionId("root-1"),), "unbound")
    assert story.core.roster.workflows[RootId("root-1")].sessions[SessionId("root-1")].home == ""
    assert story.admitted(ready(3, "root-1")) == []
    assert step_id(3) in story.core.book.steps
