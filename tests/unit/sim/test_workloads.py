from itertools import pairwise
from statistics import mean

import pytest

from saga.engine.profile import load_profile
from saga.load.trace import Session, Step, SubAgent
from saga.sim.alone import alone, users_for
from saga.sim.conversation import SimStep, StreamPages
from saga.sim.recorded import Recorded
from saga.sim.synthetic import CLASSES, Synthetic

PAGE = 16


def test_a_draw_is_the_same_however_many_are_drawn():
    a = Synthetic("swe-bench", 42, 32_768, PAGE)
    b = Synthetic("swe-bench", 42, 32_768, PAGE)
    assert [a.draw(n) for n in range(5)] == [b.draw(n) for n in (0, 1, 2, 3, 4)]
    assert a.draw(3) != Synthetic("swe-bench", 43, 32_768, PAGE).draw(3)


@pytest.mark.parametrize("name", CLASSES)
def test_no_step_exceeds_the_context_and_each_extends_the_last_or_is_compacted(name: str):
    workload = Synthetic(name, 7, 32_768, PAGE)
    compacted = 0
    for number in range(100):
        steps = workload.draw(number).agents[0].steps
        for before, step in pairwise(steps):
            assert step.prompt_tokens + step.output_tokens <= 32_768
            if step.kept_tokens == before.prompt_tokens + before.output_tokens:
                assert step.prompt_tokens > step.kept_tokens
            else:
                compacted += 1
                assert step.kept_tokens == steps[0].prompt_tokens
    assert compacted > 0


def test_the_published_means_hold():
    steps = [len(Synthetic("swe-bench", 1, 1 << 20, PAGE).draw(n).agents[0].steps) for n in range(1500)]
    assert mean(steps) == pytest.approx(37, rel=0.05)
    tenants = [Synthetic("tenants", 1, 32_768, PAGE).draw(n).tenant for n in range(2000)]
    heavy = sum(name.startswith("heavy") for name in tenants) / len(tenants)
    assert heavy == pytest.approx(48 / 92, abs=0.04)


def test_prompts_that_extend_share_their_pages_and_others_do_not():
    pages = StreamPages(PAGE, 0)
    first, known = pages.advance(0, SimStep(100, 20, 0, 0.0))
    assert (len(first) // 8, known) == (7, 0)
    second, known = pages.advance(1, SimStep(150, 20, 120, 0.0))
    assert second[: len(first)] == first
    assert known == 119 // PAGE  # the last token of the answer has no KV
    third, known = pages.advance(2, SimStep(90, 20, 40, 0.0))
    assert known == 40 // PAGE
    assert third[: known * 8] == second[: known * 8]
    assert not set(_words(third)[known:]) & set(_words(second))
    assert not set(_words(StreamPages(PAGE, 1).advance(0, SimStep(100, 20, 0, 0.0))[0])) & set(_words(first))


def _words(hashes: bytes) -> list[bytes]:
    return [hashes[at : at + 8] for at in range(0, len(hashes), 8)]


def session(name: str, tool_tokens: int = 128) -> Session:
    steps = (
        Step("main", 0.0, 320, 64, ((0, 5),), "tool_use", 1.0, None),
        Step("main", 5.0, 512, 64, ((0, 8),), "end_turn", 1.0, 3.0),
        Step("main", 500.0, 192, 10, ((0, 2), (50, 1)), "end_turn", 1.0, 400.0),
    )
    return Session(name, 64, steps, tool_tokens, 0)


def test_a_recorded_session_is_a_conversation_of_turns():
    recorded = Recorded([session("a")], 1, context_tokens=10_000, kv_tokens=100_000, page_tokens=64)
    conversation = recorded.draw(0)
    (main,) = conversation.agents
    assert conversation.turns == 2
    assert [step.opens_turn for step in main.steps] == [True, False, True]
    assert [step.tool for step in main.steps] == ["tool", "", ""]
    assert [step.think_s for step in main.steps] == [0.0, 3.0, 400.0]
    assert [step.kept_tokens for step in main.steps] == [0, 384, 128]


def test_recorded_blocks_are_pages_shared_within_a_session_and_tools_between_sessions():
    recorded = Recorded([session("a"), session("b")], 1, context_tokens=10_000, kv_tokens=100_000, page_tokens=64)
    steps = recorded.every[0].agents[0].steps
    pages, others = recorded.pages(0, 0), recorded.pages(1, 0)
    first, known = pages.advance(0, steps[0])
    assert known == 0
    second, known = pages.advance(1, steps[1])
    assert known == 6  # its five blocks and the one that the answer fills
    assert second[: len(first)] == first
    third, known = pages.advance(2, steps[2])
    assert known == 2
    assert third[:16] == second[:16]
    other, known = others.advance(0, steps[0])
    assert known == 2  # tools and system prompt, which the first had
    assert other[:16] == first[:16]
    assert not set(_words(other)[2:]) & set(_words(first))


def test_sessions_that_do_not_fit_are_dropped_and_counted():
    sessions = [session("a"), Session("long", 64, (Step("main", 0.0, 6400, 1, ((0, 100),)),))]
    recorded = Recorded(sessions, 1, context_tokens=1_000, kv_tokens=100_000, page_tokens=64)
    assert recorded.left_out.dropped_over_context == 1
    assert len(recorded.every) == 1


def test_sub_agents_are_sessions_of_their_own():
    own = session("a")
    sub = SubAgent("sub", 2.0, 128, 0)
    steps = (*own.steps, Step("sub", 2.0, 256, 10, ((70, 4),), "end_turn", 1.0, None))
    recorded = Recorded(
        [Session("a", 64, steps, 128, 0, (sub,))], 1, context_tokens=10_000, kv_tokens=100_000, page_tokens=64
    )
    main, child = recorded.draw(0).agents
    assert (main.name, child.name, child.after_step) == ("main", "sub", 0)
    assert child.start_s == pytest.approx(1.0)


def test_pressure_is_kv_demand_over_capacity():
    profile = load_profile("a100x4-llama3-70b")
    workload = Synthetic("swe-bench", 0, profile.context_tokens, profile.page_tokens)
    mean_alone = alone((workload.draw(n) for n in range(200)), profile)
    assert 5_000 < mean_alone.kv_tokens < profile.context_tokens
    assert mean_alone.seconds > 37 * 300 * 0.02  # decode alone reads the weights for each token
    one = users_for(1.0, profile.kv_tokens, mean_alone.kv_tokens)
    assert users_for(2.0, profile.kv_tokens, mean_alone.kv_tokens) == pytest.approx(2 * one, abs=1)
    assert users_for(1e-9, profile.kv_tokens, mean_alone.kv_tokens) == 1


def test_a_recording_that_ends_in_a_tool_call_does_not_say_that_it_ends():
    steps = tuple(
        Step("main", float(i), 128 * (i + 1), 64, ((0, 2 * (i + 1)),), "tool_use", 1.0, 1.0) for i in range(3)
    )
    session = Session("cut", 64, steps)
    recorded = Recorded([session], 42, context_tokens=100_000, kv_tokens=1_000_000, page_tokens=64)
    assert [step.tool for step in recorded.draw(0).agents[0].steps] == ["tool"] * 3
