"""SAGA's eviction order inside an unmodified SGLang server: a valued prefix outlives a more recently used one."""

import asyncio
import mmap
import time
from pathlib import Path

import aiohttp
import pytest
import pytest_asyncio
from engine_twin import Branching, token_bytes
from kv_tape import REMOVE, KvTape, pages_in
from sglang_plugin import installed_in
from sglang_server import SglangServer, settings
from worker_listener import agent, finished, step_of, taken

from saga.cli.sglang import ports_for
from saga.contract.ids import RootId, SessionId, SessionTag, WorkerId
from saga.contract.messages import Forecast
from saga.contract.subjects import Subjects
from saga.kv.pages import hash_pages
from saga.runtime.bus_nats import NatsBus
from saga.runtime.nats_server import NatsServer
from saga.worker.http_sglang import PROVEN_VERSION, SglangHttp
from saga.worker.retention_ring import RetentionRing

pytestmark = pytest.mark.asyncio(loop_scope="module")
module_fixture = pytest_asyncio.fixture(scope="module", loop_scope="module")
PAGE_TOKENS = 16
TALK_TOKENS = 1_280  # three of them fit into the pool of 4,096 tokens; each one more needs the room of one


@module_fixture
async def server(tmp_path_factory):
    folder = tmp_path_factory.mktemp("plugin")
    env = {"PYTHONPATH": installed_in(folder / "site")}
    async with SglangServer(settings(retention_dir=folder, env=env), ports_for(1)[0], folder) as server:
        yield server


@module_fixture
async def view(server):
    """What the agent learns of the server."""
    async with aiohttp.ClientSession() as session:
        return await SglangHttp(session, server.url).view()


@module_fixture
async def ring(view):
    """The channel that the server made, opened as its agent does."""
    with Path(view.retention_file).open("r+b") as file:  # noqa: ASYNC230 - a small one
        return RetentionRing(memoryview(mmap.mmap(file.fileno(), 0)))


@pytest_asyncio.fixture(loop_scope="module")
async def tape(server):
    async with KvTape(f"tcp://127.0.0.1:{server.ports.events}") as tape:
        await tape.joined(server.flush)
        yield tape


class Talks:
    """Sessions of one long prompt each, and the order in which the server forgets them."""

    def __init__(self, server, tape, seed: int) -> None:
        self._server = server
        self._tape = tape
        self._family = Branching(seed, tags=False)
        self._name_of_page: dict[bytes, str] = {}
        self.tags: dict[str, SessionTag] = {}
        self._seed = seed

    async def say(self, *names: str) -> None:
        """One prompt of its own for each."""
        for name in names:
            ids = self._family.tokens(TALK_TOKENS, TALK_TOKENS)
            self.tags[name] = SessionTag(f"{name}-{self._seed}")
            for page in pages_in(hash_pages(token_bytes(ids), PAGE_TOKENS)):
                self._name_of_page[page] = name
            await self._server.generate(ids, 1, session_id=self.tags[name])

    async def forgotten(self) -> list[str]:
        """So far, in order."""
        await self._tape.settle()
        return list(dict.fromkeys(self._name_of_page[page] for what, page, *_ in self._tape.lines if what == REMOVE))


async def value(ring: RetentionRing, talks: Talks, *, beat: bool = True, **values: float) -> None:
    """As a live agent, or one that said its word and died, would say it."""
    for name, worth in values.items():
        assert ring.set(talks.tags[name], worth)
    ring.beat(time.monotonic() if beat else 0.0)
    await asyncio.sleep(0.05)  # the policy looks at the channel every 5 ms


async def test_the_agent_learns_of_the_plugin(server, view):
    assert Path(view.retention_file).name == "retention-0"
    assert view.version == PROVEN_VERSION


async def test_a_valued_prefix_outlives_a_more_recently_used_one(server, ring, tape):
    talks = Talks(server, tape, 100)
    await talks.say("oldest", "middle", "youngest")
    await value(ring, talks, oldest=5.0, middle=3.0, youngest=1.0)

    await talks.say("next")
    assert await talks.forgotten() == ["youngest"]

    await value(ring, talks, next=9.0)
    await talks.say("after")
    assert await talks.forgotten() == ["youngest", "middle"]


async def test_equal_and_unsaid_values_leave_lru(server, ring, tape):
    talks = Talks(server, tape, 200)
    await talks.say("a", "b", "c")
    await value(ring, talks, a=2.0, b=2.0, c=2.0)
    await talks.say("d")
    await value(ring, talks, d=2.0)
    await talks.say("e")
    assert await talks.forgotten() == ["a", "b"]


async def test_values_of_an_agent_that_is_gone_do_not_count(server, ring, tape):
    talks = Talks(server, tape, 300)
    await talks.say("a", "b", "c")
    await value(ring, talks, beat=False, a=5.0, b=3.0, c=1.0)

    await talks.say("d", "e")

    assert await talks.forgotten() == ["a", "b"]


async def test_a_closed_tag_goes_before_any_value(server, ring, tape):
    talks = Talks(server, tape, 400)
    await talks.say("a", "closed", "c")
    await value(ring, talks, a=0.1, closed=9.0, c=0.2)
    status, _ = await server.post("/close_session", {"session_id": talks.tags["closed"]})
    assert status == 200

    await talks.say("d")

    assert await talks.forgotten() == ["closed"]


def foretold(name: str, worker: WorkerId, gap_s: float) -> Forecast:
    """What graph says of the gap after a step."""
    return Forecast(
        root=RootId("r"),
        session=SessionId(f"session-{name}"),
        step_id=step_of(name),
        worker_id=worker,
        returns=0.9,
        gap_p50_s=gap_s,
        gap_p90_s=2 * gap_s,
        gap_p95_s=3 * gap_s,
        gap_p99_s=3 * gap_s,
        new_tokens=10.0,
        remaining_steps=3.0,
        remaining_engine_s=1.0,
        samples=10,
    )


async def test_a_forecast_decides_who_is_evicted_through_the_agent(server, tape, tmp_path, until):
    """From graph's word over NATS to the scheduler: who is to return soon outlives who was here last."""
    worker, subjects = WorkerId("values"), Subjects("main")
    talks = Talks(server, tape, 500)
    nats = NatsServer(tmp_path / "nats")
    await nats.start()
    child = agent(worker, server.url, nats.url, tmp_path, retention="values")
    await child.start()
    supervision = asyncio.create_task(child.supervise())
    bus = await NatsBus.connect(nats.url, name="test", cell="main")
    beats = []
    await bus.subscribe(subjects.worker_presence(), lambda incoming: beats.append(incoming.message))
    await until(lambda: beats, 60)
    await talks.say("a", "b", "c")

    for name, gap_s in (("a", 20.0), ("b", 200.0), ("c", 2_000.0)):
        await bus.publish(subjects.lease(worker), taken(name, worker, talks.tags[name]))
        await bus.publish(subjects.step_finished(worker), finished(name, worker))
        await bus.publish(subjects.forecast(worker), foretold(name, worker, gap_s))
    await bus.barrier()
    await until(lambda: any(getattr(beat, "open_session_tags", 0) == 3 for beat in beats))

    await talks.say("d")
    await talks.say("e")
    forgotten = await talks.forgotten()
    await bus.close()
    await child.stop()
    await supervision
    await nats.stop()
    # d and e were never forecast: worth nothing, d goes before e comes to the valued ones.
    assert forgotten == ["c", "d"]
