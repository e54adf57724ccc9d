"""Formats: what each reader makes of its lines, what each writer keeps, and how bad lines are told."""

import json
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from saga.load.ideal import recorded_ideal
from saga.load.planner import PlanSettings, build_plan
from saga.load.trace import Session, Step, SubAgent, TraceError, read_sessions
from saga.load.traces import mooncake, recorded, tracelab, trie
from saga.load.traces.files import WRITABLE, recognise, write_sessions
from saga.load.traces.lines import BadLines
from saga.load.traces.prompts import Prompts, as_runs, common_blocks, following, kept_tokens, leading
from saga.load.traces.session import END_TURN, TOOL_USE, Sessions
from saga.load.traces.stats import ideal_hit_rate, trace_stats

TRIE = (
    '{"num_turns": 2, "input_prompt_length": 320, "assistant_response_length": [16, 20], '
    '"tool_call_output_length": [80, 12], "tool_call_latency": [1.5, 0.0], "final_assistant_response_length": 64}'
)
TRACELAB = "id,input_len,output_len,arrival_time,round_idx,tool_wait_after_ms,prefix_len"
MOONCAKE = '{"timestamp": 27482, "input_length": 1955, "output_length": 52, "hash_ids": [46, 47, 48, 2353]}'


def parsed(module, *lines, path="f", skip=False):
    return module.parse([(n, line.encode()) for n, line in enumerate(lines, 1)], BadLines(path, skip=skip))


def reread(module, sessions):
    return parsed(module, *module.write(sessions).lines)


@st.composite
def chains(draw):
    """Sessions of main agents as any format could hold them: prompts that extend or fall back to some prefix."""
    made = []
    for number in range(draw(st.integers(1, 3))):
        prompts, steps = Prompts(), []
        tokens, output, start_s = draw(st.integers(1, 3000)), 0, 0.0
        for index in range(draw(st.integers(1, 6))):
            kept, gap_s = 0, 0.0
            if index:
                kept = tokens + output
                if draw(st.booleans()):
                    kept = draw(st.integers(0, tokens // 64)) * 64
                gap_s = draw(st.integers(0, 10_000)) / 1000
            tokens = kept + draw(st.integers(1, 2000))
            output = draw(st.integers(0, 500))
            steps.append(Step("main", start_s, tokens, output, prompts.next(kept, tokens), TOOL_USE, gap_s=gap_s))
            start_s += gap_s
        made.append(Session(f"s{number}", 64, tuple(steps), origin_s=float(number)))
    return made


def shape(sessions):
    """What a format that counts tokens keeps."""
    return [
        [
            (step.input_tokens, step.output_tokens, round(step.think_s, 6) if index else 0.0)
            for index, step in enumerate(session.steps)
        ]
        for session in sessions
    ]


def prefixes(sessions):
    """Whole blocks that each prompt has in common with the last."""
    return [[common_blocks(a.blocks, b.blocks) for a, b in pairwise(session.steps)] for session in sessions]


@given(chains())
def test_recorded_comes_back_whole(sessions):
    assert reread(recorded, sessions) == sessions


@given(chains())
def test_tracelab_keeps_lengths_waits_and_prefixes(sessions):
    again = reread(tracelab, sessions)
    assert shape(again) == shape(sessions)
    assert prefixes(again) == prefixes(sessions)
    assert [session.origin_s for session in again] == [session.origin_s for session in sessions]


@given(chains())
def test_trie_keeps_every_step_and_cuts_only_where_a_prompt_does_not_extend_the_last(sessions):
    again = reread(trie, sessions)
    cuts = sum(kept_tokens(a, b, 64) < a.input_tokens + a.output_tokens for s in sessions for a, b in pairwise(s.steps))
    assert len(again) == len(sessions) + cuts
    steps = [(step.input_tokens, step.output_tokens) for session in again for step in session.steps]
    assert steps == [(step.input_tokens, step.output_tokens) for session in sessions for step in session.steps]
    assert shape(reread(trie, again)) == shape(again)


@given(chains())
def test_mooncake_keeps_requests_and_which_prompts_begin_alike(sessions):
    again = reread(mooncake, sessions)
    requests = sorted((s.origin_s + step.start_s, step.input_tokens) for s in again for step in s.steps)
    wanted = sorted((round(s.origin_s + step.start_s, 3), step.input_tokens) for s in sessions for step in s.steps)
    assert [tokens for _, tokens in requests] == [tokens for _, tokens in wanted]
    written = [json.loads(line)["hash_ids"] for line in mooncake.write(again).lines]
    rewritten = [json.loads(line)["hash_ids"] for line in mooncake.write(reread(mooncake, again)).lines]
    assert rewritten == written


@given(chains())
def test_the_ideal_of_a_trace_is_that_of_its_plan(sessions):
    plan = build_plan(sessions, PlanSettings(context_tokens=1 << 30, kv_tokens=1 << 40))
    assert ideal_hit_rate(sessions) == pytest.approx(recorded_ideal(plan))


@given(st.lists(st.integers(0, 9), max_size=20), st.integers(0, 25))
def test_runs_are_the_blocks_they_stand_for(ids, cut):
    def flat(runs):
        return [number for first, count in runs for number in range(first, first + count)]

    runs = as_runs(ids)
    assert flat(runs) == ids
    assert flat(leading(runs, cut)) == ids[:cut]
    assert flat(following(runs, cut)) == ids[cut:]


def test_a_trie_row_is_a_turn_of_growing_prompts():
    (session,) = parsed(trie, TRIE)
    assert [step.input_tokens for step in session.steps] == [320, 416, 448]
    assert [step.output_tokens for step in session.steps] == [16, 20, 64]
    assert [step.gap_s for step in session.steps] == [0.0, 1.5, 0.0]
    assert [step.stop for step in session.steps] == [TOOL_USE, TOOL_USE, END_TURN]
    assert [step.blocks for step in session.steps] == [((0, 5),), ((0, 6),), ((0, 7),)]
    assert json.loads(trie.write([session]).lines[0]) == json.loads(TRIE)


def test_tracelab_rows_are_ordered_by_round_and_keep_a_prefix_of_the_last_context():
    rows = (TRACELAB, "b,100,5,200.5,1,0,96", "b,128,32,200.5,0,1500,0", "a,64,1,0,0,0,0")
    first, second = parsed(tracelab, *rows)
    assert (first.id, second.id, first.origin_s) == ("b", "a", 0.2005)
    assert [step.input_tokens for step in first.steps] == [128, 196]
    assert [step.gap_s for step in first.steps] == [0.0, 1.5]
    assert prefixes([first]) == [[1]]  # 96 of 128 tokens: one whole block
    assert [step.stop for step in first.steps] == [TOOL_USE, END_TURN]


def test_tracelab_rows_without_arrival_time_begin_at_zero():
    header = "session_id,round_idx,prefix_len,input_len,output_len,tool_wait_after_ms"
    (session,) = parsed(tracelab, header, "0,0,12461,5875,124,182")
    assert (session.origin_s, session.steps[0].input_tokens) == (0.0, 18_336)


def test_mooncake_requests_that_extend_a_prompt_continue_its_session():
    def row(at_ms, tokens, *ids):
        return json.dumps({"timestamp": at_ms, "input_length": tokens, "output_length": 100, "hash_ids": ids})

    sessions = parsed(
        mooncake,
        row(0, 1200, 0, 1, 2),
        row(500, 1100, 0, 3, 4),
        row(9000, 1800, 0, 1, 5, 6),  # extends the first
        row(9500, 1250, 0, 1, 7),  # begins like it, but has no room for its answer
        row(9900, 3000, 0, 3, 8, 9, 10, 11),  # extends the second
    )
    assert [len(session.steps) for session in sessions] == [2, 2, 1]
    assert sessions[0].steps[1].gap_s == 9.0
    assert sessions[0].origin_s == 0.0
    assert all(session.common_ids and session.block_tokens == 512 for session in sessions)
    assert sessions[0].steps[1].blocks == ((0, 2), (5, 1))
    hits = 512 * 2 + 512 * 1 + 512 * 2 + 512 * 2  # in the order of the sessions
    assert ideal_hit_rate(sessions) == pytest.approx(hits / (1200 + 1100 + 1800 + 1250 + 3000))


def test_mooncake_ids_are_shared_where_sessions_share_tools_and_system_prompt():
    def session(name, system_tokens):
        steps = (Step("main", 0.0, 2048, 1, ((1, 32),)), Step("main", 1.0, 1024, 1, ((90, 16),)))
        return Session(name, 64, steps, 512, system_tokens)

    ids = [
        json.loads(line)["hash_ids"]
        for line in mooncake.write([session("a", 600), session("b", 600), session("c", 601)]).lines
    ]
    first, second, other = ids[:3]
    assert first[:2] == second[:2]
    assert not set(first[2:]) & set(second)
    assert not set(other) & set(first)
    assert not set(ids[3]) & set(first)  # a side call does not begin with the tools


def test_subagents_become_sessions_of_their_own_where_a_format_has_none():
    steps = (Step("main", 0.0, 64, 1, ((0, 1),)), Step("sub", 2.0, 64, 1, ((9, 1),)))
    session = Session("a", 64, steps, subagents=(SubAgent("sub", 2.0, kind="Explore", duration_s=1.0),))
    assert reread(recorded, [session]) == [session]
    assert [found.id for found in reread(tracelab, [session])] == ["a", "a.sub"]
    assert reread(tracelab, [session])[1].origin_s == 2.0
    assert any("sub-agent" in lost for lost in trie.write([session]).lost)


@pytest.mark.parametrize("name", WRITABLE)
def test_a_format_is_recognised_from_its_content(tmp_path, name):
    (tmp_path / "in").write_text(TRIE + "\n")
    sessions = read_sessions(tmp_path / "in")
    assert sessions.format == "trie"
    path = tmp_path / "any.gz"
    write_sessions(path, sessions, name)
    assert recognise(path) == name
    again = read_sessions(path)
    assert sum(len(session.steps) for session in again) == 3
    write_sessions(tmp_path / "same.gz", sessions, name)
    assert (tmp_path / "same.gz").read_bytes() == path.read_bytes()


@pytest.mark.parametrize(
    ("lines", "said"),
    [
        ((TRIE, '{"num_turns": 1}'), r"line 2: expected one conversation .* found '\{\"num_turns\": 1\}'"),
        ((TRIE, TRIE.replace("[16, 20]", "[16]")), "line 2: expected num_turns 2 .*, found 1 in assistant_response"),
        ((TRIE, TRIE.replace("1.5", "-1")), r"line 2: .*tool_call_latency"),
        ((MOONCAKE, MOONCAKE.replace(", 2353", "")), "line 2: expected 4 hash_ids of 512 .* of 1955, found 3"),
        ((MOONCAKE, MOONCAKE.replace("27482", '"now"')), r"line 2: expected one request .*timestamp"),
        ((TRACELAB, "a,1,1,0,0,0,0", "b,1,1,0,0"), "line 3: expected 7 values as in the header, found 5"),
        ((TRACELAB, "a,1,1,0,0,0,0", "b,x,1,0,0,0,0"), r"line 3: expected the columns .*input_len.*found 'b,x"),
        ((TRACELAB, "a,1,1,0,0,0,0", "a,1,1,0,0,0,0"), "line 3: session 'a': expected round_idx 0 once"),
    ],
)
def test_a_bad_line_is_named_or_skipped_and_counted(tmp_path, lines, said):
    path = tmp_path / "bad"
    path.write_text("\n".join(lines))
    with pytest.raises(TraceError, match=said) as caught:
        read_sessions(path)
    assert str(caught.value).startswith(f"{path}, line ")
    sessions = read_sessions(path, skip_bad=True)
    assert (len(sessions), sessions.skipped) == (1, 1)


def test_a_file_in_no_known_format_is_told_what_was_expected(tmp_path):
    path = tmp_path / "odd"
    path.write_text("\nwhat,is,this\n")
    with pytest.raises(TraceError, match=r"odd, line 2: expected .*--format says which\); found 'what,is,this'"):
        read_sessions(path)
    with pytest.raises(TraceError, match=r"odd, line 2: expected a CSV header with the columns session_id"):
        read_sessions(path, file_format="tracelab")
    with pytest.raises(TraceError, match=r"found none \(1 bad lines skipped\)"):
        read_sessions(path, file_format="trie", skip_bad=True)


def test_stats_count_turns_gaps_and_new_tokens():
    steps = (
        Step("main", 0.0, 640, 10, ((0, 10),), TOOL_USE, 1.0),
        Step("main", 5.0, 768, 20, ((0, 12),), END_TURN, 1.0, 3.0),
        Step("sub", 5.5, 64, 1, ((70, 1),), END_TURN, 1.0, 9.0),
        Step("main", 500.0, 320, 30, ((0, 2), (50, 3)), END_TURN, 1.0, 400.0),
    )
    stats = trace_stats(Sessions([Session("a", 64, steps, subagents=(SubAgent("sub", 5.5),))], "recorded", 2))
    assert (stats.sessions, stats.turns, stats.steps, stats.subagents, stats.subagent_steps) == (1, 2, 4, 1, 1)
    assert (stats.drops, stats.skipped_lines) == (1, 2)
    assert (stats.gap_after_tool_s.count, stats.gap_after_tool_s.p50) == (1, 3.0)
    assert (stats.gap_after_turn_s.count, stats.gap_after_turn_s.p99) == (1, 400.0)
    assert (stats.new_tokens_per_step.p50, stats.new_tokens_per_step.count) == (192, 2)
    assert stats.steps_per_turn.p90 == 2
    assert stats.ideal_hit_rate == pytest.approx((640 + 128) / (640 + 768 + 64 + 320))
