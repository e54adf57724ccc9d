"""Leadership by a lease in a KV key: one holder, standbys that watch, a fence that grows with each holder.

The lease is a key that its holder keeps rewriting; a standby that has not seen it change for `lease_s` on its own clock
takes it by compare-and-swap. That does not make two leaders impossible, it makes the older one harmless: whoever reads
messages drops a lower fence, and a leader whose key was taken steps down at its next renewal. A leader that cannot
reach the store goes on.
"""

import asyncio
import contextlib
import inspect
import secrets
from collections.abc import Awaitable, Callable
from typing import TypeAlias, TypeVar

import msgspec

from saga.contract.subjects import kv_bucket
from saga.runtime.bus import Bus, Entry, KeyValue
from saga.runtime.clock import Clock, MonotonicClock
from saga.runtime.errors import BusTimeout, BusUnavailable, KvConflict
from saga.runtime.log import get_logger

LEASE_S = 1.2
_RENEWALS_PER_LEASE = 4

Promoted: TypeAlias = Callable[[int], Awaitable[None] | None]  # gets the fence
Demoted: TypeAlias = Callable[[], Awaitable[None] | None]
T = TypeVar("T")
log = get_logger()


class Lease(msgspec.Struct, frozen=True, kw_only=True):
    """The key's value: who holds it. `nonce` tells incarnations of one holder apart."""

    holder: str
    nonce: str


class Leader:
    """One candidate for the lead of `service`. Spawn `run()`, read `leading` and `fence`, end with `release()`."""

    def __init__(
        self,
        bus: Bus,
        service: str,
        holder_id: str,
        *,
        on_promoted: Promoted,
        on_demoted: Demoted,
        lease_s: float = LEASE_S,
        cell: str = "main",
        clock: Clock | None = None,
    ) -> None:
        """The callbacks are awaited by `run`, in turn; if one raises, `run` does."""
        self.service = service
        self.holder_id = holder_id
        self.lease_s = lease_s
        self.leading = False
        self.fence = 0  # of this candidate's last term: the KV revision that won it; 0 before the first
        self._bus = bus
        self._bucket = kv_bucket(cell, "leaders")
        self._clock = clock or MonotonicClock()
        self._on_promoted = on_promoted
        self._on_demoted = on_demoted
        self._value = msgspec.msgpack.encode(Lease(holder=holder_id, nonce=secrets.token_hex(8)))
        self._revision = 0  # newest known of the key; 0: there is no key
        self._highest = 0  # newest ever seen: a store that lost its data must not lead to lower fences
        self._changed_s = 0.0  # when the key last changed, on our clock
        self._in_term = False  # between on_promoted and on_demoted
        self._wake = asyncio.Event()
        self._released = asyncio.Event()
        self._running: asyncio.Event | None = None  # set when `run` has ended

    async def run(self) -> None:
        """Takes part until `release()`."""
        self._running = asyncio.Event()
        try:
            store = await self._reach(lambda: self._bus.kv(self._bucket))
            watch = await self._reach(lambda: store.watch(self._on_change))
            self._bus.on_reconnect(self._restart_waiting)
            try:
                while not self._released.is_set():
                    if self._in_term:
                        await self._renew(store)
                    else:
                        await self._stand_by(store)
                await self._let_go(store)
            finally:
                await watch.drain()
        except _Released:
            pass
        finally:
            self._running.set()

    async def release(self) -> None:
        """Steps down and deletes the key, so that a standby takes over at once. Returns when `run` has ended."""
        self._released.set()
        self._wake.set()
        if self._running is not None:
            await self._running.wait()

    def observe(self, fence: int) -> None:
        """A fence seen in a message of this service: a higher one than ours means that we have been replaced."""
        if self.leading and fence > self.fence:
            log.warning("leader.replaced", leader_of=self.service, fence=self.fence, seen=fence)
            self.leading = False
            self._wake.set()

    async def _renew(self, store: KeyValue) -> None:
        await self._wait(self.lease_s / _RENEWALS_PER_LEASE)
        if self._released.is_set():
            return
        if self.leading:
            with contextlib.suppress(BusUnavailable):
                self.leading = await self._still_mine(store)
        if not self.leading:
            await self._end_term("lost")

    async def _still_mine(self, store: KeyValue) -> bool:
        """Rewrites the key. Raises BusUnavailable when nobody can say whose it is."""
        try:
            self._saw(await self._soon(store.update(self.service, self._value, self._revision)))
        except KvConflict:
            entry = await self._soon(store.get(self.service))
            if entry is None or entry.value != self._value:  # also when it is gone: others may have led meanwhile
                self._saw(entry.revision if entry else 0)
                return False
            self._saw(entry.revision)  # our own write, whose acknowledgement was lost
        return True

    async def _stand_by(self, store: KeyValue) -> None:
        if self._revision and (left_s := self._changed_s + self.lease_s - self._clock.monotonic_s()) > 0:
            await self._wait(left_s)
            return
        try:
            if self._revision:
                entry = await self._soon(store.get(self.service))
                if entry is None or entry.revision != self._revision:
                    self._saw(entry.revision if entry else 0)
                    return
                revision = await self._soon(store.update(self.service, self._value, self._revision))
            else:
                revision = await self._soon(store.create(self.service, self._value))
        except KvConflict:  # another candidate was faster
            with contextlib.suppress(BusUnavailable):
                entry = await self._soon(store.get(self.service))
                self._saw(entry.revision if entry else 0)
        except BusUnavailable:  # no time runs against a leader whom we could not see
            self._restart_waiting()
            await self._wait(self.lease_s / _RENEWALS_PER_LEASE)
        else:
            await self._begin_term(revision)

    async def _begin_term(self, revision: int) -> None:
        self.fence = revision if revision > self._highest else self._highest + 1
        self._saw(revision)
        self._highest = max(self._highest, self.fence)
        self._in_term = self.leading = True
        log.info("leader.promoted", leader_of=self.service, holder=self.holder_id, fence=self.fence)
        await _call(self._on_promoted(self.fence))

    async def _end_term(self, reason: str) -> None:
        self._in_term = self.leading = False
        self._restart_waiting()
        log.info("leader.demoted", leader_of=self.service, holder=self.holder_id, fence=self.fence, reason=reason)
        await _call(self._on_demoted())

    async def _let_go(self, store: KeyValue) -> None:
        if self._in_term:
            await self._end_term("released")
            with contextlib.suppress(BusUnavailable, KvConflict):
                await self._soon(store.delete(self.service, self._revision))

    def _on_change(self, key: str, entry: Entry | None) -> None:
        if key != self.service:
            return
        if not self._in_term:
            self._saw(entry.revision if entry else 0)
            self._wake.set()
        elif entry is not None and entry.value != self._value and entry.revision > self._revision:
            self._wake.set()  # taken from us: the renewal will tell

    def _saw(self, revision: int) -> None:
        if revision != self._revision:
            self._revision = revision
            self._restart_waiting()
        self._highest = max(self._highest, revision)

    def _restart_waiting(self) -> None:
        self._changed_s = self._clock.monotonic_s()

    async def _wait(self, wait_s: float) -> None:
        """Until something happens, at most `wait_s`."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(wait_s):
                await self._wake.wait()
        self._wake.clear()

    async def _soon(self, act: Awaitable[T]) -> T:
        """The result within half a lease, else BusUnavailable (it may have been done)."""
        try:
            async with asyncio.timeout(self.lease_s / 2):
                return await act
        except TimeoutError as error:
            raise BusTimeout("the leader store is slow") from error

    async def _reach(self, act: Callable[[], Awaitable[T]]) -> T:
        """The result, as soon as the bus is there. Raises _Released if we are to stop before."""
        while not self._released.is_set():
            with contextlib.suppress(BusUnavailable):
                return await act()
            await self._wait(self.lease_s / _RENEWALS_PER_LEASE)
        raise _Released


class _Released(Exception):  # noqa: N818 - a way out, not an error
    """`release()` came before the bus did."""


async def _call(done: Awaitable[None] | None) -> None:
    if inspect.isawaitable(done):
        await done
