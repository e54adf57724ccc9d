"""With a host KV tier the room for active workflows is the tier: what the device lets go is loaded back, not lost."""

import pytest
from admission_story import Story, hello, ready, step_id

from saga.admission.needs import room_tokens
from saga.contract.messages import CostModel, StepAdmitted


def test_without_a_tier_the_room_is_the_device():
    assert room_tokens(hello()) == 10_000


def test_with_one_the_room_is_the_tier():
    assert room_tokens(hello(host_kv_tokens=30_000, load_s_per_token=1e-4)) == 30_000


def test_a_tier_whose_speed_nobody_knows_is_taken_for_quick():
    assert room_tokens(hello(host_kv_tokens=30_000, cost=CostModel())) == 30_000


def test_a_tier_that_loads_hardly_quicker_than_prefill_is_no_room():
    assert room_tokens(hello(host_kv_tokens=30_000, load_s_per_token=5e-4)) == 10_000


@pytest.mark.parametrize(("host_kv_tokens", "active"), [(0, 3), (30_000, 9)])
def test_more_workflows_are_active_beside_a_tier(host_kv_tokens, active):
    story = Story(workers=0)
    story.hear(hello(host_kv_tokens=host_kv_tokens, load_s_per_token=1e-4))
    admitted = []
    for number in range(12):
        admitted += story.admitted(ready(number))
        story.now_s += 1.0
    assert admitted == [step_id(number) for number in range(active)]


def test_who_waited_joins_when_a_tier_is_switched_on():
    story = Story()
    for number in range(5):
        story.admitted(ready(number))
        story.now_s += 1.0
    said = story.hear(hello(host_kv_tokens=30_000, load_s_per_token=1e-4))
    assert [m.step.step_id for m in said if isinstance(m, StepAdmitted)] == [step_id(3), step_id(4)]


def test_a_prompt_larger_than_the_device_is_refused_all_the_same():
    story = Story(workers=0)
    story.hear(hello(host_kv_tokens=30_000, load_s_per_token=1e-4))
    (answer,) = story.hear(ready(1, prompt_tokens=12_000))
    assert answer.reason == "too_large"
