"""The gateway in front of the simulated engine: same pages, and the same text whatever dies on the way."""

import contextlib

import msgspec
import pytest
import zmq
import zmq.asyncio

from saga.engine.config import EngineConfig
from saga.engine.http_server import serving
from saga.engine.zmq_events import BlockStored, KvEventBatch
from saga.kv.pages import int64_to_hashes

PROMPT = "It was a dark and stormy night; the rain fell in torrents. " * 6
COMPLETION = {"model": "tiny", "prompt": PROMPT, "max_tokens": 60, "ignore_eos": True, "stream": True}
CHAT = {
    "model": "tiny",
    "messages": [{"role": "user", "content": PROMPT}],
    "max_tokens": 60,
    "ignore_eos": True,
    "stream": True,
}


@pytest.fixture
async def simulated():
    """Two simulated engines."""
    settings = EngineConfig(profile="h100x1-llama3-8b", page_tokens=16, model_name="tiny", speed=2.0)
    async with contextlib.AsyncExitStack() as stack:
        yield [await stack.enter_async_context(serving(settings)) for _ in range(2)]


@pytest.fixture
async def mesh(start, simulated):
    return await start(urls=tuple(one.url for one in simulated))


@pytest.mark.parametrize(("api", "body"), [("completions", COMPLETION), ("chat", CHAT)])
async def test_an_aborted_stream_goes_on_with_the_same_text(mesh, simulated, api, body):
    expected = mesh.text_of(await (await mesh.ask(body, api)).read())
    assert len(expected) == 60
    response = await mesh.ask({**body, "stream_options": {"include_usage": True}}, api)
    data = await response.content.readuntil(b"\n\n")
    simulated[0].engine.abort("")
    data += await response.read()
    assert mesh.text_of(data) == expected
    chunks = mesh.events(data)
    assert len({chunk["id"] for chunk in chunks}) == 1
    assert chunks[-1]["usage"]["completion_tokens"] == 60
    assert chunks[-1]["usage"]["prompt_tokens"] == mesh.leaders.steps[-1].prompt_tokens
    assert [step.attempt for step in mesh.leaders.steps] == [0, 0, 1]


@pytest.mark.parametrize(("api", "body"), [("completions", COMPLETION), ("chat", CHAT)])
async def test_our_pages_are_those_of_the_engines_events(mesh, simulated, api, body):
    context = zmq.asyncio.Context()
    try:
        asking = context.socket(zmq.DEALER)
        asking.setsockopt(zmq.LINGER, 0)
        asking.connect(f"tcp://127.0.0.1:{simulated[0].publisher.replay_port}")
        await (await mesh.ask(body, api)).read()
        await asking.send_multipart([b"", (0).to_bytes(8, "big")])
        stored = []
        while int.from_bytes((frames := await asking.recv_multipart())[-2], "big", signed=True) >= 0:
            batch = msgspec.msgpack.decode(frames[-1], type=KvEventBatch)
            stored += [value for one in batch.events if isinstance(one, BlockStored) for value in one.block_hashes]
    finally:
        context.destroy(linger=0)
    ours = mesh.leaders.steps[0].new_hashes
    assert len(ours) >= 8 * (len(PROMPT) // 16)
    assert int64_to_hashes(stored)[: len(ours)] == ours


async def test_usage_and_hits_of_a_second_step(mesh):
    body = {**COMPLETION, "stream": False}
    first = await (await mesh.ask(body, X_Saga_Session="s")).json()
    longer = PROMPT + first["choices"][0]["text"] + " And then?"
    await (await mesh.ask({**body, "prompt": longer}, X_Saga_Session="s")).json()
    finished = await mesh.leaders.until(type(await mesh.leaders.finished()), 2)
    assert finished[0].cached_tokens == 0
    assert finished[1].cached_tokens >= len(PROMPT) // 16 * 16
    assert finished[1].prompt_tokens == len(longer)
    assert mesh.leaders.steps[1].base_pages == len(PROMPT) // 16
