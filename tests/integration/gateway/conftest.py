"""A gateway over HTTP with nothing real behind it but sockets: leaders on a MemoryBus, engines that spell.

The engine's text is a function of the tokens before it, so that a continued answer can be compared with an undisturbed
one.
"""

import asyncio
import itertools
import zlib
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from typing import Any

import aiohttp
import msgspec
import pytest
import uvloop
from aiohttp import web

from saga.contract.ids import GatewayId, LeaseId, PoolId, SessionTag, WorkerId
from saga.contract.messages import (
    Accepted,
    Grant,
    Heartbeat,
    LeaderHello,
    Message,
    Refused,
    StepCancelled,
    StepFinished,
    StepReady,
    WorkerHello,
)
from saga.contract.subjects import Subjects
from saga.gateway.config import GatewaySettings
from saga.gateway.http_desk import Desk
from saga.gateway.http_engine import EngineClient
from saga.gateway.http_server import HttpServer
from saga.gateway.http_traces import Traces
from saga.gateway.prompt_tokens import Tokenizer
from saga.gateway.tenants import Tenants
from saga.kv.tokens import decode_ids, encode_text, render_chat, token_count
from saga.runtime.bus import Incoming
from saga.runtime.bus_memory import MemoryBus
from saga.runtime.memory_broker import MemoryBroker

MODEL = PoolId("tiny")
PAGE_TOKENS = 16
SUBJECTS = Subjects()


def spell(text: str) -> str:
    """The letter that follows a text."""
    return chr(97 + zlib.crc32(text.encode()) % 26)


class FakeEngine:
    """Answers as SGLang does. Set `die_after` to break the connection after so many letters, once."""

    def __init__(self) -> None:
        self.bodies: list[dict[str, Any]] = []
        self.headers: list[Mapping[str, str]] = []  # of the same requests
        self.aborted: list[str] = []
        self.closed_early = 0
        self.die_after: int | None = None
        self.abort_after: int | None = None
        self.die_with = b""
        self.refuse: tuple[int, bytes] | None = None
        self.raw = b""  # goes out as it is, in place of an answer
        self.hang_after: int | None = None
        self.lingers = False  # after its last event, before its stream ends
        self.tool: str | None = None
        self.flood = 0
        self.flooded = 0
        self.tokens: list[int] | None = None  # what it says of any prompt; None: the tokens of the text
        self.tokenized: list[dict[str, Any]] = []
        self.hanging = asyncio.Event()
        self.url = ""
        self._runner: web.AppRunner | None = None

    async def start(self) -> None:
        app = web.Application(client_max_size=2**26)
        app.router.add_post("/v1/chat/completions", self.chat)
        app.router.add_post("/v1/completions", self.completions)
        app.router.add_post("/abort_request", self.abort)
        app.router.add_post("/v1/tokenize", self.tokenize)
        self._runner = web.AppRunner(app, access_log=None, handler_cancellation=True, shutdown_timeout=0.1)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", 0)
        await site.start()
        self.url = f"http://127.0.0.1:{self._runner.addresses[0][1]}"

    async def stop(self) -> None:
        if self._runner is not None:
            await self._runner.cleanup()

    async def abort(self, request: web.Request) -> web.Response:
        self.aborted.append((await request.json())["rid"])
        return web.Response()

    async def tokenize(self, request: web.Request) -> web.Response:
        body = await request.json()
        self.tokenized.append(body)
        text = body["prompt"] if "prompt" in body else render_chat(body["messages"])
        return web.json_response({"tokens": decode_ids(encode_text(text)) if self.tokens is None else self.tokens})

    async def chat(self, request: web.Request) -> web.StreamResponse:
        body = await request.json()
        prompt = render_chat(body["messages"], continue_final_message=body.get("continue_final_message", False))
        return await self.answer(request, body, prompt, "chat")

    async def completions(self, request: web.Request) -> web.StreamResponse:
        body = await request.json()
        prompt = body["prompt"]
        return await self.answer(request, body, prompt if isinstance(prompt, str) else repr(prompt), "completions")

    async def answer(self, request: web.Request, body: dict[str, Any], prompt: str, api: str) -> web.StreamResponse:
        self.bodies.append(body)
        self.headers.append(request.headers)
        if self.raw:
            assert request.transport is not None
            request.transport.write(self.raw)
            await asyncio.sleep(60)
        if self.refuse is not None:
            return web.Response(status=self.refuse[0], body=self.refuse[1], content_type="application/json")
        text = prompt
        for _ in range(body.get("max_tokens") or body.get("max_completion_tokens") or 8):
            text += spell(text)
        said = text[len(prompt) :]
        ids = body.get("input_ids")
        prompt_tokens = token_count(encode_text(prompt)) if ids is None else len(ids)
        usage = {
            "prompt_tokens": prompt_tokens,
            "completion_tokens": len(said),
            "total_tokens": prompt_tokens + len(said),
            "prompt_tokens_details": {"cached_tokens": 0},
        }
        if body.get("stream"):
            return await self.stream(request, body, said, usage, api)
        choice: dict[str, Any] = {"index": 0, "finish_reason": "length"}
        choice |= {"message": {"role": "assistant", "content": said}} if api == "chat" else {"text": said}
        head = {"id": body["rid"], "object": "x", "created": 1, "model": MODEL, "choices": [choice], "usage": usage}
        return web.json_response(head)

    async def stream(
        self, request: web.Request, body: dict[str, Any], said: str, usage: dict[str, Any], api: str
    ) -> web.StreamResponse:
        head = {"id": body["rid"], "object": "chunk", "created": len(self.bodies), "model": MODEL}
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await response.prepare(request)

        async def send(choices: list[dict[str, Any]], **more: Any) -> None:
            await response.write(b"data: " + msgspec.json.encode(head | {"choices": choices} | more) + b"\n\n")

        def delta(text: str) -> dict[str, Any]:
            return {"delta": {"content": text}} if api == "chat" else {"text": text}

        try:
            for _ in range(self.flood):
                await send([{"index": 0, **delta("x" * 10_000), "finish_reason": None}])
                self.flooded += 1
            if api == "chat":
                await send([{"index": 0, "delta": {"role": "assistant", "content": ""}, "finish_reason": None}])
            if self.tool:
                call = {"index": 0, "id": "call_1", "function": {"name": self.tool, "arguments": "{"}}
                await send([{"index": 0, "delta": {"tool_calls": [call]}, "finish_reason": None}])
            for count, letter in enumerate(said):
                if count == self.die_after:
                    self.die_after = None
                    await response.write(self.die_with)
                    assert request.transport is not None
                    request.transport.close()
                    return response
                if count == self.abort_after:
                    self.abort_after = None
                    await send([{"index": 0, **delta(""), "finish_reason": "abort"}])
                    await response.write(b"data: [DONE]\n\n")
                    return response
                if count == self.hang_after:
                    self.hanging.set()
                    await asyncio.sleep(60)
                await send([{"index": 0, **delta(letter), "finish_reason": None}])
            await send([{"index": 0, **delta(""), "finish_reason": "tool_calls" if self.tool else "length"}])
            if (body.get("stream_options") or {}).get("include_usage"):
                await send([], usage=usage)
            await response.write(b"data: [DONE]\n\n")
            if self.lingers:
                self.hanging.set()
                await asyncio.sleep(60)
        except (asyncio.CancelledError, ConnectionError):
            self.closed_early += 1
            raise
        return response


class FakeLeaders:
    """Accepts each step and grants it at once on the engines in turn, first those not tried yet."""

    def __init__(self, bus: MemoryBus, engines: list[FakeEngine], gateway_id: GatewayId) -> None:
        self.bus = bus
        self.engines = engines
        self.gateway_id = gateway_id  # the cell's first
        self.steps: list[StepReady] = []
        self.heard: list[Message] = []
        self.refusal: Refused | None = None
        self.paused = False
        self.session_tag = SessionTag("saga-tag-0")
        self._numbers = itertools.count(1)
        self._news = asyncio.Event()

    async def start(self) -> None:
        await self.bus.subscribe(SUBJECTS.step_ready(), self.ready)
        for subject in (SUBJECTS.every_lease(), SUBJECTS.gateway_word(), SUBJECTS.every_step_end()):
            await self.bus.subscribe(subject, self.hear)
        for service in ("admission", "placement"):
            await self.bus.publish(SUBJECTS.leader_hello(), LeaderHello(service=service, fence=1))
        for number in range(len(self.engines)):
            await self.beat(number)

    async def beat(self, number: int, *, healthy: bool = True) -> None:
        worker = WorkerHello(
            worker_id=WorkerId(f"w{number}"),
            engine_url=self.engines[number].url,
            pool=MODEL,
            epoch=1,
            page_tokens=PAGE_TOKENS,
            kv_tokens=10_000,
            context_tokens=4_000,
            max_running=8,
            session_tags=True,
            speed=10.0,
            shrink=16,
        )
        beat = Heartbeat(worker=worker, healthy=healthy, running=0, waiting=0, used_tokens=0, residency_seq=0)
        await self.bus.publish(SUBJECTS.worker_presence(), beat)

    async def ready(self, incoming: Incoming) -> None:
        step = incoming.message
        assert isinstance(step, StepReady)
        self.steps.append(step)
        if self.refusal is not None:
            refusal = msgspec.structs.replace(self.refusal, step_id=step.step_id, attempt=step.attempt)
            await incoming.respond(refusal)
            return
        await incoming.respond(Accepted(step_id=step.step_id, attempt=step.attempt, fence=1))
        if not self.paused:
            await self.grant(step)

    async def grant(self, step: StepReady) -> None:
        number = step.attempt % len(self.engines)
        grant = Grant(
            step_id=step.step_id,
            attempt=step.attempt,
            lease_id=LeaseId(f"lease-{next(self._numbers)}"),
            root=step.root,
            session=step.session,
            worker_id=WorkerId(f"w{number}"),
            engine_url=self.engines[number].url,
            session_tag=self.session_tag,
            priority=7,
            cached_tokens=0,
            ttl_s=2.0,
            lease_ttl_s=5.0,
            admission_fence=1,
            fence=1,
        )
        await self.bus.publish(SUBJECTS.gateway(step.gateway_id), grant)

    def hear(self, incoming: Incoming) -> None:
        self.heard.append(incoming.message)
        self._news.set()

    async def until(self, kind: type[Message], count: int = 1) -> list[Any]:
        """The first messages of this kind, when there are so many."""
        async with asyncio.timeout(5):
            while len(found := [message for message in self.heard if isinstance(message, kind)]) < count:
                self._news.clear()
                await self._news.wait()
        return found

    async def finished(self) -> StepFinished:
        return (await self.until(StepFinished))[0]

    async def cancelled(self) -> StepCancelled:
        return (await self.until(StepCancelled))[0]


class Mesh:
    """A gateway with all it talks to, and a client for it."""

    def __init__(
        self,
        server: HttpServer,
        desk: Desk,
        leaders: FakeLeaders,
        engines: list[FakeEngine],
        bus: MemoryBus,
        client: aiohttp.ClientSession,
        broker: MemoryBroker,
    ) -> None:
        self.broker = broker
        self.server = server
        self.desk = desk
        self.leaders = leaders
        self.engines = engines
        self.bus = bus
        self.client = client

    @staticmethod
    def events(data: bytes) -> list[dict[str, Any]]:
        """The JSON of all events of a stream."""
        parts = [part.removeprefix(b"data: ") for part in data.split(b"\n\n") if part.startswith(b"data: ")]
        return [msgspec.json.decode(part) for part in parts if part != b"[DONE]"]

    @staticmethod
    def text_of(data: bytes) -> str:
        """What a stream says."""
        choices = [choice for chunk in Mesh.events(data) for choice in chunk.get("choices", ())]
        return "".join(
            (choice["delta"].get("content") or "") if "delta" in choice else choice["text"] for choice in choices
        )

    @staticmethod
    async def until(condition: Callable[[], object]) -> None:
        """Waits for what nobody tells us of."""
        async with asyncio.timeout(5):
            while not condition():
                await asyncio.sleep(0.01)

    async def ask(self, body: object, api: str = "completions", **headers: str) -> aiohttp.ClientResponse:
        data = body if isinstance(body, bytes) else msgspec.json.encode(body)
        path = "/v1/chat/completions" if api == "chat" else "/v1/completions"
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        return await self.client.post(path, data=data, headers=named)


Start = Callable[..., Awaitable[Mesh]]


def pytest_asyncio_loop_factories() -> dict[str, Callable[[], asyncio.AbstractEventLoop]]:
    """The loop that the service runs on: its transports are not asyncio's own."""
    return {"uvloop": uvloop.new_event_loop}


@pytest.fixture
async def start() -> AsyncIterator[Start]:
    """Starts a mesh; keywords are settings of the gateway, `engines` or the `urls` of other engines, and `tenants`.

    `beside`: another mesh, of whose cell this is a second gateway.
    """
    closing: list[Callable[[], Awaitable[None]]] = []

    async def start_mesh(
        *,
        engines: int = 1,
        urls: tuple[str, ...] = (),
        tenants: Tenants | None = None,
        tokenizers: dict[str, Tokenizer] | None = None,
        beside: Mesh | None = None,
        traces: Traces | None = None,
        **settings: Any,
    ) -> Mesh:
        broker = MemoryBroker() if beside is None else beside.broker
        gateway_id = GatewayId("g1" if beside is None else "g2")
        bus, leaders_bus = MemoryBus(broker, gateway_id), MemoryBus(broker, f"leaders of {gateway_id}")
        fakes = [FakeEngine() for _ in urls or range(engines)] if beside is None else []
        for engine, url in zip(fakes, urls, strict=False):
            engine.url = url
        for engine in fakes:
            if not engine.url:
                await engine.start()
            closing.append(engine.stop)
        desk = Desk(bus, gateway_id, "main")
        client = EngineClient(1.0)
        folders = ",".join(f"{model}=not-read" for model in tokenizers or ())
        given = GatewaySettings(port=0, tokenizers=folders, **settings)
        server = HttpServer(given, desk, client, tenants or Tenants(), tokenizers, traces)
        await desk.open()
        if beside is None:
            leaders = FakeLeaders(leaders_bus, fakes, gateway_id)
            await leaders.start()
        else:  # a second gateway of its cell
            leaders, fakes = beside.leaders, beside.engines
            await leaders.beat(0)
        port = await server.listen()
        session = aiohttp.ClientSession(f"http://127.0.0.1:{port}", timeout=aiohttp.ClientTimeout(total=10))
        closing.extend([client.close, desk.close, bus.drain, leaders_bus.drain, server.close, session.close])
        if fakes:
            await Mesh.until(desk.pools)  # the heartbeats are on their way
        return Mesh(server, desk, leaders, fakes, bus, session, broker)

    yield start_mesh
    for close in reversed(closing):
        await close()


@pytest.fixture
async def mesh(start: Start) -> Mesh:
    """A mesh with two engines."""
    return await start(engines=2)
