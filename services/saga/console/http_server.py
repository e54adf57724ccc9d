"""The console's HTTP: the page, its events, questions about one workflow. Reads only; errors are JSON that says what
to change."""

import contextlib
from collections.abc import Awaitable, Callable
from typing import Final, Protocol

import msgspec
from aiohttp import web

from saga.console.config import PREFIX, ConsoleSettings
from saga.console.frames import FrameLog
from saga.console.http_answers import BadQuestionError, refusal
from saga.console.http_events import Events
from saga.console.http_page import Page
from saga.console.http_step import StepQuestions
from saga.console.http_workflow import WorkflowQuestions
from saga.console.state import ConsoleState
from saga.contract.messages import AnyMessage, Message
from saga.runtime.log import get_logger
from saga.runtime.metrics import CONTENT_TYPE, render

CLOSE_WITHIN_S: Final = 1.0
# Nothing from elsewhere, no inline script, and no other site may frame it.
HEADERS: Final = {
    "Content-Security-Policy": "default-src 'self'; img-src 'self' data:; frame-ancestors 'none'; base-uri 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-cache",
}
PATHS: Final = (
    "/",
    "/api/events",
    "/api/state",
    "/api/workflow?root=NAME",
    "/api/workflow/graph.svg?root=NAME&of=class",
    "/api/step?id=ID",
)
log = get_logger()
Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class Desk(Protocol):
    """What the service does for its pages."""

    viewers: int
    frames: FrameLog
    state: ConsoleState

    @property
    def now_s(self) -> float:
        """On the console's own clock."""
        ...

    @property
    def connected(self) -> bool:
        """Whether the bus is there."""
        ...

    def viewing(self) -> contextlib.AbstractContextManager[None]:
        """While somebody looks."""
        ...

    def whole_event(self) -> bytes:
        """Everything, as an event."""
        ...

    async def next_frame(self, number: int) -> None:
        """Returns when there is a frame after this one."""
        ...

    async def ask(self, subject: str, message: Message) -> AnyMessage:
        """A question to another service. Raises BusUnavailable and MessageError."""
        ...


class ConsoleServer:
    """One listening socket."""

    def __init__(self, settings: ConsoleSettings, desk: Desk) -> None:
        self._settings = settings
        self._desk = desk
        self._page = Page()
        self._events = Events(desk, settings.max_viewers)
        self._workflows = WorkflowQuestions(desk, settings.cell)
        app = web.Application()
        for path, handle in {
            "/": self._page.index,
            "/page/{name}": self._page.file,
            "/api/events": self._events.serve,
            "/api/state": self._state,
            "/api/workflow": self._workflows.show,
            "/api/workflow/graph.svg": self._workflows.graph,
            "/api/step": StepQuestions(desk, settings.cell).show,
        }.items():
            app.router.add_get(path, self._answering(handle))
        app.router.add_get("/healthz", self._healthz)
        app.router.add_get("/metrics", self._metrics)
        app.router.add_route("*", "/{path:.*}", self._answering(_unknown))
        self._runner = web.AppRunner(app, shutdown_timeout=CLOSE_WITHIN_S, access_log=None, handler_cancellation=True)

    async def listen(self) -> int:
        """Starts to serve; returns the port. OSError if it is taken."""
        await self._runner.setup()
        await web.TCPSite(self._runner, self._settings.host, self._settings.port).start()
        return int(self._runner.addresses[0][1])

    async def close(self) -> None:
        """Ends all pages' events and stops listening."""
        self._events.close()
        await self._runner.cleanup()

    def _answering(self, handle: Handler) -> Handler:
        async def answer(request: web.Request) -> web.StreamResponse:
            try:
                self._check_host(request)
                response = await handle(request)
            except BadQuestionError as error:
                response = refusal(error)
            except ConnectionResetError:
                raise
            except Exception:
                log.exception("request.broke", path=request.path)
                response = refusal(BadQuestionError(500, "Internal error; the operator's log has the details."))
            if not response.prepared:
                response.headers.update(HEADERS)
            return response

        return answer

    def _check_host(self, request: web.Request) -> None:
        """A web page elsewhere may point a name of its own at this address; its requests then name that."""
        name = (request.headers.get("Host") or "").lower()
        name = name if name.endswith("]") else name.rpartition(":")[0] or name
        if "*" not in self._settings.hosts and name not in self._settings.hosts:
            known = ", ".join(self._settings.hosts)
            raise BadQuestionError(
                421, f"Host {name[:80]!r} is not one of {known}: {PREFIX}HOSTS lists the names it may be asked under."
            )

    async def _state(self, _request: web.Request) -> web.Response:
        body = msgspec.json.encode(self._desk.state.whole(self._desk.now_s))
        return web.Response(body=body, content_type="application/json")

    async def _healthz(self, _request: web.Request) -> web.Response:
        connected = self._desk.connected
        body = msgspec.json.encode({"status": "ok" if connected else "NATS is away", "viewers": self._desk.viewers})
        return web.Response(body=body, status=200 if connected else 503, content_type="application/json")

    async def _metrics(self, _request: web.Request) -> web.Response:
        return web.Response(body=render(), headers={"Content-Type": CONTENT_TYPE})


async def _unknown(request: web.Request) -> web.Response:
    if request.method not in ("GET", "HEAD"):
        raise BadQuestionError(405, f"{request.method} is not answered here: a console only reads.")
    raise BadQuestionError(404, f"No {request.path[:100]} here. There are: {', '.join(PATHS)}.")
