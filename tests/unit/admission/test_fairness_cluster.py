"""The bound of docs/fairness.md on a whole admission core, with a pretend cluster behind it."""

import pytest
from fair_cluster import PROMPT_TOKENS, Agent, Cluster
from hypothesis import given, settings
from hypothesis import strategies as st

from saga.admission.policy import Everybody
from saga.admission.worker_budgets import WorkerBudgets

STEP_S = PROMPT_TOKENS * 1e-3 + 500 * 1e-2  # the most that a step may cost, uncached with the longest answer


def crowd(seed: int, slots: int, deadlines: dict[str, float], cancels: float = 0.0) -> Cluster:
    """Tenants with four agents each that never pause, and somebody who floods."""
    world = Cluster(Everybody(), slots=slots, seed=seed)
    world.cancels = cancels
    for tenant, deadline_s in deadlines.items():
        for number in range(12 if tenant == "flood" else slots + 3):
            world.submit(Agent(f"{tenant}-{number}", tenant, 10**6, deadline_s))
    world.run(120)
    return world


@settings(max_examples=8, deadline=None)
@given(seed=st.integers(0, 10_000), slots=st.integers(1, 4), cancels=st.sampled_from([0.0, 0.3]))
def test_tenants_that_always_have_a_step_waiting_get_the_same(seed: int, slots: int, cancels: float):
    world = crowd(seed, slots, {"flood": 0.0, "steady": 0.0, "modest": 0.0}, cancels)

    for one, other in (("flood", "steady"), ("steady", "flood"), ("modest", "flood")):
        live = {"flood": 12, "steady": slots + 3, "modest": slots + 3}
        bound_s = sum(STEP_S + live[tenant] * STEP_S for tenant in (one, other))
        assert world.worst_lead_s(one, other) <= bound_s


@settings(max_examples=8, deadline=None)
@given(
    seed=st.integers(0, 10_000),
    slots=st.integers(1, 4),
    deadline_s=st.one_of(st.floats(1e-3, 1.0), st.floats(1.0, 1e5)),
)
def test_deadlines_buy_no_more_than_twice_the_share(seed: int, slots: int, deadline_s: float):
    world = crowd(seed, slots, {"gamer": deadline_s, "honest": 0.0})

    slack_s = 2 * 2 * (slots + 4) * STEP_S
    assert world.charged_s["gamer"] <= 2.0 * world.charged_s["honest"] + slack_s
    assert world.charged_s["gamer"] >= world.charged_s["honest"] - slack_s, (
        "and late ones lose nothing that is guaranteed"
    )
    assert {1.0 <= weight <= 2.0 for _, weight, _ in world.grants} == {True}


@pytest.mark.parametrize("seed", range(3))
def test_nobody_starves_behind_a_flood_at_the_door(seed: int):
    world = Cluster(WorkerBudgets(), slots=4, workers=2, kv_tokens=10_000, seed=seed)
    for number in range(40):
        world.submit(Agent(f"flood-{number:02}", "flood", 6, 0.0))
    world.run(20)
    for number in range(3):
        world.submit(Agent(f"steady-{number}", "steady", 6, 0.0))
    before = len(world.joined)

    world.run(60)

    after = world.joined[before:]
    assert [root for root in after if root.startswith("steady")] == ["steady-0", "steady-1", "steady-2"]
    assert after.index("steady-0") <= 1
    assert after.index("steady-2") <= 6
