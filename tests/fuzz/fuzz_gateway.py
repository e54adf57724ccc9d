"""A whole gateway in memory: its HTTP server, desk and core, with leaders that grant and engines that answer.

`open_gateway` gives a `Gateway`; `asked` sends one request over a connection of its own and says what came of it.
"""

import asyncio
import logging
import sys
import time
import traceback
import zlib
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from itertools import count
from pathlib import Path
from typing import Any, Final

import structlog
from fuzz_engine import FuzzEngine
from fuzz_requests import Sent
from fuzz_transport import Answer, ClientSide, EngineSide

from saga.contract.ids import GatewayId, LeaseId, PoolId, RootId, SessionTag, TenantId, WorkerId
from saga.contract.messages import (
    Accepted,
    Grant,
    GraphAnswer,
    GraphAsk,
    Heartbeat,
    LeaderHello,
    Refused,
    StepReady,
    WorkerHello,
    WorkflowDeclared,
)
from saga.contract.subjects import Subjects
from saga.contract.workflow_messages import WorkflowFacts
from saga.gateway.config import GatewaySettings
from saga.gateway.http_connection import Connection
from saga.gateway.http_desk import Desk
from saga.gateway.http_engine import EngineClient
from saga.gateway.http_server import HttpServer
from saga.gateway.prompt_tokens import Tokenizer
from saga.gateway.tenants import Tenants
from saga.runtime.bus import Incoming
from saga.runtime.bus_memory import MemoryBus
from saga.runtime.memory_broker import MemoryBroker

SUBJECTS: Final = Subjects()
GATEWAY: Final = GatewayId("fuzz")
HUNG_AFTER_S: Final = 20.0
SLOW_FOR_S: Final = 0.02
BEAT_EVERY_S: Final = 0.5
CHAIN_BYTES: Final = 4_000_000
REFUSE_ONE_IN: Final = 50


class MemoryEngines(EngineClient):
    """The gateway's engine client over memory in place of sockets."""

    def __init__(self, engine: FuzzEngine) -> None:
        super().__init__(1.0)
        self._fuzzed = engine

    async def _connect(self, engine: Any) -> Connection:
        connection = Connection(engine.put)
        EngineSide(connection, self._fuzzed.serve)
        return connection


class ForgetfulBroker(MemoryBroker):
    """Keeps no step stream: it would grow, and nobody reads it here."""

    def store(self, subject: str, payload: bytes, message_id: str) -> int:
        """As MemoryBroker."""
        del subject, payload, message_id
        return 1


class Leaders:
    """Accepts each step, but for a few, and grants it at once."""

    def __init__(self, bus: MemoryBus) -> None:
        self._bus = bus
        self._leases = count(1)
        self.steps = 0

    async def start(self) -> None:
        """Subscribes, and says hello."""
        await self._bus.subscribe(SUBJECTS.step_ready(), self._ready)
        await self._bus.subscribe(SUBJECTS.workflow_declared(), self._graph)
        await self._bus.subscribe(SUBJECTS.graph_ask(), self._graph)
        for service in ("admission", "placement"):
            await self._bus.publish(SUBJECTS.leader_hello(), LeaderHello(service=service, fence=1))
        await self.beat()

    async def beat(self) -> None:
        """The one worker is well."""
        worker = WorkerHello(
            worker_id=WorkerId("w0"),
            engine_url="http://engine:1",
            pool=PoolId("tiny"),
            epoch=1,
            page_tokens=16,
            kv_tokens=100_000,
            context_tokens=20_000,
            max_running=8,
            session_tags=True,
            speed=1.0,
            shrink=1,
        )
        beat = Heartbeat(worker=worker, healthy=True, running=0, waiting=0, used_tokens=0, residency_seq=0)
        await self._bus.publish(SUBJECTS.worker_presence(), beat)

    async def _graph(self, incoming: Incoming) -> None:
        message = incoming.message
        if isinstance(message, WorkflowDeclared):
            facts = WorkflowFacts(root=message.root, tenant=message.tenant)
        elif isinstance(message, GraphAsk):
            facts = WorkflowFacts(root=RootId(message.name), tenant=TenantId(message.tenant), steps=1)
        else:
            return
        await incoming.respond(GraphAnswer(member="g0", partitions=(), workflows=(facts,)))

    async def _ready(self, incoming: Incoming) -> None:
        step = incoming.message
        assert isinstance(step, StepReady)
        self.steps += 1
        if zlib.crc32(f"{step.prompt_tokens}/{step.agent_class}".encode()) % REFUSE_ONE_IN == 0:
            reason = "wait_bound"
            refused = Refused(
                step_id=step.step_id, attempt=step.attempt, fence=1, reason=reason, detail="busy", retry_after_s=1.0
            )
            await incoming.respond(refused)
            return
        await incoming.respond(Accepted(step_id=step.step_id, attempt=step.attempt, fence=1))
        grant = Grant(
            step_id=step.step_id,
            attempt=step.attempt,
            lease_id=LeaseId(f"lease-{next(self._leases)}"),
            root=step.root,
            session=step.session,
            worker_id=WorkerId("w0"),
            engine_url="http://engine:1",
            session_tag=SessionTag("saga-tag"),
            priority=0,
            cached_tokens=0,
            ttl_s=2.0,
            lease_ttl_s=5.0,
            admission_fence=1,
            fence=1,
        )
        await self._bus.publish(SUBJECTS.gateway(GATEWAY), grant)


class Complaints(logging.Handler):
    """What the process says of itself: log events of level error, and exceptions that nobody caught."""

    def __init__(self) -> None:
        super().__init__(logging.ERROR)
        self.seen: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        """As logging.Handler, for aiohttp's own."""
        self.seen.append(f"{record.name}: {record.getMessage()} {record.exc_info and record.exc_info[1]!r}")

    def unhandled(self, _loop: object, context: dict[str, Any]) -> None:
        """As a loop's exception handler."""
        self.seen.append(f"loop: {context.get('message')} {context.get('exception')!r}")

    def processor(self, _logger: object, method: str, event: structlog.typing.EventDict) -> structlog.typing.EventDict:
        """As structlog's: nothing is printed."""
        if method in ("error", "exception", "critical"):
            error = event.pop("exc_info", None)
            error = sys.exc_info()[1] if error is True else error
            where = traceback.extract_tb(error.__traceback__)[-3:] if isinstance(error, BaseException) else []
            told = [f"{Path(frame.filename).name}:{frame.lineno} {frame.name}" for frame in where]
            self.seen.append(f"log: {event} {error!r} at {' > '.join(told)}")
        raise structlog.DropEvent


class Gateway:
    """What is driven."""

    def __init__(self, server: HttpServer, desk: Desk, engine: FuzzEngine, complaints: Complaints, port: int) -> None:
        self.server = server
        self.desk = desk
        self.engine = engine
        self.complaints = complaints
        self.port = port

    async def asked(self, sent: Sent) -> tuple[Answer, str]:
        """(what the client got, what was wrong with how it came)."""
        client = ClientSide(self.server.protocol(), sent.leaves_within, slow=sent.slow, head=sent.method == "HEAD")
        data = sent.head + sent.body
        end = len(data) if sent.leaves_after < 0 else sent.leaves_after
        start = 0
        for at in (*[piece for piece in sent.pieces if piece < end], end):
            client.feed(data[start:at])
            start = at
            if at < end:
                await asyncio.sleep(0)
        if sent.slow:
            await asyncio.sleep(SLOW_FOR_S)
            client.take()
        if sent.leaves_after >= 0:
            await asyncio.sleep(0)
            client.leave()
        within_s = 0.05 if sent.broken else HUNG_AFTER_S
        since_s = unhindered_s()
        while not client.over.done() and unhindered_s() - since_s < within_s:
            await asyncio.wait((client.over,), timeout=within_s)
        # Of what is no whole request, no answer can be expected.
        wrong = "" if client.over.done() or sent.broken else f"no answer within {HUNG_AFTER_S} s"
        client.leave()
        return client.answer, wrong

    async def settled(self) -> list[str]:
        """What is still there when all clients are gone; nothing should be."""
        for _ in range(500):
            if not (self.server.in_flight or self.desk.state.waiting or self.desk.state.running):
                break
            await asyncio.sleep(0.01)
        self.desk.state.check()
        counts = {
            "requests in flight": self.server.in_flight,
            "steps waiting": self.desk.state.waiting,
            "steps running": self.desk.state.running,
            "bytes of waiting bodies": self.server.waiting_bytes,
            "tickets": len(self.desk._tickets),
        }
        return [f"{number} {what} left" for what, number in counts.items() if number]


@asynccontextmanager
async def open_gateway(
    chain_bytes: int = CHAIN_BYTES, tokenizers: dict[str, Tokenizer] | None = None
) -> AsyncIterator[Gateway]:
    """A gateway, until the block ends."""
    complaints = Complaints()
    structlog.configure(processors=[complaints.processor])
    logging.getLogger("aiohttp").addHandler(complaints)
    logging.getLogger("aiohttp").propagate = False
    asyncio.get_running_loop().set_exception_handler(complaints.unhandled)
    broker = ForgetfulBroker()
    bus, leaders_bus = MemoryBus(broker, "gateway"), MemoryBus(broker, "leaders")
    engine = FuzzEngine()
    engines = MemoryEngines(engine)
    desk = Desk(bus, GATEWAY, "main")
    settings = GatewaySettings(port=0, chain_bytes=chain_bytes)
    server = HttpServer(settings, desk, engines, Tenants(), tokenizers)
    leaders = Leaders(leaders_bus)
    closing: list[Callable[[], Awaitable[None]]] = [bus.drain, leaders_bus.drain, desk.close, engines.close]
    try:
        await desk.open()
        await leaders.start()
        port = await server.listen()
        closing.append(server.close)
        for _ in range(3):
            await asyncio.sleep(0)
        beats = asyncio.create_task(_beats(leaders))
        yield Gateway(server, desk, engine, complaints, port)
        beats.cancel()
    finally:
        for close in reversed(closing):
            await close()
        logging.getLogger("aiohttp").removeHandler(complaints)


def unhindered_s() -> float:
    """Monotonic, but for the time in which this process could have run and others had the processors."""
    try:
        waited_ns = int(Path("/proc/self/schedstat").read_text().split()[1])
    except (OSError, IndexError, ValueError):  # not Linux, or not told
        waited_ns = 0
    return time.monotonic() - waited_ns / 1e9


async def _beats(leaders: Leaders) -> None:
    while True:
        await asyncio.sleep(BEAT_EVERY_S)
        await leaders.beat()
