"""Engines whose residency is audited: a simulated one as a process, and a line to any engine that can be cut.

A worker agent that attaches to a `Front` hears the engine's KV events through the front's line alone.
"""

import asyncio
import contextlib
import os
import sys
from pathlib import Path

import aiohttp
import msgspec
import zmq
import zmq.asyncio
from aiohttp import web
from kv_tape import CLEAR, STORE, lines_of
from sglang_server import SglangServer

from saga.cli.child import Child, ProcessSpec
from saga.cli.sglang import SglangPorts

HOST = "127.0.0.1"
CHUNK_BYTES = 1 << 16


class SimulatedServer(SglangServer):
    """`python -m saga.engine` in the place of a real server."""

    def __init__(self, ports: SglangPorts, folder: Path, **settings: object) -> None:
        self.ports = ports
        self.url = ports.url
        said = {"port": ports.http, "kv_events_port": ports.events, "kv_replay_port": ports.replay, **settings}
        env = {f"SAGA_ENGINE_{name.upper()}": str(value) for name, value in said.items()} | {"SAGA_SUPERVISED": "1"}
        spec = ProcessSpec(name="engine", argv=(sys.executable, "-m", "saga.engine"), env=env)
        self.child = Child(spec, folder / "engine.log", os.environ)


class EngineAccount:
    """What an engine's cache holds by its own account: all that it published, from its replay endpoint."""

    def __init__(self, ports: SglangPorts) -> None:
        self.held: set[bytes] = set()
        self.removed = 0
        self._next = 0
        self._context = zmq.asyncio.Context()
        self._endpoint = f"tcp://{HOST}:{ports.replay}"

    async def refresh(self) -> set[bytes]:
        """Pages held now. AssertionError when the engine forgot a part, TimeoutError when it does not answer."""
        socket = self._context.socket(zmq.DEALER)
        try:
            socket.setsockopt(zmq.LINGER, 0)
            socket.connect(self._endpoint)
            await socket.send_multipart([b"", self._next.to_bytes(8, "big")])
            async with asyncio.timeout(20):
                while (frames := await socket.recv_multipart())[-1]:
                    assert frames[-2] == self._next.to_bytes(8, "big"), "the engine's replay does not reach back"
                    self._next += 1
                    for event in msgspec.msgpack.decode(frames[-1])[1]:
                        self._take(event)
        finally:
            socket.close()
        return self.held

    def close(self) -> None:
        """Ask no more."""
        self._context.destroy(linger=0)

    def _take(self, event: dict) -> None:
        for what, page, _before, _session in lines_of(event):
            if what == STORE:
                self.held.add(page)
            elif what == CLEAR:
                self.held.clear()
            else:
                self.removed += page in self.held
                self.held.discard(page)


class Line:
    """A TCP relay to one port. Cut, it drops who is connected and lets nobody in."""

    def __init__(self, port: int) -> None:
        self._to = port
        self._server: asyncio.Server | None = None
        self._writers: set[asyncio.StreamWriter] = set()
        self.port = 0

    async def mend(self) -> None:
        """Let connections through, on the same port as before."""
        self._server = await asyncio.start_server(self._relay, HOST, self.port)
        self.port = self._server.sockets[0].getsockname()[1]

    async def cut(self) -> None:
        """Whatever is on its way is lost."""
        if self._server is not None:
            self._server.close()
            for writer in self._writers:
                writer.transport.abort()
            await self._server.wait_closed()
            self._server = None

    async def _relay(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            there, back = await asyncio.open_connection(HOST, self._to)
            mine = {writer, back}
            self._writers |= mine
            try:
                await asyncio.gather(_pour(reader, back), _pour(there, writer))
            finally:
                self._writers -= mine
                for each in mine:
                    each.transport.abort()


async def _pour(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Until either end is gone; the other one then goes too."""
    with contextlib.suppress(OSError):
        while data := await reader.read(CHUNK_BYTES):
            writer.write(data)
            await writer.drain()
    writer.transport.abort()


class Front:
    """An engine's HTTP as its agent sees it, but for KV events, which come through `line`."""

    def __init__(self, engine: SglangServer) -> None:
        self._engine = engine
        self.line = Line(engine.ports.events)
        self.url = ""

    async def __aenter__(self):
        await self.line.mend()
        self._http = aiohttp.ClientSession()
        app = web.Application()
        app.router.add_route("*", "/{path:.*}", self._forward)
        self._runner = web.AppRunner(app)
        await self._runner.setup()
        site = web.TCPSite(self._runner, HOST, 0)
        await site.start()
        self.url = f"http://{HOST}:{self._runner.addresses[0][1]}"
        return self

    async def __aexit__(self, *_) -> None:
        await self._runner.cleanup()
        await self._http.close()
        await self.line.cut()

    async def _forward(self, request: web.Request) -> web.Response:
        url = self._engine.url + request.path_qs
        try:
            async with self._http.request(request.method, url, data=await request.read()) as answer:
                body = await answer.read()
        except aiohttp.ClientConnectionError:  # nobody listens there: nobody listens here
            request.transport.abort()
            return web.Response()
        if request.path == "/server_info":
            info = msgspec.json.decode(body)
            info["kv_events"]["endpoint_port_base"] = self.line.port
            body = msgspec.json.encode(info)
        return web.Response(body=body, status=answer.status, content_type=answer.content_type)
