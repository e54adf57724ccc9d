"""Whose turn it is before the active set: fair between tenants, by age inside one."""

import msgspec
from admission_story import POOL, Story, hello, ready
from fair_cluster import Agent, Cluster
from hypothesis import given, settings
from hypothesis import strategies as st

from saga.admission.policy import Claims
from saga.admission.records import Workflow
from saga.admission.service import _watch_levels
from saga.admission.turns import Turns
from saga.admission.weights import Weights
from saga.admission.worker_budgets import WorkerBudgets
from saga.contract.ids import RootId, TenantId
from saga.contract.messages import Message, StepAdmitted
from saga.runtime import metrics

BOUND_S = 300.0


class Line:
    """Turns of workflows that cost what we say."""

    def __init__(self) -> None:
        self.workflows: dict[RootId, Workflow] = {}
        self.work_s: dict[RootId, float] = {}
        self.weights = Weights()
        self.turns = Turns(self.workflows, self.weights, lambda w: self.work_s[w.root], BOUND_S)
        self._count = 0

    def wait(self, tenant: str, work_s: float = 10.0, now_s: float = 0.0) -> RootId:
        """A workflow of the tenant, younger than all before."""
        self._count += 1
        root = RootId(f"{tenant}-{self._count:03}")
        self.workflows[root] = Workflow(ready(self._count, root, tenant=TenantId(tenant)), float(self._count))
        self.work_s[root] = work_s
        self.turns.at(now_s)
        self.turns.waits(self.place(root), TenantId(tenant))
        self.turns.check()
        return root

    def place(self, root: RootId):
        return self.workflows[root].submitted_s, root

    def join(self, root: RootId) -> None:
        self.turns.joins(self.place(root), self.workflows[root].tenant)
        self.turns.check()

    def serve(self, root: RootId, cost_s: float) -> None:
        """It has done so much of its work."""
        tenant = self.workflows[root].tenant
        self.work_s[root] = max(0.0, self.work_s[root] - cost_s)
        self.turns.charged(tenant, cost_s / self.weights.of(tenant))
        self.turns.expects(root, tenant)
        self.turns.check()

    def leave(self, root: RootId) -> None:
        self.turns.left(root, self.workflows[root].tenant)
        self.turns.check()

    def order(self, now_s: float = 0.0) -> list[RootId]:
        return [root for _, root in self.turns.in_turn(now_s)]


def test_tenants_take_turns_by_what_their_first_ones_are_expected_to_cost():
    line = Line()
    old = [line.wait("flood") for _ in range(4)]
    young = [line.wait("steady") for _ in range(2)]

    assert line.order() == [old[0], young[0], old[1], young[1], old[2], old[3]]


def test_who_has_had_more_waits_longer():
    line = Line()
    inside = line.wait("flood")
    line.join(inside)
    waiting = line.wait("flood")
    young = line.wait("steady")
    line.serve(inside, 10.0)

    assert line.order() == [young, waiting]


def test_twice_the_weight_is_twice_the_turns():
    line = Line()
    line.weights.guarantee(TenantId("heavy"), 2.0)
    for _ in range(6):
        line.wait("heavy")
        line.wait("light")

    assert sum(root.startswith("heavy") for root in line.order()[:6]) == 4


def test_a_tenant_that_had_nothing_in_line_starts_level():
    line = Line()
    inside = line.wait("flood")
    line.join(inside)
    waiting = line.wait("flood")
    line.serve(inside, 1_000.0)
    line.leave(inside)

    late = [line.wait("late") for _ in range(3)]

    assert line.order() == [waiting, late[0], late[1], late[2]]


def test_an_expectation_that_was_far_too_high_costs_a_later_tenant_nothing():
    line = Line()
    inside = line.wait("flood", work_s=1e6)
    line.join(inside)
    line.join(line.wait("flood", work_s=1e6))
    line.work_s[inside] = 1.0
    line.serve(inside, 1.0)
    waiting = line.wait("flood")
    late = line.wait("late")

    assert line.order() == [late, waiting]


def test_a_tenant_with_nobody_inside_goes_first_once_it_has_waited_for_its_bound():
    line = Line()
    line.weights.guarantee(TenantId("tiny"), 1e-6)
    first = line.wait("tiny")
    others = [line.wait("other") for _ in range(4)]
    line.join(first)
    line.join(others.pop(0))
    line.serve(first, 10.0)
    line.leave(first)
    tiny = [line.wait("tiny", now_s=5.0) for _ in range(2)]

    assert line.order(now_s=5.0 + BOUND_S) == [*others, *tiny]
    assert line.order(now_s=5.5 + BOUND_S) == [tiny[0], *others, tiny[1]]
    line.join(tiny[0])
    assert line.order(now_s=9.0 + BOUND_S) == [*others, tiny[1]], "one at a time, and only while nobody of it is inside"


class Happening(msgspec.Struct, frozen=True):
    """Something that may happen in the line."""

    kind: str
    tenant: str
    amount_s: float
    which: int


tenants = ("a", "b", "c")
moves = st.lists(
    st.builds(
        Happening,
        st.sampled_from(["wait", "wait", "join", "join", "serve", "leave", "misjudge"]),
        st.sampled_from(tenants),
        st.floats(0.0, 50.0),
        st.integers(0, 20),
    ),
    max_size=100,
)


@settings(max_examples=200, deadline=None)
@given(moves)
def test_no_account_gets_further_ahead_than_one_workflow_and_what_was_misjudged(moves: list[Happening]):
    """Theorem 3 of docs/fairness.md: of two tenants that both wait all the while."""
    line = Line()
    for tenant in tenants:
        line.wait(tenant)
    inside: list[RootId] = []
    drift_s = dict.fromkeys(tenants, 0.0)  # what accounts moved by other than by joining
    largest_s = 10.0
    for move in moves:
        if move.kind == "wait":
            line.wait(move.tenant, move.amount_s)
            largest_s = max(largest_s, move.amount_s)
        elif move.kind == "join":
            first = line.order()[0]
            tenant = line.workflows[first].tenant
            if len(line.turns._accounts[tenant].line) > 1:  # it goes on waiting with another
                line.join(first)
                inside.append(first)
        elif inside:
            root = inside[move.which % len(inside)]
            tenant = line.workflows[root].tenant
            before_s = line.turns._accounts[tenant].at_s
            if move.kind == "leave":
                inside.remove(root)
                line.leave(root)
            else:
                line.serve(root, move.amount_s)
                if move.kind == "misjudge":
                    line.work_s[root] += move.amount_s
                    line.turns.expects(root, tenant)
            drift_s[tenant] += abs(line.turns._accounts[tenant].at_s - before_s)
        accounts = [line.turns._accounts[tenant].at_s for tenant in tenants]
        assert max(accounts) - min(accounts) <= largest_s + sum(drift_s.values()) + 1e-6


# --- in admission -----------------------------------------------------------------------------------------------------


def by_age(claims: Claims, now_s: float):
    """As it was before there were turns."""
    return (place for place in claims.outside if claims.workflows[place[1]].steps)


def flooded(line=None) -> Story:
    """One worker with room for two workflows, both of a tenant that has ten more waiting."""
    story = Story(WorkerBudgets(line=line) if line else WorkerBudgets(), workers=0)
    story.hear(hello(kv_tokens=8_000))
    for number in range(12):
        story.now_s += 1.0
        story.hear(ready(number, f"flood-{number:02}", tenant=TenantId("flood")))
        if number < 2:
            story.take(number, f"flood-{number:02}")
    story.now_s += 1.0
    story.hear(ready(50, "steady", tenant=TenantId("steady")))
    return story


def joins_next(story: Story) -> list[str]:
    said = story.finish(0, "flood-00", tenant=TenantId("flood"), final=True)
    return [message.step.root for message in said if isinstance(message, StepAdmitted)]


def test_a_tenant_with_many_old_workflows_does_not_hold_the_set():
    assert joins_next(flooded()) == ["steady"]
    assert joins_next(flooded(by_age)) == ["flood-02"]


def test_what_fits_nowhere_is_promised_a_worker_in_its_turn():
    story = Story(WorkerBudgets(), workers=0)
    story.hear(hello(kv_tokens=10_000))
    story.hear(ready(1, "flood-1", tenant=TenantId("flood")))
    story.take(1, "flood-1")
    story.now_s += 1.0
    story.hear(ready(2, "large", tenant=TenantId("steady"), prompt_tokens=7_500))
    story.now_s += 1.0

    assert story.admitted(ready(3, "flood-2", tenant=TenantId("flood"))) == []
    said = story.finish(1, "flood-1", tenant=TenantId("flood"), final=True)
    assert [m.step.root for m in said if isinstance(m, StepAdmitted)] == ["large"]


def cluster(line, seed: int, kv_tokens: int, tenants: int) -> list[Message]:
    """Everything that admission said in a busy while."""
    policy = WorkerBudgets(line=line) if line else WorkerBudgets()
    world = Cluster(policy, slots=3, workers=2, kv_tokens=kv_tokens, seed=seed)
    world.cancels = 0.1
    for number in range(14):
        tenant = f"t{number % tenants}"
        world.submit(Agent(f"r{number:02}", tenant, steps=2 + number % 5, deadline_s=100.0 * (number % 3)))
        world.run(number % 3)
    world.run(40)
    return world.said


@settings(max_examples=12, deadline=None)
@given(seed=st.integers(0, 10_000), kv_tokens=st.integers(7_000, 20_000))
def test_with_one_tenant_turns_are_ages(seed: int, kv_tokens: int):
    assert cluster(None, seed, kv_tokens, tenants=1) == cluster(by_age, seed, kv_tokens, tenants=1)


def test_with_several_they_are_not():
    assert cluster(None, 1, 8_000, tenants=3) != cluster(by_age, 1, 8_000, tenants=3)


def test_the_accounts_of_a_pool_are_remembered_while_somebody_waits_or_is_inside(monkeypatch):
    monkeypatch.setattr("saga.admission.turns.IDLE_TENANTS", 3)
    line = Line()
    inside = line.wait("here")
    line.join(inside)
    line.serve(inside, 7.0)
    for number in range(10):
        line.turns.charged(TenantId(f"gone-{number}"), 5.0)

    assert line.turns._accounts[TenantId("here")].served_s == 7.0
    assert len(line.turns._accounts) <= 4


def test_the_pool_says_how_far_apart_its_tenants_are():
    story = flooded()
    turns = story.core.roster.pool(POOL).turns

    assert turns.ahead_s(20) == {"flood": turns.ahead_s(1)["flood"], "steady": 0.0}
    assert turns.ahead_s(1)["flood"] >= 0.0


def test_the_metrics_of_admission_name_whoever_waits():
    story = flooded()
    _watch_levels(story.core)

    scraped = metrics.render()

    assert b'saga_admission_ahead_engine_seconds{tenant="steady"} 0.0' in scraped
    assert b'saga_admission_overhead_engine_seconds{cause="paused"} 0.0' in scraped
