"""Keys with revisions in memory: the part of MemoryBus behind `kv()`."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field

from saga.runtime.bus import Entry, KvHandler, fail
from saga.runtime.errors import BusTimeout, KvConflict


@dataclass(slots=True)
class MemoryBucket:
    """What the server keeps: keys with entries, one revision counter for all."""

    revision: int = 0
    entries: dict[str, Entry] = field(default_factory=dict)
    changed: list[Callable[[], None]] = field(default_factory=list)  # a watch looks at the bucket again

    def write(self, key: str, value: bytes | None) -> int:
        """Stores (None: deletes) and wakes the watches; returns the revision."""
        self.revision += 1
        if value is None:
            self.entries.pop(key, None)
        else:
            self.entries[key] = Entry(value, self.revision)
        for look in list(self.changed):
            look()
        return self.revision


class MemoryKeyValue:
    """As saga.runtime.bus.KeyValue."""

    def __init__(
        self, bucket: MemoryBucket, name: str, require: Callable[[], None], failed: "asyncio.Future[None]"
    ) -> None:
        """`require` raises BusTimeout while the connection is cut off."""
        self._bucket = bucket
        self._name = name
        self._require = require
        self._failed = failed
        self._watches: list[_Watch] = []

    async def get(self, key: str) -> Entry | None:
        """As KeyValue."""
        self._require()
        return self._bucket.entries.get(key)

    async def put(self, key: str, value: bytes) -> int:
        """As KeyValue."""
        self._require()
        return self._bucket.write(key, value)

    async def create(self, key: str, value: bytes) -> int:
        """As KeyValue."""
        return self._cas(key, value, 0)

    async def update(self, key: str, value: bytes, revision: int) -> int:
        """As KeyValue."""
        return self._cas(key, value, revision)

    async def delete(self, key: str, revision: int | None = None) -> None:
        """As KeyValue."""
        self._require()
        if revision is not None:
            self._cas(key, None, revision)
        elif key in self._bucket.entries:
            self._bucket.write(key, None)

    async def keys(self) -> list[str]:
        """As KeyValue."""
        return sorted(await self.items())

    async def items(self) -> dict[str, Entry]:
        """As KeyValue."""
        self._require()
        return dict(self._bucket.entries)

    async def watch(self, handler: KvHandler) -> "_Watch":
        """As KeyValue."""
        self._require()
        watch = _Watch(self, handler, self._failed)
        self._watches.append(watch)
        self._bucket.changed.append(watch.look)
        await watch.start()
        return watch

    def look_again(self) -> None:
        """After a reconnect."""
        for watch in self._watches:
            watch.look()

    def close(self) -> None:
        """Ends all watches."""
        for watch in list(self._watches):
            watch.stop()

    def forget(self, watch: "_Watch") -> None:
        """A watch has ended."""
        if watch in self._watches:
            self._watches.remove(watch)
            self._bucket.changed.remove(watch.look)

    def entries(self) -> dict[str, Entry] | None:
        """What a watch sees: None while the connection is cut off."""
        try:
            self._require()
        except BusTimeout:
            return None
        return dict(self._bucket.entries)

    def _cas(self, key: str, value: bytes | None, revision: int) -> int:
        self._require()
        entry = self._bucket.entries.get(key)
        if (entry.revision if entry else 0) != revision:
            raise KvConflict(self._name, key, revision)
        return self._bucket.write(key, value)


class _Watch:
    """One watcher: compares the bucket with what it told last. As saga.runtime.bus.Subscription."""

    def __init__(self, store: MemoryKeyValue, handler: KvHandler, failed: "asyncio.Future[None]") -> None:
        self._store = store
        self._handler = handler
        self._failed = failed
        self._known: dict[str, Entry] = {}
        self._changed = asyncio.Event()
        self._idle = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Tells what is there, then follows."""
        await self._tell_changes()
        self._idle.set()
        self._task = asyncio.create_task(self._run(), name="memory kv watch")

    def look(self) -> None:
        """Something may have changed."""
        self._idle.clear()
        self._changed.set()

    def stop(self) -> None:
        """Ends at once."""
        self._store.forget(self)
        if self._task is not None and self._task is not asyncio.current_task():
            self._task.cancel()

    async def drain(self) -> None:
        """As Subscription."""
        if self._task is not None and not self._task.done() and self._changed.is_set():
            await self._idle.wait()
        self.stop()

    async def _run(self) -> None:
        while True:
            await self._changed.wait()
            self._changed.clear()
            await self._tell_changes()
            if not self._changed.is_set():
                self._idle.set()

    async def _tell_changes(self) -> None:
        entries = self._store.entries()
        if entries is None:
            return
        before, self._known = self._known, entries
        for key in before.keys() - entries.keys():
            await self._tell(key, None)
        for key, entry in sorted(entries.items(), key=lambda item: item[1].revision):
            if before.get(key) != entry:
                await self._tell(key, entry)

    async def _tell(self, key: str, entry: Entry | None) -> None:
        if self._failed.done():
            return
        try:
            done = self._handler(key, entry)
            if done is not None:
                await done
        except Exception as error:  # noqa: BLE001 - as in a message handler
            fail(self._failed, error)
