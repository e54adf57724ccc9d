"""`saga bench live --target` on what is no gateway of ours: a plain engine, through each API, with a header or none."""

import io
import json

import aiohttp
import msgspec
import pytest
from aiohttp import web
from rich.console import Console

from saga.engine.config import EngineConfig
from saga.engine.http_server import serving
from saga.kv.tokens import decode_ids, encode_text
from saga.load.bench_live import bench_live
from saga.load.settings import BenchSettings
from saga.sim.fitted_sessions import generate

FAST = EngineConfig(speed=60.0, shrink=4, page_tokens=16, kv_tokens=5_000_000, compat=True)


async def replay(url, tmp_path, **changes):
    file = tmp_path / "out.json"
    asked = BenchSettings(workload="swe-bench", limit=4, max_steps=4, gap_cap_s=1.0, shrink=4, speed=60.0, json=file)
    settings = msgspec.structs.replace(asked, target=url, **changes)
    out = io.StringIO()
    code = await bench_live(settings, generate, Console(file=out, width=160), Console(file=io.StringIO()))
    (system,) = json.loads(file.read_bytes())["systems"]
    return code, system


@pytest.mark.parametrize("api", ["completions", "chat", "messages", "responses"])
async def test_a_plain_engine_is_replayed_on_through_each_api(tmp_path, api):
    async with serving(FAST) as engine:
        code, system = await replay(engine.url, tmp_path, api=api)
    assert (code, system["errors"], system["steps"]) == (0, [], 16)
    assert system["prompt_length_mismatches"] == 0
    assert system["hit_rate"] > 0.3
    assert abs(system["hit_rate"] - system["ideal_hit_rate"]) <= 0.03


@pytest.mark.parametrize(("header", "seen"), [("X-SMG-Routing-Key", True), ("", False)])
async def test_sessions_are_named_in_the_header_that_the_target_reads(tmp_path, header, seen):
    names = []

    async def pass_on(request):
        names.append(request.headers.get("X-SMG-Routing-Key"))
        assert "X-Saga-Session" not in request.headers
        async with (
            aiohttp.ClientSession() as http,
            http.post(engine.url + request.path, data=await request.read()) as to,
        ):
            return web.Response(body=await to.read(), headers={"Content-Type": "text/event-stream"})

    async def models(_request):
        return web.json_response({"data": [{"id": "a"}, {"id": "llama"}]})

    app = web.Application(client_max_size=2**24)
    app.router.add_post("/v1/completions", pass_on)
    app.router.add_get("/v1/models", models)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    try:
        async with serving(FAST) as engine:
            url = f"http://127.0.0.1:{runner.addresses[0][1]}/v1"
            code, system = await replay(url, tmp_path, session_header=header, target_model="llama")
    finally:
        await runner.cleanup()
    assert (code, system["errors"]) == (0, [])
    assert len(set(names)) == (4 if seen else 1)
    assert (None in names) != seen


async def test_what_other_routers_ask_of_a_worker_is_answered_only_when_told_to():
    async with serving(FAST) as engine, aiohttp.ClientSession(engine.url) as http:
        (load,) = await (await http.get("/get_load")).json()
        assert load == {"dp_rank": 0, "num_reqs": 0, "num_waiting_reqs": 0, "num_tokens": 0}
        assert (await (await http.get("/loads")).json())["dp_rank_count"] == 1
        told = await (await http.post("/tokenize", json={"model": "m", "prompt": "hello"})).json()
        assert (told["tokens"], told["count"]) == (decode_ids(encode_text("hello")), 5)
        chat = {"messages": [{"role": "user", "content": "hi"}]}
        rendered = await (await http.post("/v1/chat/completions/render", json=chat)).json()
        told = await (await http.post("/tokenize", json=chat)).json()
        assert rendered["token_ids"] == told["tokens"]
        refused = await http.post("/tokenize", json={})
        assert (refused.status, (await refused.json())["error"]["param"]) == (400, "prompt")
        assert (await (await http.get("/model_info")).json())["tokenizer_path"].startswith("/")
    async with serving(EngineConfig()) as engine, aiohttp.ClientSession(engine.url) as http:
        assert (await http.get("/get_load")).status == 404
        assert not (await (await http.get("/model_info")).json())["tokenizer_path"].startswith("/")
