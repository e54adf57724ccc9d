"""Sessions to plan: what is dropped, chosen, cut and capped, lengths as sent, and when sub-agents start."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from saga.load.planner import PlanError, PlanSettings, build_plan, common_blocks
from saga.load.trace import Session, Step, SubAgent


def step(input_tokens, output_tokens=10, *, agent="main", t=0.0, api=1.0, gap=0.0, first=1):
    whole = input_tokens // 64
    blocks = ((first, whole),) if whole else ()
    return Step(agent, t, input_tokens, output_tokens, blocks, "tool_use", api, gap)


def session(name, *steps, subagents=(), tool=0, system=0):
    return Session(name, 64, tuple(steps), tool, system, subagents)


def plan_of(*sessions, **settings):
    return build_plan(sessions, PlanSettings(**{"context_tokens": 10**6, "kv_tokens": 10**7} | settings))


def test_sessions_that_do_not_fit_are_dropped_and_counted():
    fits, long, wide, empty = (
        session("a", step(900, 99)),
        session("b", step(990, 20)),
        session("c", step(990)),
        session("d"),
    )
    plan = plan_of(fits, long, wide, empty, context_tokens=1000, kv_tokens=1998)
    assert [task.session_id for task in plan.tasks] == ["a"]
    left = plan.left_out
    assert (left.dropped_over_context, left.dropped_over_half_kv, left.dropped_too_short) == (1, 1, 1)


def test_half_a_workers_kv_is_the_limit():
    plan = plan_of(session("a", step(400, 100)), session("b", step(400, 101)), kv_tokens=1000)
    assert [task.session_id for task in plan.tasks] == ["a"]
    assert plan.left_out.dropped_over_half_kv == 1


def test_fit_is_judged_before_shrinking_and_on_the_whole_session():
    big_later = session("a", step(100), step(5000))
    with pytest.raises(PlanError, match="1 exceed the context of 4096"):
        plan_of(big_later, context_tokens=4096, shrink=16, max_steps=1)


def test_the_choice_is_seeded_and_keeps_file_order():
    many = [session(str(index), step(100)) for index in range(50)]
    names = [task.session_id for task in plan_of(*many, limit=7, seed=3).tasks]
    assert names == [task.session_id for task in plan_of(*many, limit=7, seed=3).tasks]
    assert names != [task.session_id for task in plan_of(*many, limit=7, seed=4).tasks]
    assert names == sorted(names, key=int)
    assert plan_of(*many, limit=7).left_out.not_chosen == 43


def test_steps_are_cut_and_gaps_capped_and_both_counted():
    plan = plan_of(
        session("a", step(100, gap=99.0), step(200, gap=30.0), step(300, gap=5.0), step(400)),
        session("b", step(100)),
        max_steps=3,
        min_steps=2,
        gap_cap_s=10.0,
    )
    (task,) = plan.tasks
    assert [planned.think_s for planned in task.agents[0].steps] == [0.0, 10.0, 5.0]
    left = plan.left_out
    assert (left.steps_cut, left.dropped_too_short, left.gaps_capped, left.gap_seconds_cut) == (1, 1, 1, 20.0)


def test_a_step_extends_only_what_grew_by_the_recorded_output():
    plan = plan_of(session("a", step(130, 20), step(150, 5), step(154, 5), step(700, 5, first=50)))
    assert [planned.extends for planned in plan.tasks[0].agents[0].steps] == [False, True, False, False]


def test_an_empty_answer_still_asks_for_one_token():
    plan = plan_of(session("a", step(3, 0)), shrink=16)
    planned = plan.tasks[0].agents[0].steps[0]
    assert (planned.prompt_tokens, planned.max_tokens) == (1, 1)


def test_lengths_are_divided_by_the_shrink():
    planned = plan_of(session("a", step(64 * 5 + 40, 100)), shrink=16).tasks[0].agents[0].steps[0]
    assert (planned.prompt_tokens, planned.tail_tokens, planned.max_tokens) == (5 * 4 + 2, 2, 6)


def test_a_shrink_that_splits_a_block_unevenly_is_refused():
    with pytest.raises(PlanError, match="shrink 5: expected a divisor of the 64-token block"):
        plan_of(session("a", step(100)), shrink=5)


def test_a_subagent_starts_after_the_main_step_that_ended_last_before_it():
    mains = [step(100, t=0.0, api=4.0), step(200, t=10.0, api=20.0), step(300, t=40.0)]
    subs = (SubAgent("x", 12.0), SubAgent("y", 31.5), SubAgent("z", 1.0), SubAgent("silent", 2.0))
    own = [step(100, agent=name, t=t, first=900, gap=7.0) for name, t in (("x", 12.0), ("y", 31.5), ("z", 1.0))]
    (task,) = plan_of(session("a", *mains, *own, subagents=subs)).tasks
    starts = {agent.name: (agent.parent, agent.after_step, agent.start_s) for agent in task.agents}
    assert starts == {
        "a": (None, None, 0.0),
        "a.x": ("a", 0, 8.0),
        "a.y": ("a", 1, 1.5),
        "a.z": ("a", None, 1.0),
    }
    assert [planned.think_s for planned in task.agents[1].steps] == [0.0]


def test_only_what_equals_the_first_prompt_is_shared_with_other_sessions():
    first = step(64 * 10)
    branched = Step("main", 5.0, 64 * 10, 1, ((1, 3), (70, 7)))
    side_call = step(64 * 10, first=500)
    plan = plan_of(session("a", first, branched, side_call, tool=300, system=84))
    assert [planned.shared_blocks for planned in plan.tasks[0].agents[0].steps] == [6, 3, 0]


RUNS = st.lists(st.tuples(st.integers(0, 6), st.integers(1, 4)), max_size=5)


@given(RUNS, RUNS)
def test_common_blocks_counts_what_expanding_would(left, right):
    def expand(runs):
        return [block for first, count in runs for block in range(first, first + count)]

    pairs = list(zip(expand(left), expand(right), strict=False))
    expected = next((index for index, (one, other) in enumerate(pairs) if one != other), len(pairs))
    assert common_blocks(left, right) == expected
