"""The synthetic workload against its published parameters."""

import statistics

import pytest

from saga.load.swe_bench import TOOLS, generate

SESSIONS = generate(1500, seed=7)


def test_it_is_seeded_and_a_longer_run_contains_a_shorter_one():
    assert generate(20, seed=7) == SESSIONS[:20]
    assert generate(20, seed=8) != SESSIONS[:20]


def test_steps_prompts_outputs_and_observations():
    counts = [len(session.steps) for session in SESSIONS]
    assert statistics.mean(counts) == pytest.approx(37, rel=0.05)
    assert max(counts) <= 150
    firsts = [session.steps[0].input_tokens for session in SESSIONS]
    assert (min(firsts), max(firsts)) == pytest.approx((2000, 4000), rel=0.01)
    outputs = [step.output_tokens for session in SESSIONS for step in session.steps]
    assert (min(outputs), max(outputs)) == (100, 500)
    grown = [
        after.input_tokens - before.input_tokens - before.output_tokens
        for session in SESSIONS
        for before, after in zip(session.steps, session.steps[1:], strict=False)
    ]
    assert min(grown) >= 1
    assert statistics.mean(grown) == pytest.approx(350, rel=0.03)


@pytest.mark.parametrize("tool", TOOLS, ids=["code", "file", "web", "db"])
def test_tool_latency_goes_through_its_published_quantiles(tool):
    assert tool.draw(0.50) == pytest.approx(tool.p50_s)
    assert tool.draw(0.95) == pytest.approx(tool.p95_s)
    assert tool.draw(0.99) == pytest.approx(tool.p99_s)
    drawn = [tool.draw(index / 2000) for index in range(2000)]
    assert drawn == sorted(drawn)


def test_shares_of_tools_add_up():
    assert sum(tool.share for tool in TOOLS) == pytest.approx(1)
