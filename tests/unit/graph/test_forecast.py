"""Forecasts: defaults when nothing is known, then what the narrowest telling model says."""

import pytest

from saga.contract.errors import StartError
from saga.graph.forecast import DEFAULT_GAPS_S, DEFAULT_RETURNS, STALE_SHARE, Situation, policy_named
from saga.graph.models import MAX_STEPS, MAX_TOOLS, OTHER, Model, decode_model, encode_model

SAGA = policy_named("saga")


def model_of(sessions, *, tool="bash", steps=10, gap_s=1.0, engine_s=2.0):
    model = Model("m")
    for _ in range(sessions):
        for step in range(1, steps):
            model.saw_step(engine_s)
            model.saw_return(tool, step, gap_s)
            model.saw_next(tool, tool, 100)
        model.saw_step(engine_s)
        model.saw_end("", steps)
    return model


def test_nothing_known_gives_defaults_and_says_so():
    said = SAGA.estimate(Situation("bash", 1), (Model("a"), Model("b")))
    assert said.samples == 0
    assert said.gap_s == DEFAULT_GAPS_S
    assert said.returns == pytest.approx(DEFAULT_RETURNS)


def test_a_model_that_knows_speaks_alone():
    narrow, wide = model_of(20, gap_s=3.0), model_of(200, gap_s=50.0)
    said = SAGA.estimate(Situation("bash", 5), (narrow, wide))
    assert said.gap_s == pytest.approx((3.0,) * 8, rel=0.03)
    assert said.samples == 180
    assert said.returns > 0.95
    assert said.new_tokens == pytest.approx(100.0)


def test_ends_are_learnt_by_tool_and_by_step():
    model = model_of(100, steps=10)
    assert SAGA.estimate(Situation("", 10), (model,)).returns < 0.1
    assert SAGA.estimate(Situation("bash", 5), (model,)).returns > 0.95
    nearly = SAGA.estimate(Situation("bash", 2), (model,))
    assert nearly.remaining_steps == pytest.approx(8.0, rel=0.25)
    assert nearly.remaining_engine_s == pytest.approx(2.0 * nearly.remaining_steps)
    assert SAGA.estimate(Situation("", 10), (model,)).remaining_steps < 2.0


def test_an_unknown_tool_falls_back_to_the_gaps_of_its_class():
    said = SAGA.estimate(Situation("never seen", 1), (model_of(20, gap_s=7.0), Model("wide")))
    assert said.gap_s[0] == pytest.approx(7.0, rel=0.03)


def test_the_same_tool_elsewhere_says_more_than_other_tools_here():
    here = model_of(3, tool="read", gap_s=0.1)
    everywhere = model_of(20, tool="build", gap_s=90.0)
    said = SAGA.estimate(Situation("build", 1), (here, everywhere))
    assert said.gap_s[0] == pytest.approx(90.0, rel=0.03)


def test_remaining_steps_are_finite_when_nothing_ends():
    model = Model("m")
    for step in range(1, 2 * MAX_STEPS):
        model.saw_return("bash", step, 1.0)
    said = SAGA.estimate(Situation("bash", 2 * MAX_STEPS), (model,))
    assert 0 < said.remaining_steps < 10_000


def test_a_model_is_bounded_and_survives_storage():
    model = Model("m")
    for number in range(3 * MAX_TOOLS):
        model.saw_return(f"tool-{number}", number * 10, 1.0)
        model.saw_next("tool-0", f"tool-{number}", 10)
        model.saw_end(f"tool-{number}", 10_000)
    assert len(model.tools) == MAX_TOOLS + 1
    assert len(model.tools["tool-0"].next_tools) == MAX_TOOLS + 1
    assert model.tools[OTHER].ended == 2 * MAX_TOOLS
    assert len(model.ended) == MAX_STEPS
    assert decode_model(encode_model(model)) == model
    assert decode_model(b"from another version") is None


def test_remaining_steps_lag_behind_what_is_learnt_by_a_share_and_no_more():
    model = model_of(100, steps=10)
    saga = policy_named("saga")
    before = saga.estimate(Situation("bash", 5), (model,)).remaining_steps
    for _ in range(int(STALE_SHARE * model.outcomes)):
        model.saw_end("bash", 5)
    assert saga.estimate(Situation("bash", 5), (model,)).remaining_steps == before
    model.saw_end("bash", 5)
    after = saga.estimate(Situation("bash", 5), (model,)).remaining_steps
    assert after == policy_named("saga").estimate(Situation("bash", 5), (model,)).remaining_steps
    assert after < before


def test_models_of_equal_names_are_not_mixed_up():
    saga = policy_named("saga")
    short, long = model_of(50, steps=4), model_of(50, steps=40)
    assert saga.estimate(Situation("bash", 2), (short,)).remaining_steps < 5
    assert saga.estimate(Situation("bash", 2), (long,)).remaining_steps > 20


def test_an_unknown_policy_lists_the_known_ones():
    with pytest.raises(StartError, match=r"'oracle'.*known are saga"):
        policy_named("oracle")
