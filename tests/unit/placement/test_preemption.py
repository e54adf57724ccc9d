"""When a step takes the slot of one that runs: only when all together wait for less, and only if asked to."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from placement_story import Story, admitted, step_id

from saga.contract.ids import LeaseId
from saga.contract.messages import Grant, StepProgress, Tag
from saga.engine.batch import PREEMPTION_THRESHOLD
from saga.kernel.effects import Log, Received
from saga.placement.preemption import PREEMPTS, Newcomer, Running, WhenItPays

SHORT = Newcomer(tag=Tag(1.0, 1.0), engine_s=0.5)


def running(name: str, **fields) -> Running:
    given_fields = {"tag": Tag(5.0, 5.0), "priority": 0, "output_tokens": 10, "left_s": 3.0, "redo_s": 0.5}
    return Running(lease_id=LeaseId(name), **(given_fields | fields))


def decided(*others: Running, newcomer: Newcomer = SHORT) -> str:
    return WhenItPays().victim(newcomer, others).reason


def test_a_short_step_takes_the_slot_of_a_long_one_that_comes_later():
    found = WhenItPays().victim(SHORT, [running("a"), running("b", output_tokens=3)])

    assert found.reason == "pays"
    assert found.choice.victim == "b", "the engine takes back the one that has generated least"
    assert (found.choice.gain_s, found.choice.loss_s) == (3.0, 1.0)


def test_nobody_is_interrupted_for_a_step_that_comes_later():
    assert decided(running("a", tag=Tag(0.5, 0.5))) == "its_turn"


def test_nobody_is_interrupted_when_redoing_costs_more_than_waiting():
    assert decided(running("a", redo_s=2.6)) == "would_lose"


def test_nobody_is_interrupted_when_somebody_is_about_to_make_room():
    assert decided(running("a"), running("b", left_s=0.2, output_tokens=90)) == "would_lose"


def test_one_at_a_time_takes_a_slot():
    assert decided(running("a"), running("b", priority=PREEMPTS)) == "another_preempts"


@given(
    st.lists(
        st.tuples(st.floats(0, 100), st.integers(0, 1_000), st.floats(0, 100), st.floats(0, 100)),
        min_size=1,
        max_size=9,
    ),
    st.floats(0, 100),
    st.floats(0, 100),
)
def test_the_victims_loss_is_always_smaller_than_the_gain(others, tag, engine_s):
    them = [
        running(str(n), tag=Tag(t, t), output_tokens=out, left_s=left_s, redo_s=redo_s)
        for n, (t, out, left_s, redo_s) in enumerate(others)
    ]
    stakes = WhenItPays().victim(Newcomer(tag=Tag(tag, tag), engine_s=engine_s), them).choice
    if stakes is not None:
        victim = next(r for r in them if r.lease_id == stakes.victim)
        assert stakes.loss_s < stakes.gain_s <= min(r.left_s for r in them)
        assert stakes.loss_s == engine_s + victim.redo_s
        assert victim.tag > Tag(tag, tag)


def test_the_priority_is_one_at_which_engines_preempt():
    assert PREEMPTS > PREEMPTION_THRESHOLD


def crowded(policy) -> Story:
    """One slot, taken by a step with much left to generate."""
    story = Story(workers=1, preemption=policy, max_running=1)
    (long_one,) = story.hear(admitted(1, tag=9.0, output_claim_tokens=4_000))
    assert long_one.priority == 0
    story.take(long_one)
    story.hear(
        StepProgress(
            step_id=long_one.step_id,
            attempt=0,
            lease_id=long_one.lease_id,
            worker_id=long_one.worker_id,
            output_tokens=100,
        )
    )
    return story


def test_the_step_is_granted_above_the_engines_limit_with_a_higher_priority_and_it_is_told_why():
    story = crowded(WhenItPays())

    effects = story.core.handle(Received(admitted(2, tag=1.0, output_claim_tokens=50)), story.now_s)
    story.core.check()

    (grant,) = [e.message for e in effects if isinstance(getattr(e, "message", None), Grant)]
    assert (grant.step_id, grant.priority, grant.reason) == (step_id(2), PREEMPTS, "preempts")
    (told,) = [e for e in effects if isinstance(e, Log) and e.event == "placement.preempts"]
    assert (told.facts["step"], told.facts["victim"]) == (step_id(2), step_id(1))
    assert told.facts["loss_s"] < told.facts["gain_s"]
    assert story.core.preempting.made == 1
    assert story.core.preempting.gain_s == pytest.approx(told.facts["gain_s"])
    assert story.hear(admitted(3, tag=0.5, output_claim_tokens=50)) == [], "one at a time"


def test_nobody_is_preempted_unless_asked_for():
    story = crowded(None)

    assert story.hear(admitted(2, tag=1.0, output_claim_tokens=50)) == []
    assert story.core.preempting.made == 0


def test_nobody_is_preempted_while_a_grant_is_on_its_way():
    story = Story(workers=1, preemption=WhenItPays(), max_running=1)
    story.hear(admitted(1, tag=9.0, output_claim_tokens=4_000))

    assert story.hear(admitted(2, tag=1.0, output_claim_tokens=50)) == []
