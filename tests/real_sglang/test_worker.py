"""A worker agent beside a real SGLang server: what it makes of it, through replay, aborts, tags and the engine's death.

One server for the whole file; the last test kills it.
"""

import asyncio
import signal

import aiohttp
import pytest
import pytest_asyncio
import zmq.asyncio
from engine_twin import Branching, token_bytes
from kv_tape import REMOVE, STORE, KvTape
from msgspec.structs import replace
from sglang_server import MODEL, SglangServer, settings
from worker_listener import SUBJECTS, Listener, agent, finished, step_of, taken

from saga.cli.sglang import ports_for
from saga.contract.ids import SessionId, WorkerId, rid
from saga.contract.messages import PagesStored
from saga.kv.pages import hash_pages
from saga.runtime.bus_nats import NatsBus
from saga.runtime.nats_server import NatsServer
from saga.worker.events import KvEvents, KvEventsLost
from saga.worker.http_sglang import SglangHttp
from saga.worker.zmq_events import KvEventStream

pytestmark = pytest.mark.asyncio(loop_scope="module")
PAGE_TOKENS = 16
KV_TOKENS = 4_096
module_fixture = pytest_asyncio.fixture(scope="module", loop_scope="module")
fixture = pytest_asyncio.fixture(loop_scope="module")


@module_fixture
async def server(tmp_path_factory):
    async with SglangServer(settings(), ports_for(1)[0], tmp_path_factory.mktemp("sglang")) as server:
        yield server


@module_fixture
async def nats(tmp_path_factory):
    server = NatsServer(tmp_path_factory.mktemp("nats"))
    await server.start()
    yield server
    await server.stop()


@module_fixture
async def http(server):
    async with aiohttp.ClientSession() as session:
        yield SglangHttp(session, server.url)


@fixture
async def attached(request, server, nats, tmp_path, until):
    """(agent process, what placement would know of it), on an empty cache."""
    worker = WorkerId(request.node.name[:60].replace("[", "-").replace("]", ""))
    bus = await NatsBus.connect(nats.url, name="test", cell="main")
    listener = Listener(bus, worker)
    await listener.listen()
    await server.flush()
    child = agent(worker, server.url, nats.url, tmp_path, retention="tags", tag_ttl_s="1.5")
    await child.start()
    supervision = asyncio.create_task(child.supervise())
    await until(lambda: listener.hellos, 60)
    yield child, listener
    await child.stop()
    await supervision
    await bus.close()
    listener.index.check()


def text(seed: int, tokens: int) -> list[int]:
    """Token ids of a prompt of its own."""
    return Branching(seed, tags=False).tokens(tokens, tokens)


def pages_of(ids: list[int]) -> bytes:
    return hash_pages(token_bytes(ids), PAGE_TOKENS)


async def cached_tokens(server, ids) -> int:
    return (await server.generate(ids, 1))["meta_info"]["cached_tokens"]


async def test_the_agent_reads_what_the_engine_is(server, http):
    view = await http.view()

    facts = view.facts
    assert (facts.model, facts.page_tokens, facts.kv_tokens) == (MODEL.name, PAGE_TOKENS, KV_TOKENS)
    assert (facts.context_tokens, facts.session_tags) == (131_072, True)
    assert facts.max_running > 1
    assert (facts.speed, facts.shrink) == (1.0, 1)
    ports = server.ports
    assert view.events_endpoint == f"tcp://127.0.0.1:{ports.events}"
    assert view.replay_endpoint == f"tcp://127.0.0.1:{ports.replay}"
    assert view.topic == "kv"
    assert await http.view() == view, "a later look would be taken for another engine"


async def test_load_is_seen_and_an_abort_by_rid_ends_that_request_alone(server, http):
    rids = [rid(step_of(name), 0) for name in "ab"]
    asked = [asyncio.create_task(server.generate(text(n, 64), 2_000 if n else 150, rid=r)) for n, r in enumerate(rids)]
    async with asyncio.timeout(20):
        while (load := await http.load()).running < 2:
            await asyncio.sleep(0.01)
    assert load.used_tokens > 128

    await http.abort(rids[1])

    short, endless = await asyncio.gather(*asked)
    assert short["meta_info"]["finish_reason"] == {"type": "length", "length": 150}
    assert endless["meta_info"]["finish_reason"]["type"] == "abort"
    assert endless["meta_info"]["completion_tokens"] < 2_000
    async with asyncio.timeout(5):
        while (await http.load()).running:
            await asyncio.sleep(0.02)


async def test_claims_are_what_the_engine_has_under_pressure(attached, server, until):
    _child, listener = attached
    hello = listener.hellos[0]
    assert (hello.pool, hello.page_tokens, hello.kv_tokens) == (MODEL.name, PAGE_TOKENS, KV_TOKENS)
    assert hello.session_tags
    held: set[bytes] = set()
    family = Branching(11, tags=False)
    async with KvTape(f"tcp://127.0.0.1:{server.ports.events}") as tape:
        await tape.joined(server.flush)
        for ask in family.asks(60):
            family.answered(ask, (await server.generate(ask.ids, ask.new_tokens))["output_ids"])
        await tape.settle()
        for what, page, _before, _session in tape.lines:
            if what == STORE:
                held.add(page)
            elif what == REMOVE:
                held.remove(page)
    assert sum(line[0] == REMOVE for line in tape.lines) > 100

    await until(lambda: listener.claims() == held, 5)

    for ids, _session in family.trunks:  # and the engine itself says so, prompt by prompt
        claimed = listener.claimed_pages(pages_of(ids[:-1]))
        assert await cached_tokens(server, ids) == claimed * PAGE_TOKENS
        await until(lambda ids=ids: listener.claimed_pages(pages_of(ids)) == len(ids) // PAGE_TOKENS, 5)
    assert listener.resyncs == 0


async def test_an_agent_that_was_killed_learns_what_it_missed(attached, server, until):
    child, listener = attached
    before, meanwhile = text(21, 320), text(22, 320)
    await server.generate(before)
    await until(lambda: listener.claimed_pages(pages_of(before)) == 20)
    child.signal(signal.SIGKILL)
    await server.generate(meanwhile)

    await until(lambda: len(listener.hellos) == 2, 60)
    await until(lambda: listener.claimed_pages(pages_of(meanwhile)) == 20, 5)
    assert listener.claimed_pages(pages_of(before)) == 20
    assert listener.hellos[1].epoch > listener.hellos[0].epoch


class LossyStream(KvEventStream):
    """Loses the next `lose` live messages."""

    lose = 0

    async def _next(self, idle_s):
        frames = await super()._next(idle_s)
        while frames is not None and self.lose:
            self.lose -= 1
            frames = await super()._next(idle_s)
        return frames


@pytest.mark.parametrize("with_replay", [True, False])
async def test_a_gap_is_replayed_or_owned_up_to(with_replay, server, http):
    view = await http.view()
    context = zmq.asyncio.Context()
    stream = LossyStream(context, view.events_endpoint, view.replay_endpoint if with_replay else "", view.topic)
    heard: list[KvEvents | KvEventsLost] = []

    async def follow():
        async for event in stream.follow():
            heard.append(event)  # noqa: PERF401 - it never ends

    def stored() -> bytes:
        changes = [change for event in heard if isinstance(event, KvEvents) for change in event.changes]
        return b"".join(change.hashes for change in changes if isinstance(change, PagesStored))

    async def said(ids) -> bool:
        await server.generate(ids)
        for _ in range(100):
            if pages_of(ids) in stored():
                return True
            await asyncio.sleep(0.02)
        return False

    following = asyncio.create_task(follow())
    first, lost, last = (text(30 + n + 10 * with_replay, 160) for n in range(3))
    try:
        assert await said(first)
        stream.lose = 1
        await server.generate(lost)
        assert await said(last)
        assert (pages_of(lost) in stored()) == with_replay
        assert any(isinstance(event, KvEventsLost) for event in heard) == (not with_replay)
    finally:
        following.cancel()
        stream.close()
        context.destroy(linger=0)


async def test_a_lease_that_nobody_renews_is_aborted_on_the_engine(attached, server, until):
    _child, listener = attached
    asked = asyncio.create_task(server.generate(text(41, 64), 3_500, rid=rid(step_of("c"), 0), session_id="tag-c"))
    await listener.bus.publish(SUBJECTS.lease(listener.worker), taken("c", listener.worker, "tag-c", lease_ttl_s=0.5))

    said = await asyncio.wait_for(asked, 30)

    assert said["meta_info"]["finish_reason"]["type"] == "abort"
    await until(lambda: [message.lease_id for message in listener.released] == ["lease-c"])


async def test_a_tag_protects_its_session_until_the_agent_closes_it(attached, server, until):
    _child, listener = attached
    kept, filler = text(51, 800), [text(60 + n, 1_000) for n in range(8)]
    await listener.bus.publish(SUBJECTS.lease(listener.worker), taken("d", listener.worker, "tag-d", lease_ttl_s=60.0))
    await server.generate(kept, session_id="tag-d")
    for ids in filler[:4]:
        await server.generate(ids)
    assert await cached_tokens(server, kept) == 49 * PAGE_TOKENS, "older than the filler, yet kept"

    await listener.bus.publish(SUBJECTS.step_finished(listener.worker), finished("d", listener.worker))
    await until(lambda: listener.beats[-1].open_session_tags == 1)
    await until(lambda: listener.beats[-1].open_session_tags == 0)

    for ids in filler[4:]:
        await server.generate(ids)
    assert await cached_tokens(server, kept) == 0


async def test_a_superseded_branch_goes_first_and_the_prefix_it_shared_stays(attached, server, until):
    """Its session goes on under a fresh tag; the agent closes the old one when the first step under it has ended."""
    _child, listener = attached
    shared, dead, alive = text(111, 400), text(112, 800), text(113, 400)
    bus, worker = listener.bus, listener.worker

    async def begins(name: str, tag: str) -> None:
        of_one_session = replace(taken(name, worker, tag, lease_ttl_s=60.0), session=SessionId("compacted"))
        await bus.publish(SUBJECTS.lease(worker), of_one_session)

    async def ends(name: str) -> None:
        await bus.publish(SUBJECTS.step_finished(worker), finished(name, worker))

    await begins("a", "tag-long")
    await server.generate(shared + dead, session_id="tag-long")
    await ends("a")
    await begins("b", "tag-short")
    await begins("c", "tag-short")  # goes on, so that the fresh tag stays open while we look
    await until(lambda: listener.beats[-1].open_session_tags == 2)
    await server.generate(shared + alive, session_id="tag-short")
    await ends("b")
    await until(lambda: listener.beats[-1].open_session_tags == 1)

    for n in range(4):
        await server.generate(text(114 + n, 1_000))

    assert await cached_tokens(server, shared + alive) == 49 * PAGE_TOKENS
    assert await cached_tokens(server, shared + dead) == 25 * PAGE_TOKENS
    await ends("c")


async def test_what_an_aborted_request_computed_is_cached_but_carries_no_tag(server, http):
    await server.flush()
    ids, name = text(81, 800), rid(step_of("e"), 0)
    asked = asyncio.create_task(server.generate(ids, 3_000, rid=name, session_id="tag-e"))
    async with asyncio.timeout(20):
        while not (await http.load()).running:
            await asyncio.sleep(0.01)
    await http.abort(name)
    assert (await asked)["meta_info"]["finish_reason"]["type"] == "abort"
    assert await cached_tokens(server, ids) == 49 * PAGE_TOKENS

    for n in range(5):
        await server.generate(text(90 + n, 1_000))

    assert await cached_tokens(server, ids) == 0


async def test_a_request_without_output_is_cached_and_says_nothing(server):
    """As the gateway sends it to load a session's KV ahead."""
    await server.flush()
    ids = text(85, 800)

    said = await server.generate(ids, 0, priority=-1)

    assert (said["meta_info"]["completion_tokens"], said["text"]) == (0, "")
    assert await cached_tokens(server, ids) == 49 * PAGE_TOKENS


async def test_another_life_of_the_engine_is_another_epoch(attached, server, until):
    _child, listener = attached
    before, after = text(71, 320), text(72, 320)
    await server.generate(before)
    await until(lambda: listener.claimed_pages(pages_of(before)) == 20)

    server.child.signal(signal.SIGKILL)

    await until(lambda: listener.leavings)
    assert listener.leavings[0].engine_died
    await server.ready(lives=1)
    await until(lambda: len(listener.hellos) == 2)
    assert listener.hellos[1].epoch > listener.hellos[0].epoch
    await server.generate(after)
    await until(lambda: listener.claimed_pages(pages_of(after)) == 20, 5)
    assert listener.claimed_pages(pages_of(before)) == 0
    assert await cached_tokens(server, before) == 0
