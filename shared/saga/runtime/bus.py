"""The bus as services see it: publish, request, subscribe, a durable stream of step ends, and keys with revisions.

Two implementations pass one suite (tests/integration/test_bus.py): NatsBus for production, MemoryBus for tests and
failure injection. Core messages are at-most-once: what must not be lost goes through `append`, or is said again.
"""

import asyncio
import inspect
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Protocol, TypeAlias

from saga.contract.messages import MAX_MESSAGE_BYTES, AnyMessage, Message, decode, encode
from saga.runtime import metrics
from saga.runtime.errors import MessageError, MessageTooLarge
from saga.runtime.log import get_logger

__all__ = ["Bus", "Entry", "Handler", "Incoming", "KeyValue", "KvHandler", "Reconnected", "Subscription", "pack"]

log = get_logger()
UNDECODABLE = metrics.counter("saga_bus_undecodable_total", "Messages that were not ours, dropped")
DROPPED = metrics.counter("saga_bus_dropped_total", "Messages not sent: the bus was away or we were leaving")

REQUEST_TIMEOUT_S = 1.0
APPEND_TIMEOUT_S = 30.0  # longer than a restart of NATS


class Incoming:
    """One message that arrived."""

    __slots__ = ("_bus", "_reply", "message", "subject")

    def __init__(self, bus: "Bus", subject: str, message: AnyMessage, reply: str) -> None:
        self._bus = bus
        self._reply = reply
        self.subject = subject
        self.message = message

    @property
    def wants_answer(self) -> bool:
        """Whether this is a request."""
        return self._reply != ""

    async def respond(self, message: Message) -> None:
        """Answers a request; does nothing if nobody asked."""
        if self._reply:
            await self._bus.publish(self._reply, message)


@dataclass(frozen=True, slots=True)
class Entry:
    """A key's value and the revision that wrote it; revisions grow over the whole bucket."""

    value: bytes
    revision: int


Handler: TypeAlias = Callable[[Incoming], Awaitable[None] | None]
KvHandler: TypeAlias = Callable[[str, Entry | None], Awaitable[None] | None]  # key; None: deleted
Reconnected: TypeAlias = Callable[[], Awaitable[None] | None]


class Subscription(Protocol):
    """A running subscription or watch."""

    async def drain(self) -> None:
        """No new messages; returns when those already here have been handled."""
        ...


class KeyValue(Protocol):
    """A bucket of small values. Every method raises BusUnavailable when the store does not answer in about 1 s."""

    async def get(self, key: str) -> Entry | None:
        """The newest entry, None if there is none."""
        ...

    async def put(self, key: str, value: bytes) -> int:
        """Writes whatever was there; returns the new revision."""
        ...

    async def create(self, key: str, value: bytes) -> int:
        """Writes a key that does not exist; returns its revision. Raises KvConflict if it does."""
        ...

    async def update(self, key: str, value: bytes, revision: int) -> int:
        """Writes a key last written by `revision`; returns the new one. Raises KvConflict otherwise."""
        ...

    async def delete(self, key: str, revision: int | None = None) -> None:
        """Deletes a key (none there: no error); with a revision, only if that is its last (KvConflict)."""
        ...

    async def keys(self) -> list[str]:
        """All keys, sorted."""
        ...

    async def items(self) -> dict[str, Entry]:
        """All keys with their entries, in one pass."""
        ...

    async def watch(self, handler: KvHandler) -> Subscription:
        """Calls `handler` for every key there is, then for every change. A key's revisions only grow; changes in
        between may be skipped; after a reconnect what changed meanwhile is told. Returns after the first pass."""
        ...


class Bus(Protocol):
    """One connection of one process."""

    @property
    def connected(self) -> bool:
        """Whether the bus is there right now."""
        ...

    @property
    def failed(self) -> "asyncio.Future[None]":
        """Gets the exception of a handler that raised: nothing limps. `app.attach(bus)` ends the process on it."""
        ...

    async def publish(self, subject: str, message: Message) -> None:
        """Sends, at most once. While the bus is away up to 2 MiB are kept and sent later, the rest is dropped and
        counted; never waits for the bus to return, never raises for its absence. Raises MessageTooLarge."""
        ...

    async def request(self, subject: str, message: Message, timeout_s: float = REQUEST_TIMEOUT_S) -> AnyMessage:
        """Sends and waits for one answer. Raises BusTimeout, NoResponders, MessageTooLarge, MessageError."""
        ...

    async def subscribe(self, subject: str, handler: Handler, queue: str = "") -> Subscription:
        """Calls `handler` for each message, one at a time, in order; an awaitable it returns is awaited first, so it
        must be quick. `queue`: members of one queue share the messages. Call barrier() before saying hello."""
        ...

    async def append(self, subject: str, message: Message, message_id: str, timeout_s: float = APPEND_TIMEOUT_S) -> int:
        """Writes to the cell's step stream and returns the sequence; sent again until acknowledged, stored once per
        `message_id` (within 2 minutes). Subscribers may see it more than once. Raises BusTimeout."""
        ...

    async def replay(self, subject_filter: str, since_s: float) -> list[AnyMessage]:
        """What the step stream got on `subject_filter` in the last `since_s` seconds, oldest first."""
        ...

    async def kv(self, bucket: str) -> KeyValue:
        """Opens a bucket, created on demand (file storage, history 1). The same object each time."""
        ...

    def on_reconnect(self, callback: Reconnected) -> None:
        """`callback` runs after each reconnect, subscriptions already in place: say again what must be known."""
        ...

    async def barrier(self) -> None:
        """Returns when the server knows all subscriptions made so far. Raises BusTimeout."""
        ...

    async def drain(self) -> None:
        """Drains all subscriptions, sends what is pending, then closes. Bounded; finish spawned work before."""
        ...

    async def close(self) -> None:
        """Closes at once. Idempotent."""
        ...


def pack(subject: str, message: Message) -> bytes:
    """The payload of a message, within the contract's limit."""
    payload = encode(message)
    if len(payload) > MAX_MESSAGE_BYTES:
        raise MessageTooLarge(subject, len(payload), MAX_MESSAGE_BYTES)
    return payload


def unpack(subject: str, payload: bytes) -> AnyMessage | None:
    """The message in a payload; None, counted and logged, if it is not one of ours."""
    try:
        return decode(payload)
    except MessageError as error:
        UNDECODABLE.inc()
        log.warning("bus.undecodable", subject=subject, size=len(payload), error=str(error))
        return None


def fail(failed: "asyncio.Future[None]", error: BaseException) -> None:
    """Records the first failure of a handler."""
    if not failed.done():
        failed.set_exception(error)
        failed.exception()  # whoever awaits it still gets it; nobody is warned if no one does


async def call_all(callbacks: Sequence[Reconnected]) -> None:
    """Runs reconnect callbacks in order."""
    for callback in callbacks:
        done = callback()
        if inspect.isawaitable(done):
            await done
