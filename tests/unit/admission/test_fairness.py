"""Tags and charges: whose step is next, and what it cost."""

import pytest
from admission_story import Story, ready, step_id

from saga.admission.policy import Everybody
from saga.contract.ids import GatewayId, RootId, SessionId, TenantId
from saga.contract.messages import (
    StepAdmitted,
    StepCancelled,
)


def test_tenants_take_turns_whatever_they_send():
    story = Story(Everybody())
    tags = {}
    for number in range(12):
        tenant = "light" if number in (10, 11) else "flood"
        (admitted,) = [m for m in story.hear(ready(number, tenant=TenantId(tenant))) if isinstance(m, StepAdmitted)]
        tags[number] = admitted.tag

    order = sorted(tags, key=lambda n: tags[n])

    assert set(order[:4]) == {0, 10, 1, 11}


def test_a_heavier_tenant_gets_more_turns():
    story = Story(Everybody())
    story.core.book.fair.set_weight(TenantId("heavy"), 3.0)
    tags = {}
    for number in range(16):
        tenant = TenantId("heavy" if number % 2 else "light")
        (admitted,) = [m for m in story.hear(ready(number, tenant=tenant)) if isinstance(m, StepAdmitted)]
        tags[number] = admitted.tag

    first = sorted(tags, key=lambda n: tags[n])[:8]

    assert sum(number % 2 for number in first) == 6


def test_a_charge_is_corrected_when_the_truth_is_known():
    story = Story(Everybody())
    story.admitted(ready(1))
    story.take(1)
    estimated = story.core.book.steps[step_id(1)].charged_s

    story.finish(1, cached_tokens=3_000, output_tokens=10)

    assert estimated == pytest.approx(3.0 + 100 * 0.01)
    assert story.core.roster.workflows[RootId("root-1")].served_s == pytest.approx(0.1)


def test_a_step_cancelled_before_it_ran_costs_nothing():
    story = Story(Everybody())
    story.admitted(ready(1))

    story.hear(
        StepCancelled(
            step_id=step_id(1),
            attempt=0,
            gateway_id=GatewayId("g0"),
            tenant=TenantId("t"),
            root=RootId("root-1"),
            session=SessionId("root-1"),
        )
    )

    (admitted,) = [m for m in story.hear(ready(2)) if isinstance(m, StepAdmitted)]
    assert admitted.tag.virtual_start_s == 0.0
