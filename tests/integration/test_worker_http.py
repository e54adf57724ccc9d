"""What the worker agent reads out of SGLang's HTTP, as 0.5.23 answers it, and how it takes an engine that does not."""

import asyncio

import aiohttp
import pytest
from aiohttp import web

from saga.contract.errors import StartError
from saga.worker.events import LoadSeen
from saga.worker.http_sglang import POLL_TIMEOUT_S, EngineSlow, EngineUnreachable, SglangHttp

# As a real server says it: what was not given on its command line is null, ranks report under internal_states.
REAL = {
    "model_path": "/models/tiny",
    "served_model_name": "tiny",
    "context_length": None,
    "max_running_requests": None,
    "page_size": 16,
    "enable_session_radix_cache": False,
    "max_total_num_tokens": 16384,
    "version": "0.5.23",
    "kv_events": {
        "publisher": "zmq",
        "endpoint_host": "*",
        "endpoint_port_base": 25557,
        "topic": "kv",
        "block_size": 16,
        "dp_size": 1,
        "replay_endpoint_port_base": 25558,
    },
    "internal_states": [{"last_gen_throughput": 0.0, "memory_usage": {"weight": 0.0}}],
}
LOADS = {"loads": [{"dp_rank": 0, "num_running_reqs": 3, "num_waiting_reqs": 1, "num_used_tokens": 640}]}
MODELS = {"data": [{"id": "tiny", "max_model_len": 8192}]}


@pytest.fixture
async def engine():
    """(base URL, answers by path: JSON, a status, or a delay in seconds)."""
    answers = {"/server_info": REAL, "/v1/loads": LOADS, "/v1/models": MODELS}

    async def answer(request):
        said = answers[request.path]
        if isinstance(said, float):
            await asyncio.sleep(said)
        return web.json_response(said) if isinstance(said, dict) else web.Response(status=int(said))

    app = web.Application()
    app.router.add_route("*", "/{path:.*}", answer)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    yield f"http://127.0.0.1:{runner.addresses[0][1]}", answers
    await runner.cleanup()


@pytest.fixture
async def http(engine):
    async with aiohttp.ClientSession() as session:
        yield SglangHttp(session, engine[0] + "/")


async def test_a_real_server_is_understood(engine, http):
    engine[1]["/v1/loads"] = {"loads": [LOADS["loads"][0] | {"max_running_requests": 2048}]}
    view = await http.view()
    assert (view.facts.model, view.facts.page_tokens, view.facts.kv_tokens) == ("tiny", 16, 16384)
    assert (view.facts.context_tokens, view.facts.max_running, view.facts.session_tags) == (8192, 2048, False)
    assert (view.facts.speed, view.facts.shrink, view.facts.cost.prompt_s_per_token) == (1.0, 1, 0.0)
    assert (view.events_endpoint, view.replay_endpoint) == ("tcp://127.0.0.1:25557", "tcp://127.0.0.1:25558")
    assert view.topic == "kv"
    assert await http.view() == view


@pytest.mark.parametrize(
    ("said", "tokens"),
    [
        ({}, 0),
        ({"enable_hierarchical_cache": False, "hicache_ratio": 2.0}, 0),
        ({"enable_hierarchical_cache": True, "hicache_ratio": 2.0, "hicache_size": 0}, 2 * 16384),
        ({"enable_hierarchical_cache": True, "hicache_ratio": 2.0, "hicache_size": 30}, 16384),
        ({"enable_hierarchical_cache": True, "hicache_ratio": None, "hicache_size": 30}, 16384),
    ],
)
async def test_a_host_tier_is_known_by_its_flags(said, tokens, engine, http):
    engine[1]["/server_info"] = REAL | said
    facts = (await http.view()).facts
    assert (facts.host_kv_tokens, facts.load_s_per_token) == (tokens, 0.0)


@pytest.mark.parametrize(
    ("said", "storage"),
    [
        ({"hicache_storage_backend": None}, ""),
        ({"hicache_storage_backend": "mooncake"}, ""),
        ({"hicache_storage_backend": "mooncake", "enable_hierarchical_cache": True}, "mooncake"),
    ],
)
async def test_a_store_behind_the_host_tier_is_known_by_its_flags(said, storage, engine, http):
    engine[1]["/server_info"] = REAL | said
    assert (await http.view()).storage == storage


async def test_without_replay_it_says_so(engine, http):
    block = {k: v for k, v in REAL["kv_events"].items() if k != "replay_endpoint_port_base"}
    engine[1]["/server_info"] = REAL | {"kv_events": block | {"endpoint_host": "10.1.2.3"}}
    view = await http.view()
    assert (view.events_endpoint, view.replay_endpoint) == ("tcp://10.1.2.3:25557", "")


async def test_loads_are_rank_zero(http):
    assert await http.load() == LoadSeen(3, 1, 640)


@pytest.mark.parametrize("said", [503, POLL_TIMEOUT_S + 5.0, {"loads": "many"}])
async def test_an_engine_that_answers_badly_or_late_is_slow(said, engine, http, monkeypatch):
    monkeypatch.setattr("saga.worker.http_sglang.POLL_TIMEOUT_S", 0.2)
    engine[1]["/v1/loads"] = said
    with pytest.raises(EngineSlow):
        await http.load()


@pytest.mark.parametrize(
    ("info", "names"),
    [
        ({"hello": "world"}, "no SGLang server"),
        (404, "no SGLang server"),
        (REAL | {"page_size": "large"}, "no SGLang server"),
        (REAL | {"kv_events": None}, "--kv-events-config"),
        (REAL | {"kv_events": {"publisher": "null"}}, "--kv-events-config"),
        (REAL | {"page_size": 1}, "--page-size 16"),
    ],
)
async def test_an_unfit_engine_is_refused_with_what_to_set(info, names, engine, http):
    engine[1]["/server_info"] = info
    with pytest.raises(StartError, match=names):
        await http.view()


async def test_nobody_there_is_unreachable(unused_port):
    async with aiohttp.ClientSession() as session:
        http = SglangHttp(session, f"http://127.0.0.1:{unused_port}")
        for call in (http.view(), http.load(), http.abort("rid"), http.close_tag("tag")):
            with pytest.raises(EngineUnreachable):
                await call


@pytest.fixture
async def unused_port():
    server = await asyncio.start_server(lambda _r, _w: None, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    server.close()
    await server.wait_closed()
    return port


@pytest.mark.parametrize(
    ("policy", "config", "file"),
    [
        ("saga", {"file": "/dev/shm/saga-1"}, "/dev/shm/saga-1"),
        ("saga", None, ""),
        ("slru", {"file": "/dev/shm/saga-1", "protected_threshold": 3}, ""),
        ("lru", None, ""),
    ],
)
async def test_the_plugin_says_where_it_reads_values(policy, config, file, engine, http):
    engine[1]["/server_info"] = REAL | {"radix_eviction_policy": policy, "radix_eviction_policy_config": config}
    view = await http.view()
    assert view.retention_file == file
    assert view.version == "0.5.23"
