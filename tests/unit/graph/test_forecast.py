"""Forecasts: defaults when nothing is known, then every level that knows something, each by its weight."""

from random import Random

import pytest

from saga.contract.errors import StartError
from saga.contract.messages import GAP_SHARES, UNKNOWN_GAPS_S, UNKNOWN_RETURNS
from saga.graph.forecast import END, STALE_SHARE, Situation, next_tools, policy_named
from saga.graph.models import Model
from saga.graph.situation import CONTEXTS, SUB_AGENT, UNKNOWN, context_of, paced, step_kind
from saga.graph.sketch import bucket_of

SAGA = policy_named("saga")


def teach(model, tool, steps, gap_s=None, *, context=0):
    ended = gap_s is None
    model.saw_outcome(model.tool(tool), steps, context, -1 if ended else bucket_of(gap_s), ended=ended)


def model_of(sessions, *, tool="bash", steps=10, gap_s=1.0, engine_s=2.0, context=0, name="m"):
    model = Model(name)
    for _ in range(sessions):
        for step in range(1, steps):
            model.modelled_s.add(engine_s)
            model.growth_tokens.add(100)
            teach(model, tool, step, gap_s, context=context)
        model.modelled_s.add(engine_s)
        teach(model, "", steps, context=context)
    return model


def test_nothing_known_gives_defaults_and_says_so():
    said = SAGA.estimate(Situation("bash", 1), (Model("a"), Model("b")))
    assert said.samples == 0
    assert said.gap_s == UNKNOWN_GAPS_S
    assert said.returns == pytest.approx(UNKNOWN_RETURNS)


def test_the_narrow_model_speaks_the_louder_the_more_it_has_seen():
    wide = model_of(200, gap_s=50.0, name="w")
    said = [
        SAGA.estimate(Situation("bash", 5), (model_of(n, gap_s=3.0, name=f"n{n}"), wide)).gap_s for n in (0, 4, 40, 800)
    ]
    assert said[0] == pytest.approx((50.0,) * 8, rel=0.03)
    assert said[1][0] == pytest.approx(3.0, rel=0.03)
    assert said[1][4] == pytest.approx(50.0, rel=0.03)
    assert said[2][5] == pytest.approx(3.0, rel=0.03)
    assert said[3] == pytest.approx((3.0,) * 8, rel=0.03)


def test_ends_are_learnt_by_tool_and_by_step():
    model = model_of(100, steps=10)
    assert SAGA.estimate(Situation("", 10), (model,)).returns < 0.1
    assert SAGA.estimate(Situation("bash", 5), (model,)).returns > 0.95
    nearly = SAGA.estimate(Situation("bash", 2), (model,))
    assert nearly.remaining_steps == pytest.approx(8.0, rel=0.25)
    assert nearly.remaining_engine_s == pytest.approx(2.0 * nearly.remaining_steps)
    assert SAGA.estimate(Situation("", 10), (model,)).remaining_steps < 1.0


def test_what_never_ended_may_end_all_the_same():
    models = tuple(model_of(10, steps=12, name=name) for name in ("n", "t", "w"))
    assert SAGA.estimate(Situation("bash", 5), models).returns == pytest.approx(1 - 0.5 / 120)
    assert SAGA.estimate(Situation("", 12), models).returns == pytest.approx(0.5 / 20)


def test_ends_are_learnt_by_context():
    model = Model("m")
    for _ in range(200):
        teach(model, "", 3, 100.0, context=1)
        teach(model, "", 3, context=1 + SUB_AGENT)
    assert SAGA.estimate(Situation("", 3, 1), (model,)).returns > 0.9
    assert SAGA.estimate(Situation("", 3, 1 + SUB_AGENT), (model,)).returns < 0.1


def test_the_gap_is_that_of_sessions_as_quick_as_this_one():
    model = Model("m")
    for _ in range(300):
        teach(model, "bash", 3, 0.5, context=2)
        teach(model, "bash", 3, 60.0, context=7)
    quick, slow = (SAGA.estimate(Situation("bash", 3, context), (model,)) for context in (2, 7))
    assert quick.gap_s[3] == pytest.approx(0.5, rel=0.03)
    assert slow.gap_s[3] == pytest.approx(60.0, rel=0.03)
    unseen = SAGA.estimate(Situation("bash", 3, 5), (model,))
    assert unseen.gap_s[1] == pytest.approx(0.5, rel=0.03)
    assert unseen.gap_s[5] == pytest.approx(60.0, rel=0.03)


def test_an_unknown_tool_falls_back_to_the_gaps_of_its_class():
    said = SAGA.estimate(Situation("never seen", 1), (model_of(20, gap_s=7.0), Model("wide")))
    assert said.gap_s[0] == pytest.approx(7.0, rel=0.03)


def test_the_same_tool_elsewhere_says_more_than_other_tools_here():
    here = model_of(3, tool="read", gap_s=0.1)
    everywhere = model_of(20, tool="build", gap_s=90.0, name="w")
    said = SAGA.estimate(Situation("build", 1), (here, everywhere))
    assert said.gap_s[0] == pytest.approx(90.0, rel=0.03)


def test_remaining_steps_are_finite_when_nothing_ends():
    model = Model("m")
    for step in range(1, 2_000):
        teach(model, "bash", step, 1.0)
    for steps in (1, 500, 2_000, 10**9):
        said = SAGA.estimate(Situation("bash", steps), (model,))
        assert 0 < said.remaining_steps < 10_000


def test_remaining_steps_are_those_of_sessions_that_long():
    rng = Random(1)
    model = Model("m")
    lengths = [round(rng.gammavariate(2, 18.5)) + 1 for _ in range(400)]
    for length in lengths:
        for step in range(1, length):
            teach(model, "bash", step, 1.0)
        teach(model, "", length)
    for steps in (1, 5, 20, 40):
        left = [length - steps for length in lengths if length > steps]
        said = policy_named("saga").estimate(Situation("bash", steps), (model,)).remaining_steps
        assert said == pytest.approx(sum(left) / len(left), rel=0.15)


def test_a_forecast_lags_behind_what_is_learnt_by_a_share_and_no_more():
    model = model_of(100, steps=10)
    saga = policy_named("saga")
    before = saga.estimate(Situation("bash", 5), (model,)).remaining_steps
    for _ in range(3 + int(STALE_SHARE * model.outcomes)):
        teach(model, "bash", 5)
    after = saga.estimate(Situation("bash", 5), (model,)).remaining_steps
    assert after == policy_named("saga").estimate(Situation("bash", 5), (model,)).remaining_steps
    assert after < before


def test_after_a_jump_of_a_tools_latency_coverage_recovers_within_two_hundred_samples():
    rng = Random(4)
    saga = policy_named("saga")
    class_, tenant, everything = models = tuple(map(Model, ("class/t/c", "tenant/t", "all")))

    def draw(factor):
        gap_s = factor * rng.lognormvariate(0.0, 1.0)
        said = saga.estimate(Situation("bash", 5), models).gap_s
        for model in models:
            teach(model, "bash", 5, gap_s)
        return [gap_s <= said[GAP_SHARES.index(share)] for share in (0.5, 0.9, 0.95)]

    for _ in range(12_000):
        draw(1.0)
    for _ in range(200):
        draw(10.0)
    hits = [draw(10.0) for _ in range(1_500)]
    p50, p90, p95 = (sum(column) / len(hits) for column in zip(*hits, strict=True))
    assert p50 == pytest.approx(0.5, abs=0.04)
    assert p90 == pytest.approx(0.9, abs=0.03)
    assert p95 == pytest.approx(0.95, abs=0.03)
    assert class_.tools["bash"].gaps.weight < 3_000
    assert tenant.outcomes == everything.outcomes == 13_700


def test_next_tools_have_the_end_among_them_and_narrow_levels_speak_louder():
    wide, narrow = Model("w"), Model("n")
    for model, after_read, times in ((wide, "bash", 1_000), (narrow, "edit", 200)):
        for _ in range(times):
            model.tool("read").edge(model.tool(after_read).number).count += 1
    for _ in range(50):
        teach(narrow, "read", 3)
    said = next_tools("read", (narrow, wide))
    assert list(said) == ["edit", END, "bash"]
    assert sum(said.values()) == pytest.approx(1.0)
    assert next_tools("unseen", (narrow, wide)) == {}


def test_models_of_equal_names_are_not_mixed_up():
    saga = policy_named("saga")
    short, long = model_of(50, steps=4), model_of(50, steps=40, gap_s=9.0)
    assert saga.estimate(Situation("bash", 2), (short,)).remaining_steps < 5
    said = saga.estimate(Situation("bash", 2), (long,))
    assert said.remaining_steps > 20
    assert said.gap_s[3] == pytest.approx(9.0, rel=0.03)


def test_contexts_tell_pace_and_sub_agents_apart():
    assert context_of(UNKNOWN, sub_agent=False) == 0
    assert context_of(UNKNOWN, sub_agent=True) == SUB_AGENT
    paces = [context_of(paced(UNKNOWN, gap_s), sub_agent=False) for gap_s in (0.0, 0.5, 3.0, 20.0, 1e9)]
    assert paces == sorted(set(paces))
    assert context_of(paced(UNKNOWN, 1e9), sub_agent=True) == CONTEXTS - 1
    assert paced(paced(UNKNOWN, 1.0), 100.0) == pytest.approx(paced(UNKNOWN, 10.0))
    assert [step_kind(n) for n in (0, 1, 2, 5, 10**6)] == [0, 0, 1, 3, 18]


def test_an_unknown_policy_lists_the_known_ones():
    with pytest.raises(StartError, match=r"'oracle'.*known are defaults, saga"):
        policy_named("oracle")


def test_before_anybody_has_ended_no_more_is_expected_than_has_been_seen():
    models = tuple(Model(name) for name in ("n", "t", "w"))
    for step in range(1, 9):
        for model in models:
            for _ in range(60):
                teach(model, "bash", step, 1.0)  # sixty tasks of some forty steps, all young
    said = SAGA.estimate(Situation("bash", 8), models)
    assert 8.0 < said.remaining_steps < 30.0
