"""SAGA's eviction order inside an unmodified SGLang server: a valued prefix outlives a more recently used one."""

import asyncio
import mmap
import os
import sys
import time

import pytest
import pytest_asyncio
from engine_twin import Branching
from sglang_plugin import installed_in
from sglang_server import SglangServer, settings

from saga.cli.sglang import PLUGIN_POLICY, ports_for
from saga.contract.ids import SessionTag
from saga.worker.http_sglang import SglangHttp
from saga.worker.retention_ring import RetentionRing

pytestmark = pytest.mark.asyncio(loop_scope="module")
module_fixture = pytest_asyncio.fixture(scope="module", loop_scope="module")
PAGE_TOKENS = 16
PREFIX_TOKENS = 1_280  # three of them fit into the pool of 4,096 tokens, a fourth does not


@module_fixture
async def server(tmp_path_factory):
    folder = tmp_path_factory.mktemp("plugin")
    env = {"PYTHONPATH": installed_in(folder / "site")}
    async with SglangServer(settings(retention_dir=folder, env=env), ports_for(1)[0], folder) as server:
        yield server


@module_fixture
async def channel(server):
    """The file that the server made, as its agent finds and opens it."""
    info = await server.get("/server_info")
    assert info["radix_eviction_policy"] == PLUGIN_POLICY
    path = info["radix_eviction_policy_config"]["file"]
    with open(path, "r+b") as file, mmap.mmap(file.fileno(), 0) as memory:  # noqa: ASYNC230, PTH123 - small
        with memoryview(memory) as view:
            ring = RetentionRing(view)
            yield ring
            ring.beat(0.0)
            del ring._buffer


class Talk:
    """A session whose prefix may be evicted."""

    def __init__(self, server, seed: int) -> None:
        self.tag = SessionTag(f"talk-{seed}")
        self._server = server
        self._ids = Branching(seed, tags=False).tokens(PREFIX_TOKENS, PREFIX_TOKENS)

    async def say(self) -> int:
        """How many tokens of it were still cached."""
        answer = await self._server.generate(self._ids, 1, session_id=self.tag)
        return answer["meta_info"]["cached_tokens"]


async def three_talks_and_pressure(server, ring, values, seed, *, beat) -> list[bool]:
    """Three sessions one after the other, worth `values`, then a fourth that needs the room of one: who is left."""
    await server.flush()
    talks = [Talk(server, seed + number) for number in range(3)]
    for talk, value in zip(talks, values, strict=True):
        await talk.say()
        if value is not None:
            ring.set(talk.tag, value)
    ring.beat(time.monotonic() if beat else 0.0)
    await asyncio.sleep(0.05)
    await Talk(server, seed + 9).say()
    # Asking changes who is there: the most recent first, so that what is prefilled anew displaces the asked ones last.
    left = []
    for talk in talks:
        status, tree = await cached_now(server, talk)
        assert status == 200
        left.append(tree >= PREFIX_TOKENS - 2 * PAGE_TOKENS)
    return left


async def cached_now(server, talk) -> tuple[int, int]:
    """How much of a talk is cached, asked so that nothing is stored: one token more than nothing must be computed."""
    ids = talk._ids[: PREFIX_TOKENS - PAGE_TOKENS + 1]
    sampling = {"max_new_tokens": 1, "ignore_eos": True, "temperature": 0.0}
    status, said = await server.post("/generate", {"input_ids": ids, "sampling_params": sampling})
    return status, said["meta_info"]["cached_tokens"]


async def test_a_valued_prefix_outlives_a_more_recently_used_one(server, channel):
    left = await three_talks_and_pressure(server, channel, (5.0, 1.0, 3.0), 100, beat=True)

    assert left == [True, False, True], "the oldest and dearest stays, the least valued goes"


async def test_equal_or_unsaid_values_leave_lru(server, channel):
    assert await three_talks_and_pressure(server, channel, (2.0, 2.0, 2.0), 200, beat=True) == [False, True, True]
    assert await three_talks_and_pressure(server, channel, (None, None, None), 300, beat=True) == [False, True, True]


async def test_values_of_an_agent_that_is_gone_do_not_count(server, channel):
    assert await three_talks_and_pressure(server, channel, (5.0, 1.0, 3.0), 400, beat=False) == [False, True, True]


async def test_a_closed_tag_goes_before_any_value(server, channel):
    await server.flush()
    dear, cheap = Talk(server, 500), Talk(server, 501)
    for talk, value in ((dear, 9.0), (cheap, 0.5)):
        await talk.say()
        channel.set(talk.tag, value)
    channel.beat(time.monotonic())
    status, _ = await server.post("/close_session", {"session_id": dear.tag})
    assert status == 200
    await Talk(server, 502).say()
    await Talk(server, 503).say()

    assert (await cached_now(server, cheap))[1] > 0
    assert (await cached_now(server, dear))[1] == 0


async def test_the_agent_finds_the_channel_in_what_the_server_says(server):
    import aiohttp  # noqa: PLC0415 - for this alone

    async with aiohttp.ClientSession() as session:
        view = await SglangHttp(session, server.url).view()
    assert view.retention_file.endswith(f"retention-{server.ports.http}")
    assert view.version == "0.5.23"
    assert sys.platform == "linux"
    assert os.stat(view.retention_file).st_size > 0  # noqa: ASYNC240, PTH116 - small
