"""`saga bench cache` from flags to files."""

import json
from pathlib import Path

import pytest

from saga.load.cli import main
from saga.load.trace import read_sessions
from saga.sim.cache.access import Limits
from saga.sim.cache.bench import POLICIES, bench_cache, recorded, write_json


@pytest.fixture
def trace(tmp_path: Path) -> Path:
    """Three sessions of ten growing prompts, the gaps far apart."""
    path = tmp_path / "trace.jsonl"
    lines = []
    for number in range(3):
        steps = [
            {
                "agent": "main",
                "t": 30.0 * at,
                "input": 64 * (8 + 4 * at + number),
                "output": 64,
                "blocks": [[0, 8 + 4 * at + number]],
                "stop": "tool_use" if at % 3 else "end_turn",
                "api_s": 2.0,
                "gap_s": 4.0 if at % 3 else 90.0 * (number + 1),
            }
            for at in range(10)
        ]
        lines.append(
            json.dumps({"id": str(number), "block_tokens": 64, "tool_tokens": 128, "system_tokens": 0, "steps": steps})
        )
    path.write_text("\n".join(lines))
    return path


def test_the_report_has_a_row_for_each_policy_at_each_size(trace: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.json"
    flags = ["--trace", str(trace), "--capacity", "6400,20000", "--policy", ",".join(POLICIES), "--json", str(out)]
    assert main(["cache", *flags]) == 0
    rows = json.loads(out.read_bytes())["results"]
    assert [(row["capacity_tokens"], row["policy"]) for row in rows] == [
        (size, policy) for size in (6400, 20000) for policy in POLICIES
    ]
    for row in rows:
        assert row["regenerated_tokens"] >= row["oracle_regenerated_tokens"] > 0
        assert row["belady_ratio"] == round(row["regenerated_tokens"] / row["oracle_regenerated_tokens"], 4)
        span = row["lru_regenerated_tokens"] - row["best_causal_regenerated_tokens"]
        closed = row["lru_regenerated_tokens"] - row["regenerated_tokens"]
        assert row["causal_gap_closed"] == (round(closed / span, 4) if span > 0 else None)
        assert {"lru": 0.0, "causal": 1.0}.get(row["policy"], row["causal_gap_closed"]) == row["causal_gap_closed"]


def test_the_same_trace_gives_the_same_bytes(trace: Path, tmp_path: Path) -> None:
    sessions = read_sessions(trace)
    written = []
    for name in ("one", "two"):
        write_json(tmp_path / name, bench_cache(recorded(sessions, Limits(sessions=20)), (12_800,), POLICIES))
        written.append((tmp_path / name).read_bytes())
    assert written[0] == written[1]


def test_an_infinite_cache_regenerates_nothing_and_has_no_ratio(trace: Path) -> None:
    report = bench_cache(recorded(read_sessions(trace), Limits(sessions=20)), (1 << 40,), POLICIES)
    assert {(r.regenerated_tokens, r.belady_ratio, r.causal_gap_closed) for r in report.results} == {(0, None, None)}
    assert {r.hit_rate for r in report.results} == {report.results[0].ideal_hit_rate}


def test_a_bad_line_stops_the_run_unless_it_may_be_skipped(trace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    trace.write_text(trace.read_text() + "\n{oops\n")
    flags = ["cache", "--trace", str(trace), "--capacity", "20000", "--policy", "lru"]
    assert main(flags) == 2
    assert "line 4" in capsys.readouterr().err
    assert main([*flags, "--skip-bad"]) == 0
    assert "1 bad lines" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["--policy", "lru,fifo"], "expected some of lru"),
        (["--capacity", "4M"], "expected whole numbers of tokens"),
        (["--capacity", "0"], "expected whole numbers of tokens"),
        (["--capacity", "10"], "expected at least a page of 64 tokens"),
        (["--json", "/nowhere/at/all.json"], "expected a file in a folder that exists"),
    ],
)
def test_flags_that_make_no_sense_say_what_was_expected(
    trace: Path, capsys: pytest.CaptureFixture[str], flags: list[str], said: str
) -> None:
    try:
        code = main(["cache", "--trace", str(trace), *flags])
    except SystemExit as stop:
        code = int(stop.code or 0)
    assert code == 2
    assert said in " ".join(capsys.readouterr().err.split())
