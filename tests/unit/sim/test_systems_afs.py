"""Agent Fair Share as published: what it does, and whom it starves."""

import pytest
from admission_story import POOL, Story, hello, ready
from fair_cluster import Agent, Cluster

from saga.admission.policy import Everybody
from saga.admission.worker_budgets import WorkerBudgets
from saga.contract.ids import TenantId
from saga.contract.messages import StepAdmitted
from saga.sim.systems.afs import LEAST_GAP_S, PublishedShares

FLOOD, STEADY = TenantId("flood"), TenantId("steady")


def told(shares: PublishedShares, tenant: TenantId, number: int, work_s: float, deadline_s: float, story: Story):
    """A task of the tenant that was submitted now."""
    root = f"{tenant}-{number}"
    said = story.hear(ready(number, root, tenant=tenant))
    workflow = story.core.roster.workflows[root]
    workflow.remaining_engine_s = work_s
    shares._times._mean_s[tenant, ""] = deadline_s / 1.5
    return next(m for m in said if isinstance(m, StepAdmitted))


def test_a_score_is_work_left_over_time_to_deadline_summed_over_unfinished_tasks():
    shares = PublishedShares()
    story = Story(Everybody(), shares)
    told(shares, FLOOD, 1, 10.0, 100.0, story)
    told(shares, FLOOD, 2, 30.0, 100.0, story)

    assert shares.score(FLOOD, story.now_s) == pytest.approx(0.4)
    assert shares.score(FLOOD, story.now_s + 50.0) == pytest.approx(0.8)
    assert shares.score(FLOOD, story.now_s + 101.0) == pytest.approx(40.0 / LEAST_GAP_S)
    shares.closed(story.core.roster.workflows["flood-1"])
    assert shares.score(FLOOD, story.now_s + 101.0) == pytest.approx(30.0 / LEAST_GAP_S)


def test_the_tenant_with_more_overdue_work_goes_first_however_much_it_has_had():
    shares = PublishedShares()
    story = Story(WorkerBudgets(line=shares.line), shares, workers=0)
    story.hear(hello(kv_tokens=4_000))
    for number in range(4):
        story.hear(ready(number, f"flood-{number}", tenant=FLOOD))
    story.hear(ready(9, "steady", tenant=STEADY))
    for workflow in story.core.roster.workflows.values():
        workflow.remaining_engine_s = 10.0
    story.now_s += 10_000.0

    line = shares.line(story.core.roster.pool(POOL), story.now_s)

    assert [root for _, root in line] == ["flood-1", "flood-2", "flood-3", "steady"]


@pytest.mark.parametrize(("rule", "steady_joins"), [("published", 0), ("ours", 3)])
def test_a_flood_starves_a_tenant_under_the_published_rule_and_not_under_ours(rule: str, steady_joins: int):
    shares = PublishedShares()
    published = rule == "published"
    policy = WorkerBudgets(line=shares.line) if published else WorkerBudgets()
    world = Cluster(policy, slots=4, workers=2, kv_tokens=10_000, order=shares if published else None)
    for number in range(50):
        world.submit(Agent(f"flood-{number:02}", FLOOD, 4, 0.0))
    for number in range(3):
        world.submit(Agent(f"steady-{number}", STEADY, 4, 0.0))
    for workflow in world.core.roster.workflows.values():
        workflow.remaining_engine_s = 10.0

    world.run(60)

    assert sum(root.startswith("steady") for root in world.joined) == steady_joins
    assert len(world.joined) > 10
