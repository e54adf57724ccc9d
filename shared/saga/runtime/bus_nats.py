"""The bus over NATS and JetStream.

nats-py does the work; this adds what it leaves open: a first connect that fails fast, sending that is bounded while the
server is away, a durable append that is sent again until acknowledged, and reconnects that put back what was created.
Sending while disconnected: nats-py keeps up to 2 MiB and sends them on reconnect, above that we drop and count.
"""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from typing import Self, TypeVar

import nats.errors
import nats.js.errors
from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.aio.subscription import Subscription as NatsSubscription
from nats.js import api

from saga.contract.messages import AnyMessage, Message, decode
from saga.contract.subjects import Subjects, stream_name
from saga.runtime import metrics
from saga.runtime.bus import (
    APPEND_TIMEOUT_S,
    DROPPED,
    REQUEST_TIMEOUT_S,
    Handler,
    Incoming,
    KeyValue,
    Reconnected,
    call_all,
    fail,
    pack,
    unpack,
)
from saga.runtime.errors import BusTimeout, BusUnavailable, NoResponders, StartError
from saga.runtime.kv_nats import UNAVAILABLE, NatsKeyValue
from saga.runtime.log import get_logger
from saga.runtime.nats_access import ANYBODY, NatsAccess, why_not

CONNECT_WITHIN_S = 2.0
START_WITHIN_S = 2.9  # connection and JetStream together; the promise is 3 s
DRAIN_WITHIN_S = 2.0
CLOSE_WITHIN_S = 1.0
RETRY_EVERY_S = 0.1
STEPS_MAX_AGE_S = 3600.0
STEPS_MAX_BYTES = 64 * 1024 * 1024
STEPS_DUPLICATE_WINDOW_S = 120.0
_NAME_IN_USE = 10058  # a stream of that name has another configuration

RECONNECTS = metrics.counter("saga_bus_reconnects_total", "Times this process found its NATS again")
SLOW = metrics.counter("saga_bus_slow_consumer_total", "Messages dropped because a handler was too slow")
REFUSED = metrics.counter("saga_bus_refused_total", "Subjects that NATS did not let this process publish or hear")
log = get_logger()
T = TypeVar("T")


class NatsBus:
    """As saga.runtime.bus.Bus. Made by `connect`."""

    def __init__(self, url: str, cell: str, replicas: int = 1, access: NatsAccess = ANYBODY) -> None:
        self.url = url
        self.cell = cell
        self._access = access
        self._replicas = replicas
        self.failed: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._client = Client()
        self._stream = stream_name(cell)
        self._here = asyncio.Event()
        self._buckets: dict[str, NatsKeyValue] = {}
        self._subscriptions: set[NatsSubscription] = set()
        self._reconnected: list[Reconnected] = []
        self._restoring: asyncio.Task[None] | None = None
        self._closing = False
        self._dialling: list[Exception] | None = []  # what went wrong until the first connection stood

    @classmethod
    async def connect(
        cls, url: str, *, name: str = "saga", cell: str = "main", replicas: int = 1, access: NatsAccess = ANYBODY
    ) -> Self:
        """Connects and makes sure the step stream exists. Raises StartError within 3 s if that fails.

        `url`: of all nodes, comma-separated, where NATS is a cluster; `replicas`: of what it keeps for us.
        """
        bus = cls(url, cell, replicas, access)
        deadline_s = asyncio.get_running_loop().time() + START_WITHIN_S
        try:
            await bus._dial(name)
            await bus._ensure_stream(deadline_s)
        except BaseException:
            await bus.close()
            raise
        return bus

    @property
    def connected(self) -> bool:
        """As Bus."""
        return self._client.is_connected and self._here.is_set()

    async def publish(self, subject: str, message: Message) -> None:
        """As Bus."""
        payload = pack(subject, message)
        try:
            await self._client.publish(subject, payload)
        except (
            nats.errors.OutboundBufferLimitError,
            nats.errors.ConnectionClosedError,
            nats.errors.ConnectionDrainingError,
        ):
            DROPPED.inc()

    async def request(self, subject: str, message: Message, timeout_s: float = REQUEST_TIMEOUT_S) -> AnyMessage:
        """As Bus."""
        payload = pack(subject, message)
        try:
            answer = await self._client.request(subject, payload, timeout=timeout_s)
        except nats.errors.NoRespondersError as error:
            raise NoResponders(subject) from error
        except (TimeoutError, nats.errors.Error) as error:
            raise BusTimeout(f"{subject}: no answer within {timeout_s} s") from error
        return decode(answer.data)

    async def subscribe(self, subject: str, handler: Handler, queue: str = "") -> "NatsSubscriptionHandle":
        """As Bus."""

        async def on_message(msg: Msg) -> None:
            message = unpack(msg.subject, msg.data)
            if message is None or self.failed.done():
                return
            try:
                done = handler(Incoming(self, msg.subject, message, msg.reply))
                if done is not None:
                    await done
            except Exception as error:  # noqa: BLE001 - whatever it is, the process must end on it
                fail(self.failed, error)

        subscription = await self._client.subscribe(subject, queue=queue, cb=on_message)
        self._subscriptions.add(subscription)
        return NatsSubscriptionHandle(subscription, self._subscriptions)

    async def append(self, subject: str, message: Message, message_id: str, timeout_s: float = APPEND_TIMEOUT_S) -> int:
        """As Bus."""
        payload = pack(subject, message)
        loop = asyncio.get_running_loop()
        deadline_s = loop.time() + timeout_s
        jetstream = self._client.jetstream()
        while (left_s := deadline_s - loop.time()) > 0 and not self._closing:
            try:
                async with asyncio.timeout(left_s):
                    await self._here.wait()  # not into nats-py's buffer: each try would be delivered on reconnect
                    acknowledged = await jetstream.publish(
                        subject, payload, timeout=min(left_s, 1.0), headers={api.Header.MSG_ID: message_id}
                    )
            except UNAVAILABLE:
                await asyncio.sleep(RETRY_EVERY_S)
            else:
                return int(acknowledged.seq)
        raise BusTimeout(f"{subject}: {message_id} not acknowledged within {timeout_s} s")

    async def replay(self, subject_filter: str, since_s: float) -> list[AnyMessage]:
        """As Bus."""
        since = datetime.now(UTC) - timedelta(seconds=since_s)
        config = api.ConsumerConfig(
            deliver_policy=api.DeliverPolicy.BY_START_TIME,
            opt_start_time=since,
            ack_policy=api.AckPolicy.NONE,
            inactive_threshold=10.0,
            mem_storage=True,
        )
        messages: list[AnyMessage] = []
        try:
            tail = await self._client.jetstream().pull_subscribe(subject_filter, stream=self._stream, config=config)
            try:
                pending = (await tail.consumer_info()).num_pending or 0
                while pending:
                    for msg in await tail.fetch(min(pending, 500), timeout=REQUEST_TIMEOUT_S):
                        pending = msg.metadata.num_pending
                        if (message := unpack(msg.subject, msg.data)) is not None:
                            messages.append(message)
            finally:
                await tail.unsubscribe()
        except UNAVAILABLE as error:
            raise BusTimeout(f"replay of {subject_filter}: {error}") from error
        return messages

    async def kv(self, bucket: str) -> KeyValue:
        """As Bus."""
        if bucket not in self._buckets:
            self._buckets[bucket] = await NatsKeyValue.open(
                self._client, self.cell, bucket, self.failed, self._replicas
            )
        return self._buckets[bucket]

    def on_reconnect(self, callback: Reconnected) -> None:
        """As Bus."""
        self._reconnected.append(callback)

    async def barrier(self) -> None:
        """As Bus. Twice, because nats-py's PING can overtake a SUB that still waits for its flusher task."""
        try:
            for _ in range(2):
                await self._client.flush(timeout=2)
        except (TimeoutError, nats.errors.Error) as error:
            raise BusTimeout(f"NATS at {self.url} does not answer") from error

    async def drain(self) -> None:
        """As Bus."""
        self._closing = True
        with contextlib.suppress(nats.errors.Error, asyncio.TimeoutError):
            async with asyncio.timeout(DRAIN_WITHIN_S):
                await self._client.drain()
        await self.close()

    async def close(self) -> None:
        """As Bus."""
        self._closing = True
        self._here.clear()
        if self._restoring is not None:
            self._restoring.cancel()
        # nats-py flushes into a connection that may be gone, which uvloop calls a RuntimeError
        with contextlib.suppress(OSError, TimeoutError, RuntimeError):
            async with asyncio.timeout(CLOSE_WITHIN_S):
                await self._client.close()

    async def _dial(self, name: str) -> None:
        """One quick attempt; from then on reconnects for ever."""
        try:
            async with asyncio.timeout(CONNECT_WITHIN_S):
                await self._client.connect(
                    [node.strip() for node in self.url.split(",")],
                    name=name,
                    error_cb=self._on_error,
                    disconnected_cb=self._on_disconnected,
                    reconnected_cb=self._on_reconnected,
                    connect_timeout=1,
                    max_reconnect_attempts=1,
                    reconnect_time_wait=0.1,  # type: ignore[arg-type]  # annotated int, used in sleep()
                    ping_interval=2,
                    max_outstanding_pings=2,  # a server that went silent is noticed within 6 s
                    drain_timeout=2,
                    flush_timeout=1.0,
                    **self._access.options(),
                )
        except (TimeoutError, nats.errors.Error, OSError, ValueError) as error:
            raise StartError(why_not(self.url, self._access.user, [*(self._dialling or ()), error])) from error
        self._dialling = None
        self._client.options["max_reconnect_attempts"] = -1
        self._here.set()

    async def _ensure_stream(self, deadline_s: float) -> None:
        loop = asyncio.get_running_loop()
        while True:
            try:
                async with asyncio.timeout_at(deadline_s):
                    await self._create_stream()
            except (TimeoutError, BusUnavailable) as error:
                if loop.time() + RETRY_EVERY_S >= deadline_s:
                    raise StartError(
                        f"NATS at {self.url} has no JetStream ready: start it with `-js -sd DIRECTORY` ({error})"
                    ) from error
                await asyncio.sleep(RETRY_EVERY_S)  # JetStream starts a moment after the listener
            except nats.js.errors.APIError as error:
                raise StartError(f"NATS at {self.url} refuses stream {self._stream}: {error.description}") from error
            else:
                return

    async def _create_stream(self) -> None:
        jetstream = self._client.jetstream(timeout=REQUEST_TIMEOUT_S)
        config = api.StreamConfig(
            name=self._stream,
            subjects=[Subjects(self.cell).every_step_end()],
            storage=api.StorageType.FILE,
            max_age=STEPS_MAX_AGE_S,
            max_bytes=STEPS_MAX_BYTES,
            duplicate_window=STEPS_DUPLICATE_WINDOW_S,
            num_replicas=self._replicas,
        )
        try:
            await jetstream.add_stream(config)
        except nats.js.errors.BadRequestError as error:
            if error.err_code != _NAME_IN_USE:
                raise
            await jetstream.update_stream(config)
        except UNAVAILABLE as error:
            raise BusTimeout(str(error) or type(error).__name__) from error

    async def _on_error(self, error: Exception) -> None:
        if self._dialling is not None:
            self._dialling.append(error)
        if isinstance(error, nats.errors.SlowConsumerError):
            SLOW.inc()
            log.warning("bus.slow_consumer", subject=error.subject)
        elif "permissions violation" in str(error).lower():
            REFUSED.inc()
            log.warning("bus.refused", user=self._access.user, error=str(error))
        else:
            log.debug("bus.error", error=repr(error))

    async def _on_disconnected(self) -> None:
        self._here.clear()
        if not self._closing:
            log.warning("bus.disconnected", url=self.url)

    async def _on_reconnected(self) -> None:
        RECONNECTS.inc()
        self._here.set()
        log.info("bus.reconnected", url=self.url)
        if self._restoring is not None:
            self._restoring.cancel()
        self._restoring = asyncio.create_task(self._restore(), name="bus.restore")

    async def _restore(self) -> None:
        """After a reconnect: tell the service, then put back streams a fresh server lacks and look at keys again."""
        try:
            await _until_available(lambda: call_all(self._reconnected))
            await _until_available(self._create_stream)
            for bucket in list(self._buckets.values()):
                await _until_available(bucket.restore)
        except Exception as error:  # noqa: BLE001 - as in a handler
            fail(self.failed, error)


class NatsSubscriptionHandle:
    """As saga.runtime.bus.Subscription."""

    def __init__(self, subscription: NatsSubscription, known: set[NatsSubscription]) -> None:
        self._subscription = subscription
        self._known = known

    async def drain(self) -> None:
        """As Subscription. While the server is away there is nothing to wait for but what is here."""
        self._known.discard(self._subscription)
        with contextlib.suppress(nats.errors.Error, asyncio.TimeoutError):
            async with asyncio.timeout(DRAIN_WITHIN_S):
                await self._subscription.drain()  # type: ignore[no-untyped-call]


async def _until_available(act: Callable[[], Awaitable[T]]) -> T:
    while True:
        try:
            return await act()
        except BusUnavailable as error:
            log.info("bus.restore_waits", error=str(error))
            await asyncio.sleep(RETRY_EVERY_S)
