"""Reading recorded sessions: what is taken as it is, what is odd but fine, and what is refused with its line."""

import gzip
import json

import pytest

from saga.load.trace import TraceError, read_sessions


def record(**changes):
    step = {"agent": "main", "t": 0.0, "model": "m", "input": 130, "output": 5, "blocks": [[1, 2]], "stop": "tool_use"}
    step |= {"input_types": ["text"], "api_s": 1.5, "gap_s": 0.0}
    session = {"id": "a", "block_tokens": 64, "tool_tokens": 64, "system_tokens": 10, "subagents": [], "steps": [step]}
    step_changes = changes.pop("step", {})
    session["steps"] = [step | step_changes]
    return session | changes


def write(path, *records):
    text = "".join(json.dumps(entry) + "\n" for entry in records)
    if path.suffix == ".gz":
        path.write_bytes(gzip.compress(text.encode()))
    else:
        path.write_text(text)
    return path


@pytest.mark.parametrize("name", ["s.jsonl", "s.jsonl.gz"])
def test_reads_sessions_in_order(tmp_path, name):
    sessions = read_sessions(write(tmp_path / name, record(), record(id="b")))
    assert [session.id for session in sessions] == ["a", "b"]
    step = sessions[0].steps[0]
    assert (step.input_tokens, step.output_tokens, step.blocks) == (130, 5, ((1, 2),))
    assert step.end_s == 1.5
    assert sessions[0].peak_tokens() == 135
    assert sessions[0].peak_tokens(least_output_tokens=16) == 146


def test_odd_values_are_read_as_documented(tmp_path):
    odd = record(step={"gap_s": None, "api_s": None, "stop": "", "output": 0, "t": 7.0})
    step = read_sessions(write(tmp_path / "s.jsonl", odd))[0].steps[0]
    assert step.think_s == 0
    assert step.end_s == 7.0
    assert step.output_tokens == 0


@pytest.mark.parametrize(
    ("bad", "said"),
    [
        (record(id=3), r"Expected `str`, got `int` - at `\$\.id`"),
        (record(step={"input": -1}), r"\$\.steps\[0\]\.input"),
        (record(step={"input": 2**60}), r"Expected `int` <= 100000000 - at `\$\.steps\[0\]\.input`"),
        (record(step={"blocks": [[1, 2**60]]}), r"Expected `int` <= 100000000"),
        (record(step={"input": 200}), "step 0: expected 3 whole blocks of 64 .* got 2"),
        (record(step={"agent": "ghost"}), "expected agent 'main' or one listed in subagents, got 'ghost'"),
        (record(id="first"), "expected ids to be unique"),
    ],
)
def test_a_bad_line_is_named(tmp_path, bad, said):
    path = write(tmp_path / "s.jsonl", record(id="first"), bad)
    with pytest.raises(TraceError, match=said) as caught:
        read_sessions(path)
    assert "s.jsonl, line 2:" in str(caught.value)


def test_a_line_that_is_not_json_is_named(tmp_path):
    path = tmp_path / "s.jsonl"
    path.write_text(json.dumps(record()) + '\n\n{"id": \n')
    with pytest.raises(TraceError, match="line 3: expected one session as a JSON object"):
        read_sessions(path)


def test_missing_empty_and_cut_files(tmp_path):
    with pytest.raises(TraceError, match=r"none\.jsonl: cannot read"):
        read_sessions(tmp_path / "none.jsonl")
    empty = tmp_path / "empty.jsonl"
    empty.write_text("\n")
    with pytest.raises(TraceError, match="found none"):
        read_sessions(empty)
    cut = tmp_path / "cut.jsonl.gz"
    # Enough lines that the reader has work before it meets the missing end.
    cut.write_bytes(gzip.compress("".join(json.dumps(record(id=str(i))) + "\n" for i in range(500)).encode())[:-20])
    with pytest.raises(TraceError, match="expected an intact gzip file"):
        read_sessions(cut)
