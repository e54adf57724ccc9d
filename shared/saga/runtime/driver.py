"""Drives a pure core over the bus: messages become events, effects are performed, timers become ticks.

Composed by a service, not inherited: the service says what to subscribe to and what a message means; this performs
what every core may ask (`saga.kernel.effects`). While the bus is away no time passes for the core: nobody could have
been heard, so nobody is late.
"""

import asyncio
from collections.abc import Callable
from typing import Any, Protocol

from saga.kernel.effects import (
    Answer,
    Append,
    Effect,
    Forget,
    Log,
    Persist,
    Publish,
    Received,
    Reconnected,
    Request,
    Tick,
    WakeAt,
)
from saga.runtime.bus import Bus, Incoming, Subscription
from saga.runtime.clock import Clock, MonotonicClock
from saga.runtime.log import get_logger
from saga.runtime.recording import Handle

log = get_logger()
AWAY_RETRY_S = 0.25


class Core(Protocol):
    """A core with its one door."""

    def handle(self, event: Any, now_s: float) -> list[Effect]:  # noqa: ANN401 - each core has its own events
        """Take an event, return what to do about it."""
        ...


class Driver:
    """One core on one bus."""

    def __init__(
        self,
        core: Core,
        bus: Bus,
        *,
        write_behind: Callable[[Persist | Forget], None] | None = None,
        clock: Clock | None = None,
        handle: Handle | None = None,
    ) -> None:
        """`write_behind` takes the rows that the core wants kept; a core without any needs none. `handle`: the core's
        door, if somebody records who goes through it."""
        self._handle = handle or core.handle
        self._bus = bus
        self._write_behind = write_behind
        self._clock = clock or MonotonicClock()
        self._timer: asyncio.TimerHandle | None = None
        self._timer_s = 0.0
        self._ticks: set[asyncio.Task[None]] = set()
        self.failed: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    async def start(self, subjects: list[str]) -> None:
        """Follows these for life; returns when the server knows. Ticks begin."""
        await self.listen(subjects)
        self._bus.on_reconnect(self._reconnected)
        self._tick()

    async def listen(self, subjects: list[str]) -> list[Subscription]:
        """Subscribes to each; returns when the server knows."""
        subscriptions = [await self._bus.subscribe(subject, self.hear) for subject in subjects]
        await self._bus.barrier()
        return subscriptions

    async def watch(self) -> None:
        """Raises what a tick raised: nothing limps."""
        await asyncio.shield(self.failed)

    async def hear(self, incoming: Incoming) -> None:
        """One message from the bus."""
        await self.tell(Received(incoming.message), incoming)

    async def tell(self, event: object, incoming: Incoming | None = None) -> None:
        """The core handles an event; its effects happen in order."""
        now_s = self._clock.monotonic_s()
        for effect in self._handle(event, now_s):
            match effect:
                case Publish(subject, message):
                    await self._bus.publish(subject, message)
                case Answer(message):
                    if incoming is not None:
                        await incoming.respond(message)
                case WakeAt(at_s):
                    self._wake_at(at_s, now_s)
                case Persist() | Forget():
                    if self._write_behind is not None:
                        self._write_behind(effect)
                case Log(event=name, facts=facts):
                    log.info(name, **facts)
                case Append(subject, message, message_id):
                    await self._bus.append(subject, message, message_id)
                case Request():
                    raise TypeError("this driver asks nobody: a core that does needs a shell of its own")

    def stop(self) -> None:
        """No more ticks."""
        if self._timer is not None:
            self._timer.cancel()

    async def _reconnected(self) -> None:
        await self.tell(Reconnected())

    def _wake_at(self, at_s: float, now_s: float) -> None:
        if self._timer is not None:
            if at_s >= self._timer_s:
                return
            self._timer.cancel()
        self._timer_s = at_s
        self._timer = asyncio.get_running_loop().call_later(max(0.0, at_s - now_s), self._tick)

    def _tick(self) -> None:
        self._timer = None
        if not self._bus.connected:
            now_s = self._clock.monotonic_s()
            self._wake_at(now_s + AWAY_RETRY_S, now_s)
            return
        task = asyncio.get_running_loop().create_task(self.tell(Tick()), name="tick")
        self._ticks.add(task)
        task.add_done_callback(self._ticked)

    def _ticked(self, task: "asyncio.Task[None]") -> None:
        self._ticks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None and not self.failed.done():
            self.failed.set_exception(error)
            self.failed.exception()
