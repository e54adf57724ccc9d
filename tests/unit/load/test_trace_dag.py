"""AIPerf's dag_jsonl as sessions: who is whose sub-agent, when it starts, and what prompts have in common."""

import json

import pytest

from saga.load.planner import PlanSettings, build_plan
from saga.load.trace import TraceError, read_sessions
from saga.load.traces import dag
from saga.load.traces.files import write_sessions
from saga.load.traces.lines import BadLines
from saga.load.traces.prompts import common_blocks


def parsed(*rows, skip=False):
    lines = [(number, json.dumps(row).encode()) for number, row in enumerate(rows, 1)]
    return dag.parse(lines, BadLines("f", skip=skip))


def turn(chars=1_024, role="user", **more):
    return {"messages": [{"role": role, "content": "x" * chars}], "max_tokens": 64, **more}


def test_a_plain_conversation_grows_by_its_messages_and_answers():
    (session,) = parsed({"session_id": "s", "turns": [turn(role="system"), turn(delay=1500.0)]})
    first, second = session.steps
    assert (first.input_tokens, first.output_tokens, second.input_tokens) == (256, 64, 256 + 64 + 256)
    assert (second.gap_s, session.system_tokens) == (1.5, 256)
    assert common_blocks(first.blocks, second.blocks) == 4


def test_forks_go_on_from_what_was_said_and_spawns_begin_anew():
    rows = [
        {"session_id": "root", "turns": [turn(forks=["f"], spawns=["a", {"children": ["b"], "join_at": 1}]), turn()]},
        {"session_id": "f", "turns": [turn()]},
        {"session_id": "a", "turns": [turn(), turn(delay=100)]},
        {"session_id": "b", "turns": [turn(tools=[{"name": "t"}])]},
    ]
    (session,) = parsed(*rows)
    agents = session.agents()
    assert {name: len(steps) for name, steps in agents.items()} == {"main": 2, "agent-1": 1, "agent-2": 2, "agent-3": 1}
    root, fork, spawn = agents["main"][0], agents["agent-1"][0], agents["agent-2"][0]
    assert fork.input_tokens == root.input_tokens + root.output_tokens + 256
    assert common_blocks(root.blocks, fork.blocks) == 4
    assert common_blocks(root.blocks, spawn.blocks) == 0
    assert spawn.input_tokens == 256
    plan = build_plan([session], PlanSettings(context_tokens=10**6, kv_tokens=10**7))
    assert sorted(agent.parent or "" for agent in plan.tasks[0].agents) == ["", "root", "root", "root"]


def test_a_session_that_comes_before_the_first_turn_starts_with_it():
    rows = [{"session_id": "r", "turns": [turn()], "pre_session_spawns": ["p"]}, {"session_id": "p", "turns": [turn()]}]
    (session,) = parsed(*rows)
    assert [sub.start_s for sub in session.subagents] == [0.0]


@pytest.mark.parametrize(
    ("rows", "said"),
    [
        ([{"session_id": "s", "turns": []}], "line 1: expected one conversation"),
        ([{"session_id": "s", "turns": [{"text": "x"}]}], "messages"),
        (
            [{"session_id": "s", "turns": [turn()]}] * 2,
            "line 2: expected a session_id of its own, 's' is that of line 1",
        ),
        ([{"session_id": "s", "turns": [turn(forks=["t"])]}], "a line for session 't', which 's' starts"),
        ([{"session_id": "s", "turns": [turn(spawns=["s"])]}], "no other starts"),
    ],
)
def test_what_is_wrong_is_told_with_its_line(rows, said):
    with pytest.raises(TraceError, match=said):
        parsed(*rows)


def test_a_file_is_recognised_and_cannot_be_written(tmp_path):
    file = tmp_path / "dag.jsonl"
    file.write_text(json.dumps({"session_id": "s", "turns": [turn()]}) + "\n")
    sessions = read_sessions(file)
    assert (sessions.format, len(sessions)) == ("dag", 1)
    with pytest.raises(TraceError, match="can only be read"):
        write_sessions(file, sessions, "dag")
