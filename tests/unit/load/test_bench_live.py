"""A whole benchmark against a tiny gateway: what is printed, what is written, and the exit code."""

import io
import json

import msgspec
from aiohttp import web
from rich.console import Console

from saga.load.bench_live import bench_live
from saga.load.settings import BenchSettings
from saga.sim.fitted_sessions import generate


async def run(gateway, tmp_path, **changes):
    out = io.StringIO()
    settings = BenchSettings(
        workload="swe-bench", limit=3, max_steps=4, gap_cap_s=0.01, target=gateway.url, json=tmp_path / "out.json"
    )
    console = Console(file=out, width=160)
    code = await bench_live(
        msgspec.structs.replace(settings, **changes), generate, console, Console(file=io.StringIO())
    )
    return code, out.getvalue(), json.loads((tmp_path / "out.json").read_bytes())


async def test_a_run_is_reported_and_written(gateway, tmp_path):
    code, text, document = await run(gateway, tmp_path)
    assert code == 0
    assert "3 tasks, 12 steps" in text
    assert "recorded seconds" in text
    (system,) = document["systems"]
    assert (system["steps"], system["steps_failed"], system["tasks"]) == (12, 0, 3)
    assert system["control_ms"]["p50"] == 1.25
    assert system["tct_s"]["count"] == 3
    assert system["cached_tokens"] == 12 * 16
    # What the gateway says of its engines rules: speed 4, shrink 2, two workers.
    assert (document["run"]["speed"], document["run"]["shrink"], document["run"]["workers"]) == (4.0, 2, 2)
    assert document["run"]["kv_tokens_per_worker"] == 2**18
    assert all(1000 <= len(body["prompt"]) <= 4000 for _, body in gateway.requests)


async def test_sessions_over_the_gateways_context_are_dropped_and_counted(gateway, tmp_path):
    gateway.facts |= {"context_tokens": 15_000, "kv_tokens": 40_000}
    _, text, document = await run(gateway, tmp_path, limit=40, max_steps=1)
    left = document["plan"]["left_out"]
    assert min(left["dropped_over_context"], left["dropped_over_half_kv"], document["plan"]["tasks"]) > 0
    assert left["dropped_over_context"] + left["dropped_over_half_kv"] + document["plan"]["tasks"] == 40
    assert f"{left['dropped_over_half_kv']} over half a worker's KV" in text


async def test_a_failed_step_is_exit_code_1(gateway, tmp_path):
    async def refuse(_request, _body):
        return web.Response(status=500, text="broken")

    gateway.script = [gateway.script[0], refuse, gateway.script[0]]
    code, text, document = await run(gateway, tmp_path)
    assert code == 1
    assert document["systems"][0]["steps_failed"] == 1
    assert "target failed: HTTP 500: broken" in text
