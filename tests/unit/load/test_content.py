"""Text of prompts: as long as planned, equal exactly where the recorded blocks are, and carrying real answers on."""

from itertools import takewhile

import pytest
from hypothesis import given
from hypothesis import strategies as st

from saga.load.content import ALPHABET, Numbering, Speller, TaskText
from saga.load.planner import PlanSettings, build_plan
from saga.load.trace import Session, Step, SubAgent


def session(name, *steps, tool=0, system=0, subagents=()):
    return Session(name, 64, tuple(steps), tool, system, subagents)


def step(blocks, tail=0, output=10, agent="main", t=0.0):
    return Step(agent, t, 64 * sum(count for _, count in blocks) + tail, output, tuple(blocks))


def writers(sessions, shrink=1, seed=0):
    plan = build_plan(sessions, PlanSettings(context_tokens=10**6, kv_tokens=10**7, shrink=shrink))
    numbering, speller = Numbering(sessions), Speller(plan.block_chars, seed)
    return [(task, TaskText(task, plan, numbering, speller)) for task in plan.tasks]


def shared_chars(left, right):
    return sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(left, right, strict=False)))


def test_numbers_nearby_differ_at_the_first_character_and_all_within_four():
    speller = Speller(64, seed=0)
    texts = [speller.text(number) for number in range(len(ALPHABET))]
    assert len({text[0] for text in texts}) == len(ALPHABET)
    assert len({speller.text(number)[:4] for number in range(0, 92**4, 9973)}) == len(range(0, 92**4, 9973))
    assert all(len(text) == 64 and text.isascii() for text in texts)
    assert len({text[at : at + 16] for text in texts for at in range(0, 64, 16)}) == len(texts)


def test_another_seed_is_other_text():
    assert Speller(64, 0).text(123_456) != Speller(64, 1).text(123_456)


@pytest.mark.parametrize("shrink", [1, 4, 16])
def test_equal_blocks_are_equal_text_and_different_ones_differ_at_once(shrink):
    chars = 64 // shrink
    steps = [step([(1, 6)], tail=33), step([(1, 4), (90, 3)]), step([(1, 6), (200, 2)], tail=63)]
    ((task, text),) = writers([session("a", *steps)], shrink)
    agent = task.agents[0]
    prompts = [text.prompt(agent, planned) for planned in agent.steps]
    assert [len(prompt) for prompt in prompts] == [planned.prompt_tokens for planned in agent.steps]
    assert shared_chars(prompts[0], prompts[1]) == 4 * chars
    # Nothing came back for the first prompt, so its tail does not live on either.
    assert shared_chars(prompts[0], prompts[2]) == 6 * chars


def test_the_answer_received_starts_the_blocks_first_used_after_it():
    ((task, text),) = writers([session("a", step([(1, 2)], tail=10, output=100), step([(1, 9)], tail=5))])
    agent = task.agents[0]
    first = text.prompt(agent, agent.steps[0])
    answer = "the answer " * 9 + "!"
    text.answered(agent, agent.steps[0], first, answer)
    second = text.prompt(agent, agent.steps[1])
    assert second.startswith(first + answer)
    assert len(second) == 9 * 64 + 5


def test_an_answer_may_reach_into_the_tail_and_on():
    steps = [step([(1, 1)], tail=60, output=30), step([(1, 2)], tail=40, output=50), step([(1, 4)], tail=1)]
    ((task, text),) = writers([session("a", *steps)])
    agent = task.agents[0]
    sent = ""
    for planned in agent.steps:
        prompt = text.prompt(agent, planned)
        assert prompt.startswith(sent)
        sent = prompt + "y" * planned.max_tokens
        text.answered(agent, planned, prompt, "y" * planned.max_tokens)


def test_spliced_blocks_keep_their_text_in_every_later_prompt():
    steps = [step([(1, 2)], output=64), step([(1, 5)]), step([(1, 3), (77, 1)]), step([(1, 5)])]
    ((task, text),) = writers([session("a", *steps)])
    agent = task.agents[0]
    prompts = []
    for planned in agent.steps:
        prompts.append(text.prompt(agent, planned))
        text.answered(agent, planned, prompts[-1], "z" * planned.max_tokens)
    assert prompts[1][128:192] == "z" * 64
    assert prompts[2].startswith(prompts[1][:192])
    assert prompts[3] == prompts[1]


@pytest.mark.parametrize(
    ("received", "second"),
    [
        (None, step([(1, 9)])),
        ("short", step([(1, 9)])),
        ("\u00e9" * 64, step([(1, 9)])),
        ("q" * 64, step([(1, 2), (40, 7)], tail=1)),
        ("q" * 64, step([(1, 2)], tail=50)),
        ("q" * 64, step([(1, 1), (9, 8)])),
    ],
    ids=["failed", "wrong length", "not ASCII", "extends but", "grows too little", "does not extend"],
)
def test_an_answer_that_does_not_belong_there_is_dropped(received, second):
    ((task, text),) = writers([session("a", step([(1, 2)], tail=20, output=64), second)])
    agent = task.agents[0]
    first = text.prompt(agent, agent.steps[0])
    text.answered(agent, agent.steps[0], first, received)
    prompt = text.prompt(agent, agent.steps[1])
    extends = agent.steps[1].extends and received == "q" * 64
    assert ("q" * 8 in prompt) == extends


def test_sessions_share_text_exactly_as_far_as_their_tools_and_system_prompt():
    sessions = [
        session("a", step([(1, 8)]), tool=200, system=130),
        session("b", step([(50, 8)]), tool=200, system=130),
        session("c", step([(1, 8)]), tool=130, system=200),
        session("d", step([(1, 8)])),
    ]
    first, second, third, fourth = (
        text.prompt(task.agents[0], task.agents[0].steps[0]) for task, text in writers(sessions)
    )
    assert shared_chars(first, second) == 5 * 64
    assert shared_chars(first, third) < 4
    assert shared_chars(first, fourth) < 4


def test_subagents_share_by_their_own_counts():
    subagents = (SubAgent("x", 0.0, 64, 64), SubAgent("y", 0.0, 64, 64))
    steps = [step([(1, 4)]), step([(100, 4)], agent="x"), step([(200, 4)], agent="y")]
    ((task, text),) = writers([session("a", *steps, tool=128, subagents=subagents)])
    main, left, right = (text.prompt(agent, agent.steps[0]) for agent in task.agents)
    assert shared_chars(left, right) == 128
    assert shared_chars(main, left) < 4


RUNS = st.lists(st.tuples(st.integers(0, 30), st.integers(1, 5)), min_size=1, max_size=4)


@given(st.lists(st.tuples(RUNS, st.integers(0, 63), st.integers(0, 90)), min_size=2, max_size=6), st.booleans())
def test_prompts_share_whole_blocks_exactly_where_ids_are_equal(shapes, splice):
    steps = [step(runs, tail, output) for runs, tail, output in shapes]
    ((task, text),) = writers([session("a", *steps)], shrink=4)
    agent = task.agents[0]
    seen = []
    for index, planned in enumerate(agent.steps):
        prompt = text.prompt(agent, planned)
        assert len(prompt) == planned.prompt_tokens
        ids = [block for first, count in planned.blocks for block in range(first, first + count)]
        for other_ids, other in seen:
            common = shared_chars(ids, other_ids)
            assert shared_chars(prompt, other) >= 16 * common
            if common < min(len(ids), len(other_ids)) and not splice:
                assert shared_chars(prompt, other) < 16 * (common + 1)
        seen.append((ids, prompt))
        received = "".join(ALPHABET[(index * 7 + at * 11) % len(ALPHABET)] for at in range(planned.max_tokens))
        text.answered(agent, planned, prompt, received if splice else None)
