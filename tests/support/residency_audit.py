"""Is what the index claims for a worker what its engine has? Both ways, page by page and prompt by prompt.

A `Scene` is one engine, its agent as a process, and the index as placement has it, fed from the bus. The engine is
asked twice: by its own account of its cache, and by `cached_tokens` of requests that repeat what was said.
"""

import asyncio
import signal
import time
from contextlib import AsyncExitStack
from pathlib import Path
from random import Random

from audited_engine import EngineAccount, Front
from engine_twin import token_bytes
from kv_tape import pages_in
from msgspec import Struct
from sglang_server import SglangServer
from worker_listener import Listener, agent

from saga.contract.ids import WorkerId
from saga.contract.messages import Heartbeat, ResidencyDelta, WorkerLeaving
from saga.kv.pages import hash_pages
from saga.kv.residency import ResyncNeeded
from saga.kv.tokens import decode_ids, encode_text
from saga.runtime.bus import Incoming
from saga.runtime.bus_nats import NatsBus

PAGE_TOKENS = 16
LOOK_S = 0.01
SETTLE_S = 0.1  # an engine says what it did a moment after it has answered
WORDS = range(5, 261)  # tokens of bytes, to real and simulated engines alike


class AuditListener(Listener):
    """The index as placement has it, and how old the news was when it was taken in."""

    def __init__(self, bus: NatsBus, worker: WorkerId) -> None:
        super().__init__(bus, worker)
        self.staleness_s: list[float] = []

    async def _residency(self, incoming: Incoming) -> None:
        await super()._residency(incoming)
        delta = incoming.message
        if isinstance(delta, ResidencyDelta) and delta.published_at:
            self.staleness_s.append(time.time() - delta.published_at)

    async def _presence(self, incoming: Incoming) -> None:
        await super()._presence(incoming)
        message = incoming.message
        if isinstance(message, WorkerLeaving) and message.engine_died:
            self.index.drop_worker(self.worker)
        elif isinstance(message, Heartbeat) and self.worker in self.index.stale_workers():
            await self._wish(ResyncNeeded(self.worker, *self.index.position(self.worker)))


class Workload:
    """Sessions that grow, begin alike, branch off one another and are given up, several at a time."""

    SESSIONS, BEGINNINGS, LONGEST = 12, 3, 1_000

    def __init__(self, seed: int) -> None:
        self.random = Random(seed)
        self.beginnings = [self.words(150, 350) for _ in range(self.BEGINNINGS)]
        self.sessions: list[list[int]] = [[] for _ in range(self.SESSIONS)]
        self.said: list[list[int]] = []  # every prompt with its answer

    def words(self, least: int, most: int) -> list[int]:
        """A text that nobody said before."""
        return self.random.choices(WORDS, k=self.random.randint(least, most))

    def prompt(self, number: int) -> list[int]:
        """The next of a session."""
        ids = self.sessions[number]
        what = self.random.randrange(12)
        if not ids or len(ids) > self.LONGEST or what == 0:
            ids = self.random.choice(self.beginnings)
        elif what == 1:  # one that leaves another's path anywhere
            ids = ids[: self.random.randint(1, len(ids))]
        return ids + self.words(10, 200)

    async def run(self, engine: SglangServer, requests: int, at_once: int = 3) -> None:
        """So many requests, each session one at a time."""
        numbers, free = iter(range(requests)), list(range(self.SESSIONS))

        async def client() -> None:
            for _ in numbers:
                number = free.pop(self.random.randrange(len(free)))
                prompt = self.prompt(number)
                tag = {"session_id": f"session-{number}"} if number % 2 else {}
                answer = await engine.generate(prompt, self.random.choice((1, 5, 16, 40)), **tag)
                self.sessions[number] = prompt + words_of(answer)
                self.said.append(self.sessions[number])
                free.append(number)

        await asyncio.gather(*(client() for _ in range(at_once)))


def words_of(answer: dict) -> list[int]:
    """The tokens of an answer; the simulated engine says them as text alone, a byte each."""
    return answer.get("output_ids") or decode_ids(encode_text(answer["text"]))


def pages_of(ids: list[int]) -> bytes:
    """Hashes of the full pages."""
    return hash_pages(token_bytes(ids), PAGE_TOKENS)


class Audit(Struct, frozen=True):
    """What was found. Nothing is wrong when the last five are 0."""

    prompts: int
    probes: int
    claimed_pages: int
    evicted_pages: int
    probed_hit_tokens: int
    claimed_in_vain: int  # pages claimed that the engine's own account lacks
    not_claimed: int  # pages of that account which are not claimed
    without_beginning: int  # pages claimed, though a page before them in their chain is not
    probed_shorter: int  # prompts of which the engine had less than was claimed
    probed_longer: int  # and more

    @property
    def wrong(self) -> int:
        """Everything that should not be."""
        counts = (self.claimed_in_vain, self.not_claimed, self.without_beginning)
        return sum(counts) + self.probed_shorter + self.probed_longer


class Scene:
    """One engine that serves already, and what follows it. `async with` begins when the agent has attached."""

    def __init__(self, engine: SglangServer, nats_url: str, folder: Path, seed: int = 1) -> None:
        self.engine = engine
        self.workload = Workload(seed)
        self.worker = WorkerId("audited")
        self.front = Front(engine)
        self.agent_start_s: list[float] = []
        self._nats_url = nats_url
        self._folder = folder

    async def __aenter__(self):
        async with AsyncExitStack() as stack:
            await stack.enter_async_context(self.front)
            bus = await NatsBus.connect(self._nats_url, name="audit", cell="main")
            stack.push_async_callback(bus.close)
            self.listener = AuditListener(bus, self.worker)
            await self.listener.listen()
            self.account = EngineAccount(self.engine.ports)
            stack.callback(self._close_account)
            self.agent = agent(self.worker, self.front.url, self._nats_url, self._folder)
            await self.agent.start()
            supervision = asyncio.create_task(self.agent.supervise())
            stack.push_async_callback(asyncio.wait, [supervision])
            stack.push_async_callback(self.agent.stop)
            await self.until(lambda: self.listener.hellos, 60)
            self._stack = stack.pop_all()
        return self

    async def __aexit__(self, *_) -> None:
        await self._stack.aclose()

    def _close_account(self) -> None:
        self.account.close()

    async def until(self, condition, within_s: float) -> None:
        """Waits for what another process does."""
        async with asyncio.timeout(within_s):
            while not condition():
                await asyncio.sleep(LOOK_S)

    async def right(self, within_s: float = 20.0) -> float:
        """Returns when the index claims what the engine has: the seconds that took. TimeoutError if it never does."""
        begun_s = time.monotonic()
        async with asyncio.timeout(within_s):
            while self.listener.index.stale(self.worker) or self.listener.claims() != await self.account.refresh():
                await asyncio.sleep(LOOK_S)
        return time.monotonic() - begun_s

    async def quiet(self) -> None:
        """Returns when the engine has said all that it has to say, and the index is right."""
        said = -1
        while said != (said := len(await self.account.refresh()) + self.account.removed):
            await asyncio.sleep(SETTLE_S)
        await self.right()

    # The audit

    async def audit(self, probes: int = 30) -> Audit:
        """Compare, once the engine is idle. Probing changes the cache, so each probe is compared with what was claimed
        just before it, after the index has followed the one before."""
        await self.quiet()
        claims, held = self.listener.claims(), await self.account.refresh()
        without_beginning = set[bytes]()
        for ids in self.workload.said:
            pages = pages_in(pages_of(ids))
            absent = next((n for n, page in enumerate(pages) if page not in claims), len(pages))
            without_beginning |= claims.intersection(pages[absent:])
        vain, missing, evicted = len(claims - held), len(held - claims), self.account.removed
        shorter = longer = hits = 0
        for ids in self._probed(probes):
            await self.quiet()
            claimed_tokens = self.listener.claimed_pages(pages_of(ids[:-1])) * PAGE_TOKENS
            answer = await self.engine.generate(ids, 1)  # one token of a prompt is always computed
            cached_tokens = answer["meta_info"]["cached_tokens"]
            shorter += cached_tokens < claimed_tokens
            longer += cached_tokens > claimed_tokens
            hits += cached_tokens
        counts = (vain, missing, len(without_beginning), shorter, longer)
        return Audit(len(self.workload.said), probes, len(claims), evicted, hits, *counts)

    def _probed(self, count: int) -> list[list[int]]:
        """Whole transcripts and beginnings of them, new and long forgotten."""
        random, said = self.workload.random, self.workload.said
        whole = [random.choice(said) for _ in range(count)]
        return [ids if n % 2 else ids[: random.randint(2, len(ids))] for n, ids in enumerate(whole)]

    # Deaths: each returns the seconds from the return of what died until the index is right again; requests in between
    # count in full

    async def event_stream_dies(self, requests: int = 8) -> float:
        """The connection of events breaks while the cache changes."""
        await self.front.line.cut()
        await self.workload.run(self.engine, requests)
        assert self.listener.claims() != await self.account.refresh(), "nothing was missed"
        await self.front.line.mend()
        return await self.right()

    async def agent_dies(self, requests: int = 8) -> float:
        """SIGKILL, while the cache changes; it returns with its hello, `agent_start_s` after its process began."""
        pid = self.agent.pid
        self.agent.signal(signal.SIGKILL)
        changing = asyncio.create_task(self.workload.run(self.engine, requests))
        hellos = len(self.listener.hellos)
        await self.until(lambda: self.agent.pid not in (None, pid), 20)
        begun_s = time.monotonic()
        await self.until(lambda: len(self.listener.hellos) > hellos, 60)
        self.agent_start_s.append(time.monotonic() - begun_s)
        begun_s = time.monotonic()
        await changing
        await self.right()
        return time.monotonic() - begun_s

    async def engine_dies(self, requests: int = 3) -> float:
        """SIGKILL; it returns when it answers, with nothing cached, and is asked at once."""
        lives = len(self.engine.child.exits) + 1
        self.engine.child.signal(signal.SIGKILL)
        await self.until(lambda: len(self.engine.child.exits) == lives, 20)
        await self.engine.ready(lives=lives)
        begun_s = time.monotonic()
        self.account.close()
        self.account = EngineAccount(self.engine.ports)
        await self.workload.run(self.engine, requests)
        await self.right()
        return time.monotonic() - begun_s
