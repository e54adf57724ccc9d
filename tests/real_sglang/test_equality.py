"""The simulated engine is the real one: the same requests, one at a time, find the same pages cached and say the same.

What one at a time cannot prove: batching, retraction, timing.
"""

import itertools
import os

import pytest
import pytest_asyncio
from engine_twin import FAMILIES, Close, Twin
from kv_tape import KvTape
from sglang_server import SglangServer, settings

from saga.cli.sglang import ports_for

pytestmark = pytest.mark.asyncio(loop_scope="module")
REQUESTS = int(os.environ.get("SAGA_TEST_EQUALITY_REQUESTS", "500"))


@pytest_asyncio.fixture(scope="module", loop_scope="module", params=["tags", "lru"])
async def real(request, tmp_path_factory):
    """(server, what it says, whether with session tags, its facts)."""
    tags = request.param == "tags"
    folder = tmp_path_factory.mktemp("equality")
    ports = ports_for(1)[0]
    made = settings(session_tags=tags, extra=("--load-format", "dummy", "--chunked-prefill-size", "512"))
    async with SglangServer(made, ports, folder) as server, KvTape(f"tcp://127.0.0.1:{ports.events}") as tape:
        await tape.joined(server.flush)
        yield server, tape, tags, await server.get("/server_info")


@pytest.mark.parametrize("family", FAMILIES)
async def test_the_same_requests_give_the_same_hits_and_events(real, family):
    server, tape, tags, info = real
    await server.flush()
    await tape.settle()
    tape.lines.clear()
    twin = Twin(
        kv_tokens=info["max_total_num_tokens"],
        page_tokens=info["page_size"],
        chunk_tokens=info["chunked_prefill_size"],
        session_tags=tags,
    )
    sequence = FAMILIES[family](seed=7, tags=tags)
    until: list[int] = []  # lines of the twin after each request
    differing: list[str] = []
    hit_tokens = prompt_tokens = 0
    for number, ask in enumerate(sequence.asks(REQUESTS)):
        if isinstance(ask, Close):
            await server.post("/close_session", {"session_id": ask.session})
            twin.close(ask.session)
        else:
            said = await server.generate(ask.ids, ask.new_tokens, session_id=ask.session or None)
            assert len(said["output_ids"]) == ask.new_tokens
            ours = twin.ask(ask, said["output_ids"])
            sequence.answered(ask, said["output_ids"])
            theirs = said["meta_info"]["cached_tokens"]
            hit_tokens += theirs
            prompt_tokens += len(ask.ids)
            if ours.cached_tokens != theirs:
                differing.append(f"request {number}: {ours.cached_tokens} cached tokens, really {theirs}")
        until.append(len(twin.lines))
    await tape.settle()

    evicted = sum(line[0] == "remove" for line in tape.lines)
    assert evicted > 200, "nothing was proven about eviction"
    assert hit_tokens > prompt_tokens / 10, "nothing was proven about hits"
    for at, (line, real_line) in enumerate(itertools.zip_longest(twin.lines, tape.lines)):
        if line != real_line:
            request = next((n for n, end in enumerate(until) if end > at), len(until))
            differing.append(f"event {at} (request {request}): {line}, really {real_line}")
            break
    assert not differing, f"{len(differing)} differences\n" + "\n".join(differing[:5] + differing[-1:])
