"""What a tenant uses, as `saga tenants usage` asks for it."""

from admission_story import Story, ready
from quota_story import agreed, usage

from saga.admission.policy import Everybody
from saga.contract.ids import TenantId
from saga.contract.messages import (
    TenantsAsk,
)

T = TenantId("t")


def test_usage_says_what_is_used_against_each_quota():
    story = agreed(running_steps=1, weight=2.0)
    story.hear(ready(1))
    story.take(1)
    story.hear(ready(2))

    use = usage(story)

    assert (use.running_steps, use.waiting_steps, use.active_workflows, use.known_workflows) == (1, 1, 1, 2)
    assert (use.kv_tokens, use.input_tokens_per_minute, use.output_tokens_per_minute) == (3_100, 3_000, 100)
    assert use.queued_workflows == 1
    assert (use.held_for, use.weight, use.terms.running_steps) == ("running_steps", 2.0, 1)


def test_usage_comes_in_pages_by_name():
    story = Story(Everybody())
    for number in range(300):
        story.hear(ready(number, tenant=TenantId(f"t{number:03}")))

    (first,) = story.hear(TenantsAsk())
    (second,) = story.hear(TenantsAsk(after=first.tenants[-1].tenant))

    assert (len(first.tenants), first.more, len(second.tenants), second.more) == (256, True, 44, False)
    assert [use.tenant for use in first.tenants + second.tenants] == [f"t{n:03}" for n in range(300)]
