"""Keys with revisions over JetStream KV: the part of NatsBus behind `kv()`.

Watching does not use JetStream consumers, which die with a server: the bucket republishes each stored write on a core
subject, and a pass over all keys at the start and after each reconnect fills the gaps.
"""

import asyncio
import contextlib
from collections.abc import Awaitable
from typing import Self, TypeVar

import nats.errors
import nats.js.errors
from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.aio.subscription import Subscription as NatsSubscription
from nats.js import api
from nats.js.kv import KV_DEL, KV_OP, KV_PURGE
from nats.js.kv import KeyValue as NatsBucket

from saga.runtime.bus import Entry, KvHandler, fail
from saga.runtime.errors import BusTimeout, KvConflict

KV_TIMEOUT_S = 1.0
SCAN_WITHIN_S = 10.0
_NAME_IN_USE = 10058
# What means "not now": the server is away, or its JetStream is not up yet.
UNAVAILABLE = (
    asyncio.TimeoutError,
    nats.errors.TimeoutError,
    nats.errors.NoRespondersError,
    nats.errors.ConnectionClosedError,
    nats.errors.ConnectionDrainingError,
    nats.errors.ConnectionReconnectingError,
    nats.errors.OutboundBufferLimitError,
    nats.js.errors.NoStreamResponseError,
    nats.js.errors.ServiceUnavailableError,
    nats.js.errors.ServerError,
)
T = TypeVar("T")


class NatsKeyValue:
    """As saga.runtime.bus.KeyValue. Made by `open`."""

    def __init__(
        self, client: Client, cell: str, bucket: str, failed: "asyncio.Future[None]", replicas: int = 1
    ) -> None:
        self._client = client
        self._replicas = replicas
        self._cell = cell
        self._name = bucket
        self._failed = failed
        self._watches: list[_Watch] = []
        self._bucket: NatsBucket

    @classmethod
    async def open(
        cls, client: Client, cell: str, bucket: str, failed: "asyncio.Future[None]", replicas: int = 1
    ) -> Self:
        """Opens the bucket, creating it if need be. Raises BusUnavailable."""
        opened = cls(client, cell, bucket, failed, replicas)
        await opened._create()
        return opened

    async def get(self, key: str) -> Entry | None:
        """As KeyValue."""
        try:
            entry = await self._now(self._bucket.get(key))
        except nats.js.errors.KeyNotFoundError:
            return None
        return Entry(entry.value or b"", entry.revision or 0)

    async def put(self, key: str, value: bytes) -> int:
        """As KeyValue."""
        return await self._now(self._bucket.put(key, value))

    async def create(self, key: str, value: bytes) -> int:
        """As KeyValue."""
        return await self._cas(key, 0, self._bucket.create(key, value))

    async def update(self, key: str, value: bytes, revision: int) -> int:
        """As KeyValue."""
        return await self._cas(key, revision, self._bucket.update(key, value, last=revision))

    async def delete(self, key: str, revision: int | None = None) -> None:
        """As KeyValue."""
        try:
            await self._now(self._bucket.delete(key, last=revision))
        except nats.js.errors.APIError as error:
            if revision is None:
                raise
            raise KvConflict(self._name, key, revision) from error

    async def keys(self) -> list[str]:
        """As KeyValue."""
        return sorted(await self.items())

    async def items(self) -> dict[str, Entry]:
        """As KeyValue."""
        try:
            return await self._now(self._scan(), SCAN_WITHIN_S)
        except nats.js.errors.NotFoundError as error:  # a fresh server, before `restore` has run
            raise BusTimeout(f"bucket {self._name} does not exist (yet)") from error

    async def watch(self, handler: KvHandler) -> "_Watch":
        """As KeyValue."""
        watch = _Watch(self, handler, self._failed)
        subject = f"{self._changes}.>"
        watch.subscription = await self._now(self._client.subscribe(subject, cb=watch.on_message))
        for _ in range(2):
            await self._now(self._client.flush(timeout=1))
        self._watches.append(watch)
        await watch.look_again()
        return watch

    async def restore(self) -> None:
        """After a reconnect: creates the bucket if the server has lost it and tells watchers what changed."""
        await self._create()
        for watch in list(self._watches):
            await watch.look_again()

    def forget(self, watch: "_Watch") -> None:
        """A watch has ended."""
        if watch in self._watches:
            self._watches.remove(watch)

    @property
    def prefix_length(self) -> int:
        """Of the subject on which changes are republished, up to the key."""
        return len(self._changes) + 1

    @property
    def _changes(self) -> str:
        return f"saga.{self._cell}.kv.{self._name}"

    async def _create(self) -> None:
        jetstream = self._client.jetstream(timeout=KV_TIMEOUT_S)
        config = api.KeyValueConfig(
            bucket=self._name,
            history=1,
            storage=api.StorageType.FILE,
            replicas=self._replicas,
            republish=api.RePublish(src=f"$KV.{self._name}.>", dest=f"{self._changes}.>"),
        )
        try:
            self._bucket = await self._now(jetstream.create_key_value(config))
        except nats.js.errors.BadRequestError as error:
            if error.err_code != _NAME_IN_USE:
                raise
            self._bucket = await self._now(jetstream.key_value(self._name))

    async def _scan(self) -> dict[str, Entry]:
        """One pass over the bucket through a consumer of its own.

        Ends with the entry that has none after it. The watcher's own mark for that, a None, is no use: it is put ahead
        of entries that were delivered before it asked how many are still to come.
        """
        found: dict[str, Entry] = {}
        if (await self._bucket.status()).values == 0:
            return found
        watcher = await self._bucket.watchall()
        try:
            async for entry in watcher:
                if entry is None:
                    continue
                if entry.operation is None:  # neither deleted nor purged
                    found[entry.key] = Entry(entry.value or b"", entry.revision)
                if entry.delta == 0:
                    break
        finally:
            with contextlib.suppress(nats.errors.Error):
                await watcher.stop()  # type: ignore[no-untyped-call]
        return found

    async def _cas(self, key: str, revision: int, write: Awaitable[int]) -> int:
        try:
            return await self._now(write)
        except nats.js.errors.KeyWrongLastSequenceError as error:
            raise KvConflict(self._name, key, revision) from error

    async def _now(self, act: Awaitable[T], within_s: float = 2 * KV_TIMEOUT_S) -> T:
        """The result, or BusUnavailable within a bounded time."""
        try:
            async with asyncio.timeout(within_s):
                return await act
        except UNAVAILABLE as error:
            raise BusTimeout(f"bucket {self._name}: {type(error).__name__}") from error


class _Watch:
    """One watcher: changes in revision order, one at a time. As saga.runtime.bus.Subscription."""

    def __init__(self, bucket: NatsKeyValue, handler: KvHandler, failed: "asyncio.Future[None]") -> None:
        self._bucket = bucket
        self._handler = handler
        self._failed = failed
        self._known: dict[str, int] = {}  # revision last told, of keys that exist
        self._turn = asyncio.Lock()
        self._seen = 0  # revisions up to here came with a pass
        self.subscription: NatsSubscription

    async def on_message(self, msg: Msg) -> None:
        """A write that the bucket has stored."""
        headers = msg.headers or {}
        key = msg.subject[self._bucket.prefix_length :]
        revision = int(headers["Nats-Sequence"])
        gone = headers.get(KV_OP) in {KV_DEL, KV_PURGE}
        async with self._turn:
            if revision > max(self._seen, self._known.get(key, 0)):
                await self._tell(key, None if gone else Entry(msg.data, revision))

    async def look_again(self) -> None:
        """A pass over all keys; live changes wait meanwhile and are told after it."""
        async with self._turn:
            found = await self._bucket.items()
            for key in [key for key in self._known if key not in found]:
                await self._tell(key, None)
            for key, entry in found.items():
                if self._known.get(key) != entry.revision:
                    await self._tell(key, entry)
            self._seen = max((entry.revision for entry in found.values()), default=0)

    async def drain(self) -> None:
        """As Subscription."""
        self._bucket.forget(self)
        with contextlib.suppress(nats.errors.Error, asyncio.TimeoutError):
            async with asyncio.timeout(2 * KV_TIMEOUT_S):
                await self.subscription.drain()  # type: ignore[no-untyped-call]

    async def _tell(self, key: str, entry: Entry | None) -> None:
        if entry is None:
            if self._known.pop(key, None) is None:
                return
        else:
            self._known[key] = entry.revision
        if self._failed.done():
            return
        try:
            done = self._handler(key, entry)
            if done is not None:
                await done
        except Exception as error:  # noqa: BLE001 - as in a message handler
            fail(self._failed, error)
