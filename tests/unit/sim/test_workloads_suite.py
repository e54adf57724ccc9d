"""S5 to S7: the fit and its workload, mixtures, adversarial parts, and all of them by name."""

import sys
from itertools import pairwise
from pathlib import Path
from statistics import mean, median, pstdev

import msgspec
import pytest

from saga.engine.profile import load_profile
from saga.load.trace import TraceError, read_sessions
from saga.load.traces.stats import trace_stats
from saga.sim.adversarial import LOSSES, Adversarial, mean_s
from saga.sim.alone import alone
from saga.sim.chat import Chat
from saga.sim.conversation import SharedPrefix, SimStep, StreamPages
from saga.sim.fit import PROBABILITIES, load_fit, value_at
from saga.sim.fitted import Fitted
from saga.sim.synthetic import LATENCIES
from saga.sim.workloads import WORKLOADS, WorkloadError, check_workload, make_workload, needs_sessions, typical

ROOT = Path(__file__).parents[3]
RECORDED = ROOT / "../shared/traces/coding-sessions.jsonl.gz"
LONG, SHORT = load_profile("h200x8-qwen3-coder-480b"), load_profile("a100x4-llama3-70b")
SYNTHETIC = [name for name in WORKLOADS if not needs_sessions(name)]


@pytest.fixture(scope="module")
def recorded():
    return trace_stats(read_sessions(RECORDED))


@pytest.fixture(scope="module")
def drawn():
    workload = Fitted(7, LONG.context_tokens, LONG.page_tokens)
    return [workload.draw(number) for number in range(3000)]


def neighbours(conversations):
    return [pair for made in conversations for pair in pairwise(made.agents[0].steps)]


def p90(values):
    return sorted(values)[int(0.9 * len(values))]


def test_the_fit_is_what_the_script_makes_of_the_recorded_sessions(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "bench" / "offline"))
    from fit_coding_sessions import as_toml, fitted  # noqa: PLC0415 - a script, found by its path

    try:
        fit = fitted(read_sessions(RECORDED), RECORDED.name)
    finally:
        sys.modules.pop("fit_coding_sessions")
    assert fit == load_fit()
    assert msgspec.toml.decode(as_toml(msgspec.to_builtins(fit)), type=type(fit)) == fit


def test_the_medians_of_the_fit_are_those_of_the_recorded_sessions(recorded):
    fit = load_fit()
    assert fit.sessions == recorded.sessions
    middle = PROBABILITIES.index(0.5)
    for table, found in (
        (fit.main.steps_per_session, recorded.steps_per_session),
        (fit.main.turns_per_session, recorded.turns_per_session),
        (fit.main.steps_per_turn, recorded.steps_per_turn),
        (fit.main.tool_gap_s, recorded.gap_after_tool_s),
        (fit.main.human_gap_s, recorded.gap_after_turn_s),
    ):
        assert table[middle] == pytest.approx(found.p50, rel=0.01)
        assert list(table) == sorted(table)


def test_fitted_sessions_have_the_shape_of_the_recorded_ones(drawn, recorded):
    """Medians within 20 %, ninth deciles within 30 %: correlations are left out, and contexts end at the profile's."""
    steps = [step for made in drawn for step in made.agents[0].steps]
    pairs = neighbours(drawn)
    shapes = {
        "steps_per_session": [len(made.agents[0].steps) for made in drawn],
        "input_tokens_per_step": [step.prompt_tokens for step in steps],
        "new_tokens_per_step": [b.prompt_tokens - min(b.kept_tokens, a.prompt_tokens) // 64 * 64 for a, b in pairs],
        "output_tokens_per_step": [step.output_tokens for step in steps],
        "gap_after_tool_s": [b.think_s for a, b in pairs if a.tool],
        "gap_after_turn_s": [b.think_s for a, b in pairs if not a.tool],
    }
    for name, values in shapes.items():
        wanted = getattr(recorded, name)
        assert median(values) == pytest.approx(wanted.p50, rel=0.2), name
        assert p90(values) == pytest.approx(wanted.p90, rel=0.3), name
    assert median(made.turns for made in drawn) == recorded.turns_per_session.p50
    hit = sum(step.kept_tokens for step in steps) / sum(step.prompt_tokens for step in steps)
    assert hit == pytest.approx(recorded.ideal_hit_rate, abs=0.015)
    drops = sum(b.prompt_tokens < a.prompt_tokens for a, b in pairs) / len(pairs)
    assert recorded.drops / recorded.steps / 2 < drops < 2 * recorded.drops / recorded.steps
    with_subagents = sum(len(made.agents) > 1 for made in drawn) / len(drawn)
    assert with_subagents == pytest.approx(recorded.sessions_with_subagents / recorded.sessions, abs=0.015)


def test_fitted_sessions_share_the_prefix_of_their_class_and_nothing_else():
    workload = Fitted(3, LONG.context_tokens, LONG.page_tokens)
    by_class = {}
    for number in range(400):
        by_class.setdefault(workload.draw(number).agent_class, []).append(number)
    first, second = next(numbers for numbers in by_class.values() if len(numbers) > 1)[:2]
    other = next(numbers[0] for numbers in by_class.values() if first not in numbers)
    words = {}
    for number in (first, second, other):
        step = workload.draw(number).agents[0].steps[0]
        hashes, known = workload.pages(number, 0).advance(0, step)
        assert known == (0 if number != second else words[first][1])
        ids = [hashes[at : at + 8] for at in range(0, len(hashes), 8)]
        prefix = 0 if number != second else sum(a == b for a, b in zip(ids, words[first][0], strict=False))
        words[number] = (ids, prefix if number == second else min(len(ids), _prefix_pages(workload, number)))
    assert words[second][1] == words[first][1] > 0
    assert not set(words[other][0]) & set(words[first][0])


def _prefix_pages(workload, number):
    """How many pages the class of a session has."""
    name = workload.draw(number).agent_class
    return next(p.tokens for p in workload._prefixes if f"coding-{p.number}" == name) // LONG.page_tokens


def test_a_shared_prefix_is_known_once_some_prompt_had_it():
    prefix = SharedPrefix(0, 100)
    first, known = StreamPages(16, 0, prefix).advance(0, SimStep(200, 20, 0, 0.0))
    assert (len(first) // 8, known) == (13, 0)
    pages = StreamPages(16, 1, prefix)
    second, known = pages.advance(0, SimStep(200, 20, 0, 0.0))
    assert known == 6
    assert second[:48] == first[:48]
    assert not {second[at : at + 8] for at in range(48, 104, 8)} & {first[at : at + 8] for at in range(48, 104, 8)}
    third, known = pages.advance(1, SimStep(220, 20, 120, 0.0))
    assert known == 7
    assert third[: 7 * 8] == second[: 7 * 8]
    assert third[7 * 8 : 8 * 8] != second[7 * 8 : 8 * 8]


@pytest.mark.parametrize("name", [*SYNTHETIC, "mixed:0.5", "adversarial:tool-cv0.5", "adversarial:fan-out-3"])
@pytest.mark.parametrize("profile", [LONG, SHORT], ids=lambda profile: profile.name)
def test_every_workload_fits_its_workers_and_can_be_drawn_again(name, profile):
    made, again = (make_workload(name, 5, profile) for _ in range(2))
    for number in range(20):
        conversation = made.workload.draw(number)
        assert conversation == again.workload.draw(number)
        for index, agent in enumerate(conversation.agents):
            pages = made.workload.pages(number, index)
            assert agent.steps[0].opens_turn
            before = None
            for at, step in enumerate(agent.steps):
                assert step.prompt_tokens > 0
                assert step.output_tokens > 0
                assert step.prompt_tokens + step.output_tokens <= profile.context_tokens
                assert step.think_s >= 0
                held = before.prompt_tokens + before.output_tokens if before else 0
                assert 0 <= step.kept_tokens <= min(held, step.prompt_tokens)
                hashes, known = pages.advance(at, step)
                assert len(hashes) // 8 == (step.prompt_tokens + step.output_tokens) // profile.page_tokens
                assert 0 <= known <= len(hashes) // 8
                before = step
    whole = alone(typical(name, made, profile), profile)
    assert whole.seconds > 0
    assert 0 < whole.kv_tokens < profile.kv_tokens


def test_no_two_conversations_of_a_mixture_have_pages_in_common_but_prefixes():
    made = make_workload("mixed:0.5", 1, LONG)
    seen = set()
    for number in range(60):
        for index, agent in enumerate(made.workload.draw(number).agents):
            hashes, _ = made.workload.pages(number, index).advance(0, agent.steps[0])
            own = {hashes[at : at + 8] for at in range(0, len(hashes), 8) if hashes[at + 7] < 0x80}
            assert not own & seen
            seen |= own


def test_chat_has_its_published_averages():
    drawn = [Chat(1, 1 << 20, 64).draw(number).agents[0].steps for number in range(6000)]
    steps = [step for steps in drawn for step in steps]
    assert mean(step.prompt_tokens for step in steps) == pytest.approx(12_035, rel=0.04)
    assert mean(step.output_tokens for step in steps) == pytest.approx(343, rel=0.04)
    hit = sum(step.kept_tokens for step in steps) / sum(step.prompt_tokens for step in steps)
    assert hit == pytest.approx(0.366, abs=0.03)
    assert all(step.opens_turn and not step.tool for step in steps)


def test_the_share_of_chat_is_as_asked():
    for name, share in (("mixed", 0.8), ("mixed:0.25", 0.25), ("mixed:0", 0), ("mixed:1", 1)):
        made = make_workload(name, 1, LONG)
        tenants = [made.workload.draw(number).tenant for number in range(300)]
        assert tenants.count("chat") / 300 == pytest.approx(share, abs=0.07)


@pytest.mark.parametrize("cv", [0.5, 3.0])
def test_tools_vary_as_asked_around_the_default_means(cv):
    varied = Adversarial(f"tool-cv{cv:g}", 1, 32_768, 16)._latencies
    for tool, latency in varied.items():
        values = [latency.draw((at + 0.5) / 50_000) for at in range(50_000)]
        assert mean(values) == pytest.approx(mean_s(LATENCIES[tool]), rel=0.02)
        assert pstdev(values) / mean(values) == pytest.approx(cv, rel=0.1)


def test_adversarial_parts_are_what_they_are_called():
    def drawn(part):
        return [Adversarial(part, 2, 32_768, 16).draw(number) for number in range(200)]

    assert {len(made.agents) for made in drawn("fan-out-32")} == {33}
    assert all(len({agent.after_step for agent in made.agents[1:]}) == 1 for made in drawn("fan-out-32"))
    storm = neighbours(drawn("compaction-storm"))
    assert sum(b.prompt_tokens < a.prompt_tokens for a, b in storm) / len(storm) > 0.15
    flood = [made.tenant for made in drawn("tenant-flood")]
    assert flood.count("flood") / len(flood) == pytest.approx(0.9, abs=0.06)
    assert Adversarial("tenant-flood", 2, 32_768, 16).weights == {"flood": 1.0, "steady-0": 1.0, "steady-1": 1.0}
    assert Adversarial("worker-loss", 2, 32_768, 16).losses == LOSSES
    whole = make_workload("adversarial", 2, SHORT).workload
    assert whole.losses == LOSSES
    assert len({whole.draw(number).tenant for number in range(200)}) == 7


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("swe", r"unknown workload 'swe'; known: swe-bench,"),
        ("mixed:2", "expected a share of chat between 0 and 1, as in mixed:0.5, got '2'"),
        ("mixed:", "expected a share of chat"),
        ("adversarial:no", "unknown adversarial part 'no'; known: tool-cv3,"),
        ("adversarial:fan-out-0", "expected fan-out-N with N above 0 and at most 63"),
        ("adversarial:fan-out-1.5", "expected fan-out-N"),
        ("adversarial:tool-cvx", "expected tool-cvN"),
        ("tenants:3", "unknown workload 'tenants:3'"),
    ],
)
def test_an_unknown_workload_is_told_what_there_is(name, said):
    with pytest.raises(WorkloadError, match=said):
        check_workload(name)


def test_recorded_sessions_are_read_where_a_workload_replays_them(tmp_path):
    path = tmp_path / "t.jsonl"
    row = (
        '{"num_turns": 1, "input_prompt_length": 6400, "assistant_response_length": [16], '
        '"tool_call_output_length": [80], "tool_call_latency": [1.5], "final_assistant_response_length": 64}\n'
    )
    path.write_text(row + row.replace("6400", "640000") + "{}\n")
    made = make_workload("coding-sessions", 1, LONG, path, skip_bad=True)
    assert (made.dropped_sessions, made.skipped_lines) == (1, 1)
    assert [step.prompt_tokens for step in made.workload.draw(0).agents[0].steps] == [6400, 6496]
    assert len(list(typical("coding-sessions", made, LONG, path))) == 1
    mixed = make_workload("mixed-recorded:0.5", 1, LONG, path, skip_bad=True)
    assert {mixed.workload.draw(number).tenant for number in range(20)} == {"coding", "chat"}
    with pytest.raises(TraceError, match="line 3"):
        make_workload("coding-sessions", 1, LONG, path)
    with pytest.raises(TraceError, match="mixed-recorded needs --sessions FILE"):
        make_workload("mixed-recorded", 1, LONG)


def test_a_quantile_table_is_drawn_as_it_is_written():
    table = tuple(float(at * at) for at in range(len(PROBABILITIES)))
    assert [value_at(table, p) for p in PROBABILITIES] == pytest.approx(table)
    assert 4 < value_at(table, 0.2) < 9
