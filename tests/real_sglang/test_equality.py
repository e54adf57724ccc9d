"""The simulated engine is the real one: the same requests, one at a time, find the same pages cached and say the same.

What one at a time cannot prove: batching, retraction, timing. SAGA_TEST_EQUALITY_REQUESTS: how many in each sequence;
SAGA_TEST_EQUALITY_KEEP: a file to keep what the server said in (for tests/unit/engine/test_sglang_transcripts.py).
--log-cli-level=info says the figures of each sequence.
"""

import itertools
import logging
import os
import time
from pathlib import Path

import pytest
import pytest_asyncio
from engine_transcript import Transcript, digest, keep, mode_name, replayed
from engine_twin import FAMILIES, Close
from kv_tape import KvTape
from sglang_server import SglangServer, settings

from saga.cli.sglang import ports_for

pytestmark = pytest.mark.asyncio(loop_scope="module")
REQUESTS = int(os.environ.get("SAGA_TEST_EQUALITY_REQUESTS", "500"))
SEED = 7
_log = logging.getLogger(__name__)
MODES = {mode_name(eviction, tags=tags): (eviction, tags) for eviction in ("lru", "priority") for tags in (True, False)}


@pytest_asyncio.fixture(scope="module", loop_scope="module", params=MODES)
async def real(request, tmp_path_factory):
    """(server, what it says, its eviction policy, whether with session tags, its facts)."""
    eviction, tags = MODES[request.param]
    folder = tmp_path_factory.mktemp("equality")
    ports = ports_for(1)[0]
    flags = ("--load-format", "dummy", "--chunked-prefill-size", "512", "--radix-eviction-policy", eviction)
    made = settings(session_tags=tags, extra=flags)
    async with SglangServer(made, ports, folder) as server, KvTape(f"tcp://127.0.0.1:{ports.events}") as tape:
        await tape.joined(server.flush)
        yield server, tape, eviction, tags, await server.get("/server_info")


@pytest.mark.parametrize("family", FAMILIES)
async def test_the_same_requests_give_the_same_hits_and_events(real, family):
    server, tape, eviction, tags, info = real
    assert info["radix_eviction_policy"] == eviction
    begun_s = time.monotonic()
    heard = await transcript_of(server, tape, family, info, eviction=eviction, tags=tags)
    server_s = time.monotonic() - begun_s
    if path := os.environ.get("SAGA_TEST_EQUALITY_KEEP"):
        keep(Path(path), heard)

    cached_tokens, lines = replayed(heard)

    assert sum(heard.cached_tokens) > 10_000, "nothing was proven about hits"
    assert sum(line[0] == "remove" for line in tape.lines) > 100, "nothing was proven about eviction"
    differing = [
        f"request {number}: {ours} cached tokens, really {theirs}"
        for number, (ours, theirs) in enumerate(zip(cached_tokens, heard.cached_tokens, strict=True))
        if ours != theirs
    ]
    for at, (line, real_line) in enumerate(itertools.zip_longest(lines, tape.lines)):
        if line != real_line:
            differing.append(f"event {at}: {line}, really {real_line}")
            break
    figures = (heard.name, len(heard.cached_tokens), sum(heard.cached_tokens), heard.events, len(differing), server_s)
    _log.info("%s: %d requests, %d cached tokens, %d events, %d differences, %.0f s", *figures)
    assert not differing, f"{len(differing)} differences\n" + "\n".join([*differing[:5], differing[-1]])


async def transcript_of(server, tape, family, info, *, eviction, tags) -> Transcript:
    """Ask all of one sequence; the tape then holds its events alone."""
    await server.flush()
    await tape.settle()
    tape.lines.clear()
    sequence = FAMILIES[family](SEED, tags=tags)
    cached_tokens, answers = [], []
    for ask in sequence.asks(REQUESTS):
        if isinstance(ask, Close):
            status, said = await server.post("/close_session", {"session_id": ask.session})
            assert status == 200, said
            continue
        fields = {"session_id": ask.session or None, "cache_salt": ask.salt or None, "priority": ask.priority}
        said = await server.generate(ask.ids, ask.new_tokens, **fields)
        assert len(said["output_ids"]) == ask.new_tokens
        sequence.answered(ask, said["output_ids"])
        cached_tokens.append(said["meta_info"]["cached_tokens"])
        answers.append(said["output_ids"])
    await tape.settle()
    return Transcript(
        family=family,
        seed=SEED,
        tags=tags,
        kv_tokens=info["max_total_num_tokens"],
        page_tokens=info["page_size"],
        chunk_tokens=info["chunked_prefill_size"],
        cached_tokens=cached_tokens,
        answers=answers,
        events=len(tape.lines),
        events_sha256=digest(tape.lines),
        eviction=eviction,
    )
