"""S5 as sessions to replay live: what was drawn is what the blocks, and in the end the texts, say."""

from itertools import pairwise
from statistics import median

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from saga.engine.profile import load_profile
from saga.load.content import Numbering, Speller, TaskText
from saga.load.plan import PlannedTask
from saga.load.planner import PlanSettings, build_plan
from saga.load.traces.prompts import BLOCK_TOKENS, common_blocks, kept_tokens
from saga.load.traces.session import END_TURN, TOOL_USE, Sessions
from saga.load.traces.stats import trace_stats
from saga.sim.conversation import SharedPrefix, SimStep
from saga.sim.fit import load_fit
from saga.sim.fitted import Fitted
from saga.sim.fitted_sessions import CONTEXT_TOKENS, as_session, generate

SEED = 5
SESSIONS = generate(None, SEED)
DRAWN = [Fitted(SEED, CONTEXT_TOKENS, BLOCK_TOKENS).draw(number) for number in range(len(SESSIONS))]
PREFIX = SharedPrefix(3, 1000)
SHRINK = 16


def main_steps(number):
    return DRAWN[number].agents[0].steps


def drawn_as_kept(before, step, prefix_tokens):
    """Tokens that the blocks can say: the whole sequence, else whole blocks of the last prompt.

    A prompt with all of them and room for the answer has the answer too; one without it has one block less, unless
    that block is in the prefix of its class.
    """
    sequence_tokens = before.prompt_tokens + before.output_tokens
    if step.kept_tokens == sequence_tokens:
        return sequence_tokens
    last = before.prompt_tokens // BLOCK_TOKENS
    kept = min(last, step.kept_tokens // BLOCK_TOKENS)
    if kept == last and step.prompt_tokens >= sequence_tokens:
        if last == prefix_tokens // BLOCK_TOKENS:
            return sequence_tokens
        kept -= 1
    return kept * BLOCK_TOKENS


def test_a_prompt_keeps_of_the_last_sequence_what_was_drawn():
    with_answer = 0
    for number, made in enumerate(SESSIONS):
        prefix_tokens = made.tool_tokens + made.system_tokens
        pairs = zip(pairwise(made.steps), pairwise(main_steps(number)), strict=True)
        for (before, step), (drawn_before, drawn) in pairs:
            told = kept_tokens(before, step, BLOCK_TOKENS)
            assert told == drawn_as_kept(drawn_before, drawn, prefix_tokens)
            with_answer += told > drawn.kept_tokens
            assert drawn.kept_tokens - told < 2 * BLOCK_TOKENS
    assert with_answer / sum(len(made.steps) for made in SESSIONS) < 0.001


@st.composite
def conversations(draw):
    """Steps of one agent under PREFIX that extend, keep a part (less than an answer), or are shorter."""
    made = [SimStep(draw(st.integers(1016, 3000)), draw(st.integers(1, 400)), 0, 0.0, opens_turn=True)]
    for _ in range(draw(st.integers(0, 8))):
        last = made[-1]
        sequence_tokens = last.prompt_tokens + last.output_tokens
        if draw(st.booleans()):
            kept = sequence_tokens
            prompt = sequence_tokens + draw(st.integers(16, 500))
        else:
            prompt = draw(st.integers(1016, 5000))
            kept = draw(st.integers(1000, min(last.prompt_tokens, prompt - 16)))
        made.append(
            SimStep(
                prompt, draw(st.integers(1, 400)), kept, draw(st.floats(0, 900)), draw(st.sampled_from(("", "tool")))
            )
        )
    return tuple(made)


@settings(deadline=None)
@given(conversations())
def test_whatever_is_drawn_is_kept_in_whole_blocks_and_the_prefix_always(drawn):
    made = as_session(0, drawn, PREFIX)
    for (before, step), (drawn_before, drawn_step) in zip(pairwise(made.steps), pairwise(drawn), strict=True):
        assert kept_tokens(before, step, BLOCK_TOKENS) == drawn_as_kept(drawn_before, drawn_step, PREFIX.tokens)
        assert common_blocks(made.steps[0].blocks, step.blocks) >= PREFIX.tokens // BLOCK_TOKENS
    assert all(sum(n for _, n in step.blocks) == step.input_tokens // BLOCK_TOKENS for step in made.steps)


def test_what_is_dropped_never_comes_back():
    for made in SESSIONS[:100]:
        seen = 0
        for step in made.steps:
            ids = {block for first, count in step.blocks for block in range(first, first + count)}
            new = {block for block in ids if block >= seen}
            assert new == set(range(seen, seen + len(new)))
            seen += len(new)


def test_lengths_gaps_and_whose_they_are_are_those_drawn():
    for number, made in enumerate(SESSIONS):
        steps = main_steps(number)
        assert [(s.input_tokens, s.output_tokens, s.think_s) for s in made.steps] == [
            (s.prompt_tokens, s.output_tokens, s.think_s) for s in steps
        ]
        assert [step.stop for step in made.steps] == [TOOL_USE if step.tool else END_TURN for step in steps]
        assert all(
            (before.stop == END_TURN) == drawn.opens_turn for before, drawn in zip(made.steps, steps[1:], strict=False)
        )
        assert not made.subagents
        assert {step.agent for step in made.steps} == {"main"}


def test_a_session_does_not_depend_on_how_many_are_drawn():
    assert generate(None, SEED) == SESSIONS
    assert len(SESSIONS) == load_fit().sessions
    more = generate(200, SEED)
    assert len(more) == 800
    assert more[: len(SESSIONS)] == SESSIONS
    assert generate(None, SEED + 1)[0] != SESSIONS[0]


def test_sessions_share_the_prefix_of_their_class_and_no_other_text():
    keys = [(made.tool_tokens, made.system_tokens) for made in SESSIONS]
    classes = [made.agent_class for made in DRAWN]
    assert len(set(keys)) == len(set(classes)) == len(set(zip(keys, classes, strict=True)))

    same = next(n for n in range(1, len(SESSIONS)) if classes[n] == classes[0])
    other = next(n for n in range(1, len(SESSIONS)) if classes[n] != classes[0])
    plan = build_plan(SESSIONS, PlanSettings(CONTEXT_TOKENS, 2 * CONTEXT_TOKENS, max_steps=1, shrink=SHRINK))
    first, second, third = (_first_pages(plan, plan.tasks[n]) for n in (0, same, other))
    shared = sum(keys[0]) // BLOCK_TOKENS
    assert first[:shared] == second[:shared]
    assert not set(first[shared:]) & set(second)
    assert not set(first) & set(third)


def _first_pages(plan, task: PlannedTask):
    text = TaskText(task, plan, Numbering(SESSIONS), Speller(plan.block_chars, SEED))
    agent = task.agents[0]
    prompt = text.prompt(agent, agent.steps[0])
    size = plan.block_chars
    return [prompt[at : at + size] for at in range(0, len(prompt) // size * size, size)]


def test_they_are_like_the_recorded_ones():
    """Against what is known of those: input P50 105K, 707 new tokens a step, 96.3 % ideal hit rate, 34 % fit 128K."""
    stats = trace_stats(Sessions(SESSIONS, "recorded"))
    assert load_profile("h200x8-qwen3-coder-480b").context_tokens == CONTEXT_TOKENS
    assert stats.input_tokens_per_step.p50 == pytest.approx(105_000, rel=0.2)
    assert stats.new_tokens_per_step.p50 == pytest.approx(707, rel=0.25)
    assert stats.gap_after_tool_s.p50 == pytest.approx(9, rel=0.2)
    assert stats.gap_after_turn_s.p50 == pytest.approx(208, rel=0.3)
    assert stats.ideal_hit_rate == pytest.approx(0.963, abs=0.015)
    assert median(len(made.steps) for made in SESSIONS) == pytest.approx(44, rel=0.2)
    assert max(made.peak_tokens() for made in SESSIONS) <= CONTEXT_TOKENS
    fitting = sum(made.peak_tokens() <= 131_072 for made in SESSIONS) / len(SESSIONS)
    assert 0.3 < fitting < 0.5
