"""The live shell of the console: the bus on one side, pages on the other. Run by `python -m saga.console`."""

import asyncio
import contextlib
import secrets
from collections.abc import Iterator
from typing import Final

from saga.console.config import ConsoleSettings
from saga.console.events import ConsoleEvent, FrameDue, Replayed, TenantsTold, Watched
from saga.console.frames import FrameLog, event_of
from saga.console.http_server import ConsoleServer
from saga.console.state import ConsoleState
from saga.contract.messages import AnyMessage, Message, StepFinished, TenantsAnswer, TenantsAsk
from saga.contract.subjects import Subjects
from saga.contract.tenant_messages import TenantUse
from saga.kernel.effects import Received, Tick
from saga.runtime import metrics
from saga.runtime.app import App
from saga.runtime.bus import Bus, Incoming
from saga.runtime.clock import Clock, MonotonicClock
from saga.runtime.errors import BusUnavailable, MessageError, StartError
from saga.runtime.log import get_logger

TICK_S: Final = 1.0
ASK_TENANTS_S: Final = 2.0
TENANT_PAGES: Final = 8  # of 256 tenants
_SLICE: Final = 200  # replayed messages between two looks at the loop

log = get_logger()
VIEWERS = metrics.gauge("saga_console_viewers", "Pages that look")
FRAMES = metrics.counter("saga_console_frames_total", "Frames made")
WORKFLOWS = metrics.gauge("saga_console_workflows", "Workflows that can be shown")


class Console:
    """One console while it lives."""

    def __init__(self, settings: ConsoleSettings, bus: Bus, clock: Clock) -> None:
        self._settings = settings
        self._bus = bus
        self._clock = clock
        self._since_s = clock.monotonic_s()
        self._subjects = Subjects(settings.cell)
        self._watching = asyncio.Event()
        self._changed = asyncio.Condition()
        self.port = 0  # where it listens, once it does
        self.viewers = 0
        self.frames = FrameLog(secrets.token_hex(4))
        self.state = ConsoleState(
            cell=settings.cell,
            max_workflows=settings.max_workflows,
            wall_offset_s=clock.wall_s() - clock.monotonic_s() + self._since_s,
        )

    async def live(self, app: App) -> None:
        """From the tail of the step stream to the last page that looks."""
        server = ConsoleServer(self._settings, self)
        subjects = self._subjects
        subscriptions = [
            await self._bus.subscribe(subject, self._received)
            for subject in (
                subjects.worker_presence(),
                subjects.worker_standing(),
                subjects.step_ready(),
                subjects.step_admitted(),
                subjects.every_gateway(),
                subjects.every_step_end(),
                subjects.every_forecast(),
                subjects.every_sessions_released(),
                subjects.gateway_word(),
                subjects.leader_hello(),
                subjects.workflow_ended(),
            )
        ]
        await self._bus.barrier()
        await self._learn_the_past()
        app.spawn(self._tick(), name="console.tick")
        app.spawn(self._ask_tenants(), name="console.tenants")
        app.spawn(self._make_frames(), name="console.frames")
        try:
            self.port = await server.listen()
        except OSError as error:
            where = f"SAGA_CONSOLE_HOST={self._settings.host}, SAGA_CONSOLE_PORT={self._settings.port}"
            raise StartError(f"{where}: {error.strerror}") from error
        log.info("console.ready", port=self.port, workflows=len(self.state.table.workflows))
        await app.stopping.wait()
        await server.close()
        for subscription in subscriptions:
            await subscription.drain()

    # --- what pages ask --------------------------------------------------------------------------------------------

    @property
    def now_s(self) -> float:
        """On the console's own clock."""
        return self._clock.monotonic_s() - self._since_s

    @contextlib.contextmanager
    def viewing(self) -> Iterator[None]:
        """While somebody looks."""
        self.viewers += 1
        self._seen()
        try:
            yield
        finally:
            self.viewers -= 1
            self._seen()

    def whole_event(self) -> bytes:
        """Everything, as an event; frames after it go on from there."""
        return event_of(self.frames.boot, self.frames.number, self.state.whole(self.now_s))

    async def next_frame(self, number: int) -> None:
        """Returns when there is a frame after this one."""
        async with self._changed:
            await self._changed.wait_for(lambda: self.frames.number > number)

    async def ask(self, subject: str, message: Message) -> AnyMessage:
        """A question to another service. Raises BusUnavailable and MessageError."""
        return await self._bus.request(subject, message)

    @property
    def connected(self) -> bool:
        """Whether the bus is there."""
        return self._bus.connected

    # --- inside ----------------------------------------------------------------------------------------------------

    def feed(self, event: ConsoleEvent) -> None:
        """An event into the core, its frames to who looks."""
        for made in self.state.handle(event, self.now_s):
            self.frames.add(made.frame)
            FRAMES.inc()

    def _received(self, incoming: Incoming) -> None:
        self.state.handle(Received(incoming.message), self._clock.monotonic_s() - self._since_s)

    def _seen(self) -> None:
        VIEWERS.set(self.viewers)
        self.feed(Watched(by_anybody=self.viewers > 0))
        if self.viewers:
            self._watching.set()
        else:
            self._watching.clear()

    async def _learn_the_past(self) -> None:
        """The tail of the step stream, so that a page opened now shows more than from now on. Not needed."""
        if not self._settings.replay_s:
            return
        try:
            past = await self._bus.replay(self._subjects.every_step_end(), self._settings.replay_s)
        except BusUnavailable as error:
            log.warning("console.no_past", error=str(error))
            return
        for number, message in enumerate(past):
            self.feed(Replayed(message))
            if number % _SLICE == _SLICE - 1:
                await asyncio.sleep(0)
        log.info("console.past", steps=sum(isinstance(message, StepFinished) for message in past))

    async def _tick(self) -> None:
        while True:
            await asyncio.sleep(TICK_S)
            self.feed(Tick())
            WORKFLOWS.set(len(self.state.table.workflows))

    async def _make_frames(self) -> None:
        every_s = 1.0 / self._settings.frames_per_s
        while True:
            await self._watching.wait()
            self.feed(FrameDue())
            async with self._changed:
                self._changed.notify_all()
            await asyncio.sleep(every_s)

    async def _ask_tenants(self) -> None:
        """Weights and use, while somebody looks."""
        while True:
            await self._watching.wait()
            with contextlib.suppress(BusUnavailable, MessageError):
                self.feed(TenantsTold(await self._tenants()))
            await asyncio.sleep(ASK_TENANTS_S)

    async def _tenants(self) -> tuple[TenantUse, ...]:
        uses: list[TenantUse] = []
        for _ in range(TENANT_PAGES):
            ask = TenantsAsk(after=uses[-1].tenant if uses else "")
            answer = await self._bus.request(self._subjects.tenants_ask(), ask)
            if not isinstance(answer, TenantsAnswer):
                break
            uses += answer.tenants
            if not answer.more or not answer.tenants:
                break
        return tuple(uses)


async def serve(app: App, settings: ConsoleSettings, bus: Bus) -> None:
    """Run one console on this bus until told to stop."""
    await Console(settings, bus, MonotonicClock()).live(app)
