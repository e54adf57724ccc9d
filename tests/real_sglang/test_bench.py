"""`saga bench live --engine sglang` and `saga up --engine sglang`, as a user types them."""

import asyncio
import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from random import Random

import openai
import pytest
from sglang_server import ENVIRONMENT, MODEL, ROOT

from saga.cli.plan import free_ports
from saga.load.cli import main

SESSIONS = Path(os.environ.get("SAGA_SESSIONS", ROOT.parent / "shared" / "traces" / "coding-sessions.jsonl.gz"))
PYTHON = ENVIRONMENT / "bin" / "python"
REAL = f"--engine sglang --model {MODEL} --sglang-python {PYTHON} --kv-tokens 8192"
DUMMY = ("--sglang-args", "--load-format dummy")


@pytest.mark.parametrize("workload", ["recorded", "synthetic"])
def test_two_systems_over_two_real_servers_without_a_failure(workload, tmp_path, capsys):
    if workload == "recorded" and not SESSIONS.is_file():
        pytest.skip(f"no recorded sessions at {SESSIONS}")
    what = f"--sessions {SESSIONS}" if workload == "recorded" else "--workload swe-bench"
    file = tmp_path / "out.json"
    size = "--workers 2 --limit 6 --max-steps 10 --gap-cap 0.5 --shrink 16"
    assert main([*f"live {REAL} {what} {size} --json {file}".split(), *DUMMY]) == 0

    document = json.loads(file.read_bytes())
    run = document["run"]
    assert "SGLang" in run["profile"]
    assert (run["workers"], run["page_tokens"], run["shrink"], run["speed"]) == (2, 16, 16, 1.0)
    assert 8_000 * 16 <= run["kv_tokens_per_worker"] <= 8_192 * 16, "by the servers' own word, lengths as recorded"
    assert [system["system"] for system in document["systems"]] == ["session-affinity", "saga"]
    for system in document["systems"]:
        assert (system["steps"], system["steps_failed"]) == (document["plan"]["steps"], 0)
        assert system["prompt_length_mismatches"] == 0
        assert 0.0 < system["hit_rate"] <= system["ideal_hit_rate"] + 0.01
        assert set(system["steps_by_worker"]) == {"w0", "w1"}
    assert "hit rate" in capsys.readouterr().out


async def test_up_serves_restarts_a_server_and_ends_all_that_it_started(tmp_path):
    (port,) = free_ports(1, Random())
    flags = [*REAL.split(), *DUMMY, "--workers", "1", "--port", str(port), "--state-dir", str(tmp_path)]
    command = [sys.executable, "-m", "saga.cli.main", "up", *flags]
    with (tmp_path / "up.log").open("wb") as log:
        mesh = await asyncio.create_subprocess_exec(*command, stdout=log, stderr=subprocess.STDOUT)
    try:
        async with openai.AsyncOpenAI(base_url=f"http://127.0.0.1:{port}/v1", api_key="x", max_retries=0) as client:
            assert await answered(client, mesh, 400)
            (engine,) = [pid for pid in below(mesh.pid) if b"sglang.launch_server" in command_of(pid)][:1]
            os.kill(engine, signal.SIGKILL)
            assert await answered(client, mesh, 400), "it is started again"
        started = below(mesh.pid)
        assert len(started) > 8
    finally:
        mesh.send_signal(signal.SIGINT)
        assert await asyncio.wait_for(mesh.wait(), 90) == 0, (tmp_path / "up.log").read_text()
    async with asyncio.timeout(20):
        while any(alive(pid) for pid in started):
            await asyncio.sleep(0.2)


async def answered(client, mesh, within_s: float) -> bool:
    """Whether a request is answered in time, which it is not while no engine is there."""
    async with asyncio.timeout(within_s):
        while mesh.returncode is None:
            try:
                said = await client.completions.create(
                    model=MODEL.name, prompt="hello " * 20, max_tokens=4, timeout=30, extra_body={"ignore_eos": True}
                )
            except openai.APIError:
                await asyncio.sleep(0.5)
                continue
            return said.usage.completion_tokens == 4
    return False


def command_of(pid: int) -> bytes:
    """Its command line; empty when it is gone."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return b""


def alive(pid: int) -> bool:
    """Whether it is there and no zombie."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except OSError:
        return False


def below(parent: int) -> list[int]:
    """All its descendants, oldest first."""
    parents = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            parents[int(stat.parent.name)] = int(stat.read_text().rsplit(")", 1)[1].split()[1])
        except OSError:
            continue
    found = [parent]
    for pid in found:
        found += sorted(child for child, of in parents.items() if of == pid)
    return found[1:]
