"""`saga bench live` from its flags to its exit code, against a gateway that somebody else runs."""

import asyncio
import gzip
import json
from pathlib import Path

import msgspec
import pytest

from saga.cli import sglang_options
from saga.cli.sglang import PROVEN_VERSION
from saga.contract.errors import StartError
from saga.load.cli import _parser, main, settings_from
from saga.load.settings import DEMO, BenchSettings


def settings(*argv, environ=None):
    return settings_from(_parser().parse_args(["live", *argv]), environ or {})


def a_file(folder):
    path = folder / "sessions.jsonl.gz"
    record = {
        "id": "a",
        "block_tokens": 64,
        "tool_tokens": 64,
        "system_tokens": 0,
        "subagents": [],
        "steps": [
            {"agent": "main", "t": 0.0, "input": 64 * n + 20, "output": 40, "blocks": [[1, n]], "gap_s": 1000.0}
            for n in range(2, 9)
        ],
    }
    path.write_bytes(gzip.compress("".join(json.dumps(record | {"id": str(i)}) + "\n" for i in range(3)).encode()))
    return path


def test_every_flag_is_taken(tmp_path):
    file = a_file(tmp_path)
    argv = f"""--workload coding-sessions --sessions {file} --limit 3 --max-steps 4 --gap-cap 5 --shrink 16 --speed 2.5
        --system saga --workers 2 --profile p --page-tokens 32 --concurrency 7 --seed 9 --no-splice
        --json {tmp_path / "out.json"} --gateway http://g"""
    assert settings(*argv.split()) == BenchSettings(
        workload="coding-sessions",
        sessions=file,
        limit=3,
        max_steps=4,
        gap_cap_s=5.0,
        shrink=16,
        speed=2.5,
        systems=("saga",),
        workers=2,
        profile="p",
        page_tokens=32,
        concurrency=7,
        seed=9,
        splice=False,
        json=tmp_path / "out.json",
        target="http://g",
    )


def test_the_demo_is_a_preset_that_flags_override(tmp_path):
    file = a_file(tmp_path)
    made = settings("--demo", "--workers", "2", environ={"SAGA_SESSIONS": str(file)})
    assert (made.sessions, made.workers, made.limit, made.speed) == (file, 2, DEMO.limit, DEMO.speed)


def test_the_demo_without_its_file_is_the_same_with_drawn_sessions():
    made = settings("--demo", environ={"SAGA_SESSIONS": "/nowhere"})
    assert made == msgspec.structs.replace(DEMO, workload="coding-fitted")
    published = settings("--demo", "--workload", "swe-bench", environ={"SAGA_SESSIONS": "/nowhere"})
    assert published == msgspec.structs.replace(DEMO, workload="swe-bench")
    asked = settings("--demo", "--workload", "coding-sessions", environ={"SAGA_SESSIONS": "/nowhere"})
    assert (asked.workload, asked.sessions) == ("coding-sessions", Path("/nowhere"))


async def test_the_demo_without_its_file_says_so_and_where_it_looked(gateway, monkeypatch, capsys):
    monkeypatch.setenv("SAGA_SESSIONS", "/nowhere")
    argv = ["live", "--demo", "--limit", "2", "--max-steps", "2", "--gap-cap", "0", "--target", gateway.url]
    assert await asyncio.to_thread(main, argv) == 0
    said = capsys.readouterr().out
    assert said.startswith("No recorded sessions at /nowhere (SAGA_SESSIONS names another file). Replayed instead:")
    assert "sessions drawn from statistics of recorded ones (coding-fitted)" in said
    assert "coding-fitted from statistics of recorded sessions: 2 tasks, 4 steps" in said


@pytest.mark.parametrize(
    ("argv", "said"),
    [
        (["--limit", "0"], "at least 1, got 0"),
        (["--speed", "-1"], "above 0"),
        (["--gap-cap", "nan"], "0 or more"),
        (["--workload", "other"], "coding-sessions"),
        (["--system", ","], "at least one system"),
        (["--json", "/nowhere/out.json"], "folder that exists"),
    ],
)
def test_a_bad_flag_is_named(argv, said, capsys):
    with pytest.raises(SystemExit) as caught:
        main(["live", *argv])
    assert caught.value.code == 2
    assert said in capsys.readouterr().err


@pytest.mark.parametrize(
    ("argv", "said"),
    [
        (["--sessions", "/nowhere.jsonl"], "saga bench: /nowhere.jsonl: cannot read"),
        (["--workload", "swe-bench", "--profile", "none"], "h100x1-llama3-8b"),
        (["--workload", "swe-bench", "--system", "saga,none"], "unknown system 'none'; known are"),
        (["--workload", "swe-bench", "--gateway", "http://127.0.0.1:9"], "saga bench: http://127.0.0.1:9/v1/models"),
        (["--workload", "swe-bench", "--shrink", "5"], "divisor of the 64-token block"),
    ],
)
def test_a_start_that_cannot_be_is_one_line_and_code_2(argv, said, capsys):
    assert main(["live", *argv]) == 2
    err = capsys.readouterr().err
    assert said in err
    assert err.count("\n") == 1


@pytest.mark.parametrize("other", [["--demo"], ["--speed", "2"], ["--profile", "p"], ["--target", "http://g"]])
def test_what_only_simulated_engines_have_does_not_go_with_real_ones(other):
    with pytest.raises(StartError, match=f"{other[0]} does not go with --engine sglang"):
        settings("--engine", "sglang", "--model", "x/y", *other)


def test_flags_of_real_servers_need_real_servers():
    with pytest.raises(StartError, match="--kv-tokens is for real servers: add --engine sglang"):
        settings("--kv-tokens", "100")


def test_real_servers_get_small_pages_when_shrunk(monkeypatch):
    monkeypatch.setattr(sglang_options, "ask", lambda _: sglang_options.Installed(PROVEN_VERSION, []))
    real = ("--engine", "sglang", "--model", "x/y")

    assert settings(*real).sglang.page_tokens == 64
    assert settings(*real, "--shrink", "16").sglang.page_tokens == 16
    assert settings(*real, "--shrink", "16", "--page-tokens", "32").sglang.page_tokens == 32
    assert settings().sglang is None
