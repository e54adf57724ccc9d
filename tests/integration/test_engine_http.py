"""The engine as a process: HTTP in SGLang's shapes, KV events over ZMQ with replay, bad input, clean end."""

import asyncio
import json
import os
import signal
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path

import aiohttp
import msgspec
import pytest
import zmq
import zmq.asyncio

from saga.engine.zmq_events import END_OF_REPLAY, AllBlocksCleared, BlockRemoved, BlockStored, KvEventBatch
from saga.kv.pages import PageChain, hashes_to_int64
from saga.kv.tokens import decode_ids, encode_text, render_chat
from saga.worker.http_sglang import SglangHttp

USER = [{"role": "user", "content": "tell me something long " * 4}]
TOOL = {
    "type": "function",
    "function": {
        "name": "look",
        "parameters": {"type": "object", "properties": {"where": {"type": "string"}}, "required": ["where"]},
    },
}


class Engine:
    """A client of a running engine."""

    def __init__(self, http: aiohttp.ClientSession) -> None:
        self.http = http

    async def post(self, path, body, status=200):
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        async with self.http.post(path, data=data) as answer:
            text = await answer.text()
            assert answer.status == status, text
            return json.loads(text) if text else None

    async def get(self, path):
        async with self.http.get(path) as answer:
            assert answer.status == 200
            return await answer.text()

    async def info(self):
        return json.loads(await self.get("/server_info"))

    async def load(self):
        return json.loads(await self.get("/v1/loads"))["loads"][0]

    async def stream(self, path, body):
        async with self.http.post(path, json=body | {"stream": True}) as answer:
            assert answer.status == 200
            assert answer.content_type == "text/event-stream"
            chunks = [line[6:].strip() async for line in answer.content if line.startswith(b"data: ")]
        assert chunks.pop() == b"[DONE]"
        return [json.loads(chunk) for chunk in chunks]


@contextmanager
def running(folder: Path, **settings):
    """An engine process; gives its base URL."""
    port_file = folder / "port"
    variables = {"port_file": str(port_file), "speed": "20", "page_tokens": "16", "shrink": "4"} | settings
    environ = {name: value for name, value in os.environ.items() if not name.startswith("SAGA_")}
    environ |= {f"SAGA_ENGINE_{name.upper()}": value for name, value in variables.items()}
    with subprocess.Popen([sys.executable, "-m", "saga.engine"], env=environ, stderr=subprocess.PIPE) as process:
        try:
            ends_s = time.monotonic() + 20
            while not (port_file.exists() and port_file.read_text()):
                assert process.poll() is None, process.stderr.read().decode()
                assert time.monotonic() < ends_s
                time.sleep(0.02)
            yield f"http://127.0.0.1:{int(port_file.read_text())}"
            process.send_signal(signal.SIGTERM)
            assert process.wait(10) == 0
        finally:
            process.kill()


@pytest.fixture(scope="module")
def base_url(tmp_path_factory):
    with running(tmp_path_factory.mktemp("engine")) as url:
        yield url


@pytest.fixture
async def engine(base_url):
    async with aiohttp.ClientSession(base_url) as http:
        yield Engine(http)


async def test_chat_whole_and_streamed_say_the_same(engine):
    ask = {"messages": USER, "max_tokens": 40, "ignore_eos": True, "seed": 5, "session_id": "s", "temperature": 0.7}
    whole = await engine.post("/v1/chat/completions", ask | {"rid": "one"})
    assert whole["id"] == "one"
    assert whole["object"] == "chat.completion"
    text = whole["choices"][0]["message"]["content"]
    assert len(text) == 40
    assert whole["choices"][0]["finish_reason"] == "length"
    prompt_tokens = len(render_chat(USER)) - len("<|im_start|>") * 2 - len("<|im_end|>") + 3
    assert whole["usage"]["prompt_tokens"] == prompt_tokens
    assert whole["usage"]["prompt_tokens_details"] == {"cached_tokens": 0}

    chunks = await engine.stream("/v1/chat/completions", ask | {"stream_options": {"include_usage": True}})
    assert {chunk["object"] for chunk in chunks} == {"chat.completion.chunk"}
    assert chunks[0]["choices"][0]["delta"] == {"role": "assistant", "content": ""}
    said = [chunk["choices"][0]["delta"].get("content", "") for chunk in chunks[:-1]]
    assert "".join(said) == text
    assert chunks[-2]["choices"][0]["finish_reason"] == "length"
    assert chunks[-1]["choices"] == []
    assert chunks[-1]["usage"]["prompt_tokens_details"]["cached_tokens"] == (prompt_tokens - 1) // 16 * 16
    assert chunks[-1]["usage"]["completion_tokens"] == 40


async def test_a_request_without_output_is_cached_and_says_nothing(engine):
    ask = {"input_ids": list(range(10, 110)), "sampling_params": {"max_new_tokens": 0}}
    said = await engine.post("/generate", ask)
    assert (said["text"], said["meta_info"]["completion_tokens"]) == ("", 0)
    assert said["meta_info"]["finish_reason"] == {"type": "length", "length": 0}
    again = await engine.post("/generate", ask | {"sampling_params": {"max_new_tokens": 1}})
    assert again["meta_info"]["cached_tokens"] == 96


async def test_a_host_tier_is_told_under_sglangs_names(tmp_path):
    with running(tmp_path, kv_tokens="4096", host_kv_tokens="16384") as url:
        async with aiohttp.ClientSession(url) as http:
            info = await Engine(http).info()
            facts = (await SglangHttp(http, url).view()).facts
    assert (info["enable_hierarchical_cache"], info["hicache_ratio"], info["hicache_size"]) == (True, 4.0, 0)
    assert facts.host_kv_tokens == 16_384
    assert facts.cost.prompt_s_per_token > facts.load_s_per_token > 0.0


async def test_priorities_act_on_eviction_where_the_server_says_so(tmp_path):
    with running(tmp_path, eviction="priority", kv_tokens="160") as url:
        async with aiohttp.ClientSession(url) as http:
            engine = Engine(http)
            assert (await engine.info())["radix_eviction_policy"] == "priority"
            asks = [{"input_ids": [token] * 64, "sampling_params": {"max_new_tokens": 1}} for token in (10, 20, 30)]
            hits = [
                (await engine.post("/generate", asks[which] | {"priority": priority}))["meta_info"]["cached_tokens"]
                for which, priority in ((0, 5), (1, 0), (2, 0), (0, 0), (1, 0))
            ]
            assert hits == [0, 0, 0, 48, 0], "the important one outlives a younger one"


async def test_a_broken_answer_is_continued_by_chat_and_by_ids(engine):
    whole = await engine.post("/v1/chat/completions", {"messages": USER, "max_tokens": 60, "ignore_eos": True})
    text = whole["choices"][0]["message"]["content"]
    partial = [*USER, {"role": "assistant", "content": text[:25]}]
    rest = {"max_tokens": 35, "ignore_eos": True}
    continued = await engine.post("/v1/chat/completions", rest | {"messages": partial, "continue_final_message": True})
    assert continued["choices"][0]["message"]["content"] == text[25:]
    ids = decode_ids(encode_text(render_chat(USER) + text[:25]))
    by_ids = await engine.post("/v1/completions", rest | {"prompt": ids})
    assert by_ids["choices"][0]["text"] == text[25:]
    native = await engine.post(
        "/generate", {"input_ids": ids, "sampling_params": {"max_new_tokens": 35, "ignore_eos": True}}
    )
    assert native["text"] == text[25:]
    assert native["meta_info"]["finish_reason"] == {"type": "length", "length": 35}
    assert native["meta_info"]["cached_tokens"] > 0
    streamed = await engine.stream("/v1/completions", rest | {"prompt": ids})
    assert "".join(chunk["choices"][0]["text"] for chunk in streamed) == text[25:]


async def test_forced_tool_calls_are_valid_whole_and_streamed(engine):
    ask = {"messages": USER, "tools": [TOOL], "max_tokens": 300}
    named = {"type": "function", "function": {"name": "look"}}
    whole = await engine.post("/v1/chat/completions", ask | {"tool_choice": "required"})
    call = whole["choices"][0]["message"]["tool_calls"][0]
    assert whole["choices"][0]["finish_reason"] == "tool_calls"
    assert call["function"]["name"] == "look"
    assert isinstance(json.loads(call["function"]["arguments"])["where"], str)
    chunks = await engine.stream("/v1/chat/completions", ask | {"tool_choice": named})
    deltas = [chunk["choices"][0]["delta"] for chunk in chunks]
    calls = [delta["tool_calls"][0] for delta in deltas if "tool_calls" in delta]
    assert calls[0]["function"]["name"] == "look"
    assert "".join(part["function"]["arguments"] for part in calls) == call["function"]["arguments"]
    assert chunks[-1]["choices"][0]["finish_reason"] == "tool_calls"


async def test_the_official_client_understands_it(engine, base_url):
    openai = pytest.importorskip("openai")
    async with openai.AsyncOpenAI(base_url=f"{base_url}/v1", api_key="none") as client:
        model = (await client.models.list()).data[0].id
        answer = await client.chat.completions.create(model=model, messages=USER, max_tokens=9, extra_body={"rid": "x"})
        assert answer.id == "x"
        assert len(answer.choices[0].message.content) <= 9
        stream = await client.completions.create(model=model, prompt="abc", max_tokens=7, stream=True)
        assert len("".join([chunk.choices[0].text async for chunk in stream])) <= 7
        with pytest.raises(openai.BadRequestError, match="maximum context length"):
            await client.chat.completions.create(model=model, messages=USER, max_tokens=10**6)


BAD = [
    ("/v1/chat/completions", b"{oops", None, "no valid JSON"),
    ("/v1/chat/completions", b"\xff\xfe", None, "no valid JSON"),
    ("/v1/chat/completions", {}, "messages", "messages"),
    ("/v1/chat/completions", {"messages": []}, "messages", "length"),
    ("/v1/chat/completions", {"messages": USER, "max_tokens": "many"}, "max_tokens", "Expected `int"),
    ("/v1/chat/completions", {"messages": USER, "max_tokens": 0}, "max_tokens", ">= 1"),
    ("/v1/chat/completions", {"messages": USER, "max_tokens": 10**6}, "max_tokens", "lower max_tokens to"),
    ("/v1/chat/completions", {"messages": [{"role": "user", "content": 3}]}, "messages", "content must be"),
    ("/v1/chat/completions", {"messages": USER, "stop": ["x"]}, "stop", "leave it out"),
    ("/v1/chat/completions", {"messages": USER, "n": 2}, "n", "leave it out"),
    ("/v1/chat/completions", {"messages": USER, "tool_choice": "required"}, "tools", "tools is empty"),
    ("/v1/completions", {"prompt": "a" * 40_000}, "prompt", "shorten prompt"),
    ("/v1/completions", {"prompt": ""}, "prompt", "empty"),
    ("/v1/completions", {"prompt": [1, -1]}, "prompt", "token ids must be"),
    ("/generate", {}, "text", "exactly one of"),
    ("/abort_request", {}, "rid", "abort_all"),
    ("/open_session", {}, "capacity_of_str_len", "missing"),
]


async def test_bad_input_gets_the_openai_error_shape(engine):
    for path, body, param, message in BAD:
        error = (await engine.post(path, body, status=400))["error"]
        assert set(error) == {"message", "type", "param", "code"}
        assert error["param"] == param, (path, body, error)
        assert message in error["message"]
    assert "no such endpoint" in (await engine.post("/nowhere", {}, status=404))["error"]["message"]
    assert (await engine.post("/v1/models", {}, status=405))["error"]["type"] == "invalid_request_error"
    assert (await engine.load())["num_running_reqs"] == 0


async def until(condition):
    async with asyncio.timeout(10):
        while not await condition():
            await asyncio.sleep(0.01)


async def test_aborts_and_vanished_clients_free_the_engine(tmp_path):
    with running(tmp_path, speed="1") as url:
        async with aiohttp.ClientSession(url) as http:
            await aborts_and_vanished_clients(Engine(http))


async def aborts_and_vanished_clients(engine):
    ask = {"messages": USER, "max_tokens": 5000, "ignore_eos": True}
    aborted = asyncio.create_task(engine.post("/v1/chat/completions", ask | {"rid": "step-01"}))

    async def runs():
        return (await engine.load())["num_running_reqs"] == 1

    async def idle():
        return (await engine.load())["num_running_reqs"] == 0

    await until(runs)
    error = await engine.post("/v1/chat/completions", ask | {"rid": "step-01"}, status=400)
    assert "in use" in error["error"]["message"]
    assert await engine.post("/abort_request", {"rid": "step-"}) is None
    assert (await aborted)["choices"][0]["finish_reason"] == "abort"
    async with engine.http.post("/v1/chat/completions", json=ask | {"stream": True}) as answer:
        await answer.content.readline()
        await until(runs)
    await until(idle)
    whole = asyncio.create_task(engine.post("/v1/chat/completions", ask))
    await until(runs)
    whole.cancel()
    await until(idle)
    assert (await engine.load())["num_used_tokens"] == 0


async def test_sessions_flush_metrics_and_info(engine):
    opened = await engine.post("/open_session", {"capacity_of_str_len": 1000, "session_id": "mine"})
    assert opened == "mine"
    again = await engine.post("/open_session", {"capacity_of_str_len": 1, "session_id": "mine"}, 400)
    assert "still open" in again["error"]["message"]
    assert await engine.post("/close_session", {"session_id": "mine"}) is None
    assert await engine.post("/close_session", {"session_id": "never"}) is None
    await engine.post("/v1/completions", {"prompt": "abc" * 20, "max_tokens": 4})
    assert "flushed" in await engine.get("/flush_cache")
    page = await engine.get("/metrics")
    assert 'sglang:generation_tokens_total{model_name="meta-llama/Llama-3.1-8B-Instruct"}' in page
    assert "saga_engine_lag_seconds" in page
    (count,) = [line for line in page.splitlines() if line.startswith("sglang:e2e_request_latency_seconds_count")]
    assert float(count.rsplit(" ", 1)[1]) >= 1
    info = await engine.info()
    assert (info["version"], info["page_size"], info["context_length"]) == ("0.5.23", 16, 131072 // 4)
    assert info["max_total_num_tokens"] == 426752 // 4 // 16 * 16
    assert info["enable_session_radix_cache"] is True
    assert 0 <= info["internal_states"][0]["lag_p99_fraction"] < 1
    assert json.loads(await engine.get("/v1/models"))["data"][0]["id"] == info["model_path"]
    assert await engine.get("/health") == ""


async def test_kv_events_and_their_replay(tmp_path):
    with running(tmp_path, kv_tokens="256") as url:
        async with aiohttp.ClientSession(url) as http:
            await kv_events_and_their_replay(Engine(http))


async def kv_events_and_their_replay(engine):
    discovery = (await engine.info())["kv_events"]
    assert discovery["block_size"] == 16
    with zmq.asyncio.Context() as context, context.socket(zmq.SUB) as live, context.socket(zmq.DEALER) as replay:
        live.connect(f"tcp://{discovery['endpoint_host']}:{discovery['endpoint_port_base']}")
        live.subscribe(discovery["topic"].encode())
        replay.connect(f"tcp://{discovery['endpoint_host']}:{discovery['replay_endpoint_port_base']}")

        async def replayed(first):
            await replay.send(first.to_bytes(8, "big"))
            batches = []
            while True:
                topic, sequence, payload = await replay.recv_multipart()
                assert topic == discovery["topic"].encode()
                if sequence == END_OF_REPLAY:
                    return batches
                batches.append((int.from_bytes(sequence, "big"), payload))

        ((sequence, payload),) = await replayed(0)
        assert sequence == 0
        assert msgspec.msgpack.decode(payload)[1] == [{"type": "AllBlocksCleared"}]

        prompt = "abcdefgh" * 10
        ask = {"max_tokens": 17, "ignore_eos": True, "session_id": "s", "cache_salt": "t"}
        # A subscription takes effect some time after `subscribe`: ask until an event comes through.
        async with asyncio.timeout(20):
            number = 0
            while not await live.poll(100):
                number += 1
                await engine.post("/v1/completions", ask | {"prompt": f"{number}" + prompt})
        answer = await engine.post("/v1/completions", ask | {"prompt": prompt})
        text = prompt + answer["choices"][0]["text"]
        chain = PageChain(16, "t").extended(encode_text(text)[:-4])

        batches = await replayed(0)
        assert [sequence for sequence, _ in batches] == list(range(len(batches)))
        resident: dict[int, int | None] = {}
        tokens: dict[int, list[int]] = {}
        for _, payload in batches:
            for event in msgspec.msgpack.decode(payload, type=KvEventBatch).events:
                match event:
                    case BlockStored():
                        assert (event.medium, event.cache_salt, event.session_id) == ("GPU", "t", "s")
                        parent = event.parent_block_hash
                        assert parent is None or parent in resident
                        for index, page in enumerate(event.block_hashes):
                            resident[page] = parent
                            tokens[page] = event.token_ids[index * 16 : index * 16 + 16]
                            parent = page
                    case BlockRemoved():
                        for page in event.block_hashes:
                            del resident[page]
                    case AllBlocksCleared():
                        resident.clear()
        pages = hashes_to_int64(chain.hashes)
        assert len(pages) == 6
        assert set(pages) <= set(resident)
        assert [resident[page] for page in pages] == [None, *pages[:-1]]
        assert [token for page in pages for token in tokens[page]] == decode_ids(encode_text(text))[:96]

        missed = {}
        while await live.poll(200):
            _, sequence, payload = await live.recv_multipart()
            missed[int.from_bytes(sequence, "big")] = payload
        assert missed
        assert dict(batches) | missed == dict(batches)
        last = batches[-1][0]
        assert await replayed(last) == batches[-1:]
        assert await replayed(last + 1) == []


def test_an_unknown_setting_stops_the_start():
    environ = dict(os.environ) | {"SAGA_ENGINE_PROFILE": "tpu"}
    command = [sys.executable, "-m", "saga.engine"]
    ended = subprocess.run(command, env=environ, capture_output=True, text=True, timeout=20, check=False)
    assert ended.returncode == 2
    assert "unknown profile 'tpu'; known: a100x4-llama3-70b" in ended.stderr
    assert "Traceback" not in ended.stderr
