"""Relayed stream chunks per CPU-second of a gateway, beside a bare relay that knows nothing, in the same run.

    python bench/gateway_relay.py [--streams 400] [--per-s 25] [--seconds 6] [--rounds 3] [--json FILE]

400 paced streams through one gateway process; source and sink are raw sockets in this one: each chunk is one event of a
chat and one write, so that nothing is batched for the relay but what the kernel joins. The gateway is a whole one
(parsing, identity, desk, relay, transcript, progress reports), with leaders in memory that grant at once. The bare one
is the same loop and sockets, with bytes handed from one to the other: what any relay in Python pays at least.
Rounds alternate, so that both see the same machine. CPU time is of the relaying process alone (/proc), since others
share the cores.
"""

import argparse
import asyncio
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import count
from pathlib import Path

import uvloop

from saga.contract.ids import GatewayId, LeaseId, PoolId, SessionTag, WorkerId
from saga.contract.messages import Accepted, Grant, Heartbeat, LeaderHello, StepReady, WorkerHello
from saga.contract.subjects import Subjects
from saga.gateway.config import GatewaySettings
from saga.gateway.http_desk import Desk
from saga.gateway.http_engine import EngineClient
from saga.gateway.http_server import HttpServer
from saga.gateway.tenants import Tenants
from saga.load.process_cpu import cpu_s
from saga.runtime.bus import Incoming
from saga.runtime.bus_memory import MemoryBus
from saga.runtime.memory_broker import MemoryBroker

GOAL = 25_000
SETTLE_S = 2.0
SUBJECTS = Subjects()
GATEWAY = GatewayId("bench")
MODEL = PoolId("m")
HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
EVENT = b'data: {"id":"%032d-00","object":"chat.completion.chunk","created":1790000000,"model":"m","choices":[{"index":0,"delta":{"role":null,"content":" word","reasoning_content":null,"tool_calls":null},"logprobs":null,"finish_reason":null,"matched_stop":null}],"usage":null}\n\n'  # noqa: E501
CHUNK = b"%x\r\n%b\r\n" % (len(EVENT % 0), EVENT % 0)
ASK = json.dumps(
    {"model": MODEL, "messages": [{"role": "user", "content": "Go on. " * 100}], "stream": True, "max_tokens": 100_000}
).encode()


# --- this process: source and sink -----------------------------------------------------------------------------------


class Source(asyncio.Protocol):
    """An engine that answers any request with a stream that never ends, a chunk at a time."""

    def __init__(self, streams: "set[Source]") -> None:
        self._streams = streams
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """As asyncio's."""
        assert isinstance(transport, asyncio.Transport) or hasattr(transport, "write")
        self._transport = transport  # type: ignore[assignment] - uvloop's is another class

    def data_received(self, data: bytes) -> None:
        """The request, in one piece or several."""
        if self._transport is not None and data.startswith(b"POST /v1/"):
            self._transport.write(HEAD)
            self._streams.add(self)

    def connection_lost(self, exc: Exception | None) -> None:
        """As asyncio's."""
        del exc
        self._streams.discard(self)

    def say(self) -> None:
        """One event, one write."""
        if self._transport is not None and not self._transport.is_closing():
            self._transport.write(CHUNK)


class Sink(asyncio.Protocol):
    """A client that asks once and counts events."""

    events = 0  # of all

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """As asyncio's."""
        head = f"POST /v1/chat/completions HTTP/1.1\r\nHost: b\r\nContent-Length: {len(ASK)}\r\n\r\n".encode()
        transport.write(head + ASK)  # type: ignore[attr-defined]

    def data_received(self, data: bytes) -> None:
        """Part of the stream."""
        Sink.events += data.count(b"data: ")


async def paced(streams: set[Source], per_s: float) -> None:
    """Each stream says so many events a second, spread evenly: a few streams at each tick."""
    ticks = 50  # in the time between two events of one stream
    while True:
        began_s = time.monotonic()
        turn = list(streams)
        for tick in range(ticks):
            for stream in turn[tick::ticks]:
                stream.say()
            await asyncio.sleep(max(0.0, began_s + (tick + 1) / ticks / per_s - time.monotonic()))


async def until(condition: Callable[[], object]) -> None:
    """Nobody tells when."""
    async with asyncio.timeout(60):
        while not condition():  # noqa: ASYNC110 - in another process
            await asyncio.sleep(0.05)


@contextmanager
def relay(kind: str, engine_url: str) -> Iterator[tuple[int, int]]:
    """(pid, port) of a relaying process."""
    command = [sys.executable, __file__, "--child", kind, engine_url]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stdin=subprocess.PIPE, text=True) as child:  # noqa: S603
        try:
            assert child.stdout is not None
            yield child.pid, int(child.stdout.readline())
        finally:
            child.terminate()


async def round_of(port: int, pid: int, flags: argparse.Namespace, streams: set[Source]) -> tuple[float, float]:
    """(events a CPU-second, events a second)."""
    loop = asyncio.get_running_loop()
    sinks = [(await loop.create_connection(Sink, "127.0.0.1", port))[0] for _ in range(flags.streams)]
    await until(lambda: len(streams) >= flags.streams)
    pacing = asyncio.create_task(paced(streams, flags.per_s))
    await asyncio.sleep(SETTLE_S)
    events, used, began_s = Sink.events, cpu_s({"relay": pid})["relay"], time.monotonic()
    await asyncio.sleep(flags.seconds)
    events, used = Sink.events - events, cpu_s({"relay": pid})["relay"] - used
    elapsed_s = time.monotonic() - began_s
    pacing.cancel()
    for sink in sinks:
        sink.close()
    await until(lambda: not streams)
    return events / used, events / elapsed_s


async def measure(flags: argparse.Namespace) -> int:
    """All rounds, and what they say."""
    streams: set[Source] = set()
    engine = await asyncio.get_running_loop().create_server(lambda: Source(streams), "127.0.0.1", 0)
    url = f"http://127.0.0.1:{engine.sockets[0].getsockname()[1]}"
    seen: dict[str, list[tuple[float, float]]] = {"gateway": [], "bare": []}
    with relay("gateway", url) as gateway, relay("bare", url) as bare:
        for _ in range(flags.rounds):
            for kind, (pid, port) in (("gateway", gateway), ("bare", bare)):
                seen[kind].append(await round_of(port, pid, flags, streams))
    engine.close()
    medians = {kind: statistics.median(per_cpu_s for per_cpu_s, _ in rounds) for kind, rounds in seen.items()}
    ratio = statistics.median(
        ours / theirs for (ours, _), (theirs, _) in zip(seen["gateway"], seen["bare"], strict=True)
    )
    wanted = flags.streams * flags.per_s
    for kind, rounds in seen.items():
        shown = ", ".join(f"{per_cpu_s:,.0f}" for per_cpu_s, _ in rounds)
        rate = statistics.median(per_s for _, per_s in rounds)
        print(f"{kind:8s} {medians[kind]:9,.0f} chunks per CPU-second ({shown}); {rate:,.0f} of {wanted:,.0f} chunks/s")
    print(f"gateway / bare: {ratio:.2f}; goal {GOAL:,}: {'met' if medians['gateway'] >= GOAL else 'missed'}")
    if flags.json is not None:
        flags.json.write_text(json.dumps({"rounds": seen, "medians": medians, "ratio": ratio}, indent=1) + "\n")
    return 0


# --- the relaying processes ------------------------------------------------------------------------------------------


class Leaders:
    """Admission and placement, as far as a gateway sees them: each step is granted at once."""

    def __init__(self, bus: MemoryBus, engine_url: str) -> None:
        self._bus = bus
        self._engine_url = engine_url
        self._numbers = count(1)

    async def start(self) -> None:
        """Be there."""
        await self._bus.subscribe(SUBJECTS.step_ready(), self._ready)
        for service in ("admission", "placement"):
            await self._bus.publish(SUBJECTS.leader_hello(), LeaderHello(service=service, fence=1))

    async def beat(self) -> None:
        """The worker's, each second."""
        worker = WorkerHello(
            worker_id=WorkerId("w"), engine_url=self._engine_url, pool=MODEL, epoch=1, page_tokens=64,
            kv_tokens=10**9, context_tokens=1_000_000, max_running=10_000, session_tags=True,
        )  # fmt: skip
        beat = Heartbeat(worker=worker, healthy=True, running=0, waiting=0, used_tokens=0, residency_seq=0)
        while True:
            await self._bus.publish(SUBJECTS.worker_presence(), beat)
            await asyncio.sleep(1.0)

    async def _ready(self, incoming: Incoming) -> None:
        step = incoming.message
        assert isinstance(step, StepReady)
        await incoming.respond(Accepted(step_id=step.step_id, attempt=step.attempt, fence=1))
        grant = Grant(
            step_id=step.step_id, attempt=step.attempt, lease_id=LeaseId(f"l{next(self._numbers)}"), root=step.root,
            session=step.session, worker_id=WorkerId("w"), engine_url=self._engine_url, session_tag=SessionTag("t"),
            cached_tokens=0, ttl_s=2.0, lease_ttl_s=5.0, admission_fence=1, fence=1,
        )  # fmt: skip
        await self._bus.publish(SUBJECTS.gateway(GATEWAY), grant)


def tell(port: int) -> None:
    """To who started this process; a request's log line after that is nobody's."""
    print(port, flush=True)
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


async def gateway_child(engine_url: str) -> None:
    """A gateway, until it is ended."""
    broker = MemoryBroker()
    bus, leaders_bus = MemoryBus(broker, "gateway"), MemoryBus(broker, "leaders")
    desk = Desk(bus, GATEWAY, "main")
    server = HttpServer(GatewaySettings(port=0), desk, EngineClient(2.0), Tenants())
    await desk.open()
    leaders = Leaders(leaders_bus, engine_url)
    await leaders.start()
    port = await server.listen()
    beats = asyncio.create_task(leaders.beat())
    await until(desk.pools)
    tell(port)
    await beats


class Pipe(asyncio.Protocol):
    """Hands what comes to its other end."""

    def __init__(self, other: "Pipe | None" = None) -> None:
        self.other = other
        self.transport: asyncio.WriteTransport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """As asyncio's."""
        self.transport = transport  # type: ignore[assignment] - uvloop's is another class

    def data_received(self, data: bytes) -> None:
        """Bytes."""
        if self.other is not None and self.other.transport is not None:
            self.other.transport.write(data)

    def connection_lost(self, exc: Exception | None) -> None:
        """Both ends go."""
        del exc
        if self.other is not None and self.other.transport is not None:
            self.other.transport.close()


class Door(Pipe):
    """A client's connection, for which one to the engine is opened."""

    def __init__(self, host: str, port: int, opening: set[asyncio.Task[None]]) -> None:
        super().__init__()
        self._engine = host, port
        self._opening = opening
        self._early = b""

    def data_received(self, data: bytes) -> None:
        """The request."""
        if self.other is not None:
            super().data_received(data)
            return
        self._early += data
        if len(self._early) == len(data):
            task = asyncio.get_running_loop().create_task(self._open())
            self._opening.add(task)
            task.add_done_callback(self._opening.discard)

    async def _open(self) -> None:
        _, self.other = await asyncio.get_running_loop().create_connection(lambda: Pipe(self), *self._engine)
        assert self.other.transport is not None
        self.other.transport.write(self._early)


async def bare_child(engine_url: str) -> None:
    """Bytes in, bytes out."""
    host, port = engine_url.removeprefix("http://").split(":")
    opening: set[asyncio.Task[None]] = set()
    server = await asyncio.get_running_loop().create_server(lambda: Door(host, int(port), opening), "127.0.0.1", 0)
    tell(server.sockets[0].getsockname()[1])
    await server.serve_forever()


def main() -> int:
    """Measure; or, as a child, relay."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--streams", type=int, default=400)
    parser.add_argument("--per-s", type=float, default=25.0, help="events of each stream")
    parser.add_argument("--seconds", type=float, default=6.0, help="of each round")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--child", nargs=2, help=argparse.SUPPRESS)
    flags = parser.parse_args()
    if flags.child is not None:
        kind, url = flags.child
        uvloop.run(gateway_child(url) if kind == "gateway" else bare_child(url))
        return 0
    return uvloop.run(measure(flags))


if __name__ == "__main__":
    sys.exit(main())
