"""The bus inside one process: for tests, failure injection and parity checks. Not for production.

Several MemoryBus share one MemoryBroker. `kill()` ends a connection as SIGKILL would; `cut()` and `heal()` are a
network that goes away and returns, with NATS's habit of keeping what was sent meanwhile.
"""

import asyncio
import contextlib
from collections import deque
from collections.abc import Callable
from itertools import count
from typing import TypeAlias

from saga.contract.messages import AnyMessage, Message, decode
from saga.runtime.bus import (
    APPEND_TIMEOUT_S,
    DROPPED,
    REQUEST_TIMEOUT_S,
    Handler,
    Incoming,
    Reconnected,
    call_all,
    fail,
    pack,
    unpack,
)
from saga.runtime.errors import BusTimeout, BusUnavailable, NoResponders
from saga.runtime.kv_memory import MemoryKeyValue
from saga.runtime.memory_broker import MemoryBroker

_BUFFER_BYTES = 2 * 1024 * 1024  # as nats-py keeps while disconnected
_numbers = count(1)
Take: TypeAlias = Callable[[bytes], None]


class MemoryBus:
    """As saga.runtime.bus.Bus. Needs a running event loop."""

    def __init__(self, broker: MemoryBroker, name: str = "", cell: str = "main") -> None:
        self.broker = broker
        self.name = name or f"bus-{next(_numbers)}"
        self.cell = cell
        self.failed: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._up = asyncio.Event()
        self._up.set()
        self._closed = False
        self._subscriptions: list[MemorySubscription] = []
        self._buckets: dict[str, MemoryKeyValue] = {}
        self._reconnected: list[Reconnected] = []
        self._kept: deque[tuple[str, bytes, str]] = deque()
        self._kept_bytes = 0
        self._inbox = f"_INBOX.{next(_numbers)}"
        self._requests = count(1)

    @property
    def connected(self) -> bool:
        """As Bus."""
        return self._up.is_set() and not self._closed

    async def publish(self, subject: str, message: Message) -> None:
        """As Bus."""
        self._send(subject, pack(subject, message), "")

    async def request(self, subject: str, message: Message, timeout_s: float = REQUEST_TIMEOUT_S) -> AnyMessage:
        """As Bus."""
        payload = pack(subject, message)
        answered: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()
        inbox = f"{self._inbox}.{next(self._requests)}"

        def take(payload: bytes) -> None:
            if not answered.done():
                answered.set_result(payload)

        waiting = MemorySubscription(self, inbox, "", None, take)
        self.broker.add(waiting)
        try:
            if self._send(subject, payload, inbox) == 0 and self.connected:
                raise NoResponders(subject)
            async with asyncio.timeout(timeout_s):
                return decode(await answered)
        except TimeoutError as error:
            raise BusTimeout(f"{subject}: no answer within {timeout_s} s") from error
        finally:
            self.broker.remove(waiting)

    async def subscribe(self, subject: str, handler: Handler, queue: str = "") -> "MemorySubscription":
        """As Bus."""
        subscription = MemorySubscription(self, subject, queue, handler)
        self._subscriptions.append(subscription)
        self.broker.add(subscription)
        subscription.start()
        return subscription

    async def append(self, subject: str, message: Message, message_id: str, timeout_s: float = APPEND_TIMEOUT_S) -> int:
        """As Bus."""
        payload = pack(subject, message)
        try:
            async with asyncio.timeout(timeout_s):
                await self._up.wait()
        except TimeoutError as error:
            raise BusTimeout(f"{subject}: {message_id} not acknowledged within {timeout_s} s") from error
        self._send(subject, payload, "")
        return self.broker.store(subject, payload, message_id)

    async def replay(self, subject_filter: str, since_s: float) -> list[AnyMessage]:
        """As Bus."""
        self.require()
        stored = self.broker.tail(subject_filter, since_s)
        return [message for one in stored if (message := unpack(one.subject, one.payload)) is not None]

    async def kv(self, bucket: str) -> "MemoryKeyValue":
        """As Bus."""
        self.require()
        if bucket not in self._buckets:
            self._buckets[bucket] = MemoryKeyValue(self.broker.bucket(bucket), bucket, self.require, self.failed)
        return self._buckets[bucket]

    def on_reconnect(self, callback: Reconnected) -> None:
        """As Bus."""
        self._reconnected.append(callback)

    async def barrier(self) -> None:
        """As Bus."""
        self.require()

    async def drain(self) -> None:
        """As Bus."""
        for subscription in list(self._subscriptions):
            await subscription.drain()
        await self.close()

    async def close(self) -> None:
        """As Bus."""
        self.kill()

    def kill(self) -> None:
        """Ends the connection with whatever it had not handled yet."""
        self._closed = True
        for subscription in list(self._subscriptions):
            subscription.stop()
        for bucket in self._buckets.values():
            bucket.close()

    def cut(self) -> None:
        """The network goes away: nothing arrives, what is sent is kept up to 2 MiB."""
        self._up.clear()

    async def heal(self) -> None:
        """The network returns: what was kept is sent, watches look again, reconnect callbacks run."""
        self._up.set()
        while self._kept:
            subject, payload, reply = self._kept.popleft()
            self.broker.send(self, subject, payload, reply)
        self._kept_bytes = 0
        with contextlib.suppress(BusUnavailable):
            await call_all(self._reconnected)
        for bucket in self._buckets.values():
            bucket.look_again()

    def require(self) -> None:
        """Raises BusTimeout while cut off or closed."""
        if not self.connected:
            raise BusTimeout(f"{self.name} is cut off")

    def _send(self, subject: str, payload: bytes, reply: str) -> int:
        if self.connected:
            return self.broker.send(self, subject, payload, reply)
        if self._closed or self._kept_bytes + len(payload) > _BUFFER_BYTES:
            DROPPED.inc()
        else:
            self._kept.append((subject, payload, reply))
            self._kept_bytes += len(payload)
        return 0


class MemorySubscription:
    """As saga.runtime.bus.Subscription; also the inbox of one request (`take`)."""

    def __init__(
        self, bus: MemoryBus, subject: str, queue: str, handler: Handler | None, take: Take | None = None
    ) -> None:
        self.bus = bus
        self.subject = subject
        self.queue = queue
        self._handler = handler
        self._take = take
        self._arrived: asyncio.Queue[tuple[str, bytes, str]] = asyncio.Queue()
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begins to handle what arrives."""
        self._task = asyncio.create_task(self._run(), name=f"{self.bus.name} {self.subject}")

    def put(self, subject: str, payload: bytes, reply: str) -> None:
        """The broker delivers; lost if the connection is cut off."""
        if not self.bus.connected:
            return
        if self._take is not None:
            self._take(payload)
        else:
            self._arrived.put_nowait((subject, payload, reply))

    def stop(self) -> None:
        """Ends at once."""
        self.bus.broker.remove(self)
        if self._task is not None and self._task is not asyncio.current_task():
            self._task.cancel()

    async def drain(self) -> None:
        """As Subscription."""
        self.bus.broker.remove(self)
        if self._task is not None and not self._task.done():
            await self._arrived.join()
        self.stop()

    async def _run(self) -> None:
        while True:
            subject, payload, reply = await self._arrived.get()
            try:
                await self._handle(subject, payload, reply)
            finally:
                self._arrived.task_done()

    async def _handle(self, subject: str, payload: bytes, reply: str) -> None:
        message = unpack(subject, payload)
        if message is None or self._handler is None or self.bus.failed.done():
            return
        try:
            done = self._handler(Incoming(self.bus, subject, message, reply))
            if done is not None:
                await done
        except Exception as error:  # noqa: BLE001 - whatever it is, the process must end on it
            fail(self.bus.failed, error)
