"""`saga trace`: figures of the recorded sessions, conversions that say what they lose, errors with exit code 2."""

import json
from pathlib import Path

import pytest

from saga.cli.main import main

RECORDED = Path(__file__).parents[4] / "shared/traces/coding-sessions.jsonl.gz"
TRIE = (
    '{"num_turns": 1, "input_prompt_length": 320, "assistant_response_length": [16], '
    '"tool_call_output_length": [80], "tool_call_latency": [1.5], "final_assistant_response_length": 64}\n'
)


def test_the_recorded_sessions_have_their_known_shape(capsys):
    """That of all 710 sessions, as their README prints it; the file has three quarters of them."""
    assert main(["trace", "stats", str(RECORDED), "--json"]) == 0
    stats = json.loads(capsys.readouterr().out)
    assert (stats["format"], stats["sessions"], stats["steps"]) == ("recorded", 535, 37_837)
    assert (stats["subagents"], stats["sessions_with_subagents"]) == (57, 16)
    known = {
        "steps_per_session": (45, 156),
        "input_tokens_per_step": (105_000, 236_000),
        "new_tokens_per_step": (705, 4_100),
        "output_tokens_per_step": (216, 899),
        "gap_after_tool_s": (9, 71),
        "gap_after_turn_s": (210, 2_982),
    }
    for name, (p50, p90) in known.items():
        assert stats[name]["p50"] == pytest.approx(p50, rel=0.03), name
        assert stats[name]["p90"] == pytest.approx(p90, rel=0.09), name
    assert stats["ideal_hit_rate"] == pytest.approx(0.96, abs=0.005)


def test_a_table_has_units(tmp_path, capsys):
    path = tmp_path / "t.jsonl"
    path.write_text(TRIE)
    assert main(["trace", "stats", str(path)]) == 0
    told = capsys.readouterr().out
    assert "trie format, blocks of 64 tokens" in told
    assert "1 sessions, 1 turns, 2 steps" in told
    assert "gap after tool use" in told


def test_conversion_says_what_it_loses(tmp_path, capsys):
    path, out = tmp_path / "t.jsonl", tmp_path / "o.csv"
    path.write_text(TRIE)
    assert main(["trace", "convert", str(path), str(out), "--to", "tracelab"]) == 0
    assert "lost: service times" in capsys.readouterr().out
    assert out.read_text().splitlines()[2] == "trie-000001,0.000000,1,336,80,64,0.000000"
    assert main(["trace", "convert", str(path), str(path)]) == 2
    assert path.read_text() == TRIE


def test_bad_lines_end_it_with_2_unless_skipped(tmp_path, capsys):
    path = tmp_path / "t.jsonl"
    path.write_text(TRIE + "{}\n")
    assert main(["trace", "stats", str(path)]) == 2
    said = capsys.readouterr().err
    assert said.startswith(f"saga trace: {path}, line 2: expected one conversation")
    assert said.count("\n") == 1
    assert main(["trace", "stats", str(path), "--skip-bad"]) == 0
    assert "1 bad lines skipped" in capsys.readouterr().err
