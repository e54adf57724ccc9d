"""Which KV pages each worker holds, learnt from a lossy stream of deltas and mended by paged snapshots. Pure.

Not the page chains of sessions, and no engine's own cache. Placement asks it how much of a prompt is resident where.
One dict maps a page to a bitmask of workers; each worker has a slot (a bit), used again once the worker is dropped.
Engines evict leaf first, so a resident page implies that the pages before it in its chain are resident too: lookups
bisect instead of walking. While a worker is stale, its claims are the best guess: what was known plus what came since.
"""

from collections import deque
from itertools import repeat
from typing import Final

import msgspec

from saga.contract.ids import WorkerId
from saga.contract.messages import PagesRemoved, PagesStored, ResidencyChange, ResidencyDelta, ResyncReply

HASH_BYTES: Final = 8
MAX_KEPT_PAGES: Final = 131_072  # of deltas kept for one worker while its snapshot is awaited
MAX_KEPT_DELTAS: Final = 4_096
MAX_SNAPSHOT_PARTS: Final = 4_096


class ResyncNeeded(msgspec.Struct, frozen=True, gc=False):
    """Ask this worker for a snapshot, and again after a while for as long as `stale(worker_id)` holds."""

    worker_id: WorkerId
    epoch: int
    seq: int  # of the last delta known to be complete


def page_words(hashes: bytes) -> memoryview:
    """Page hashes as native unsigned integers, one per page; bytes after the last full hash are left out."""
    return memoryview(hashes)[: len(hashes) // HASH_BYTES * HASH_BYTES].cast("Q")


class _Snapshot:
    """Parts of one snapshot on their way."""

    __slots__ = ("parts", "seq", "wanted")

    def __init__(self, seq: int, wanted: int) -> None:
        self.seq = seq
        self.wanted = wanted
        self.parts: dict[int, bytes] = {}


class _Worker:
    """What is known of one worker."""

    __slots__ = ("bit", "epoch", "expected_seq", "held", "kept", "kept_pages", "seq", "slot", "snapshot", "stale")

    def __init__(self, slot: int, epoch: int) -> None:
        self.slot = slot
        self.bit = 1 << slot
        self.epoch = epoch
        self.seq = 0  # of the last delta applied
        self.expected_seq = 0  # that the worker said it had sent, when it last said so
        self.stale = False
        self.held: dict[int, None] = {}  # a dict takes half of a set's memory
        self.kept: deque[ResidencyDelta] = deque()  # contiguous, newest last; only while stale
        self.kept_pages = 0
        self.snapshot: _Snapshot | None = None

    def keep(self, delta: ResidencyDelta) -> None:
        """Keep for the snapshot to come; of a gap only what follows it is of use."""
        if self.kept and delta.seq != self.kept[-1].seq + 1:
            self.forget_kept()
        self.kept.append(delta)
        self.kept_pages += _size(delta)
        while self.kept_pages > MAX_KEPT_PAGES or len(self.kept) > MAX_KEPT_DELTAS:
            self.kept_pages -= _size(self.kept.popleft())

    def forget_kept(self) -> None:
        self.kept.clear()
        self.kept_pages = 0


def _size(delta: ResidencyDelta) -> int:
    return sum(len(c.hashes) // HASH_BYTES for c in delta.changes if isinstance(c, PagesStored | PagesRemoved))


class ResidencyIndex:
    """Page -> workers, for many workers."""

    __slots__ = ("_by_slot", "_free_slots", "_pages", "_workers")

    def __init__(self) -> None:
        self._pages: dict[int, int] = {}  # page -> bitmask of worker slots; never 0
        self._workers: dict[WorkerId, _Worker] = {}
        self._by_slot: list[WorkerId] = []
        self._free_slots: list[int] = []

    # What workers say

    def apply(self, delta: ResidencyDelta) -> ResyncNeeded | None:
        """Take a delta in. Returns a wish for a snapshot when something is missing before it."""
        worker = self._workers.get(delta.worker_id)
        if worker is None or delta.epoch > worker.epoch:
            worker = self._enter(delta.worker_id, delta.epoch)
        elif delta.epoch < worker.epoch or delta.seq <= worker.seq:
            return None
        missing = delta.seq != worker.seq + 1
        if missing:
            worker.stale = True
        worker.seq = delta.seq
        if worker.stale:
            worker.keep(delta)
        self._change(worker, delta.changes)
        return self._wish(delta.worker_id, worker) if missing else None

    def expect(self, worker_id: WorkerId, epoch: int, seq: int) -> ResyncNeeded | None:
        """A heartbeat says which delta was the last one sent: finds a lost last delta, or a worker never heard of.

        Heartbeat and delta may overtake each other, so a difference counts at the second heartbeat only.
        """
        worker = self._workers.get(worker_id)
        if worker is None or epoch > worker.epoch:
            worker = self._enter(worker_id, epoch)
        elif epoch < worker.epoch:
            return None
        behind = worker.seq < worker.expected_seq
        worker.expected_seq = seq
        if not behind or worker.stale:
            return None
        worker.stale = True
        return self._wish(worker_id, worker)

    def apply_snapshot(self, reply: ResyncReply) -> ResyncNeeded | None:
        """Take one part in; the last one of a snapshot replaces the worker's claims.

        Returns a wish for another snapshot when deltas between this one and those kept are missing.
        """
        worker = self._workers.get(reply.worker_id)
        if worker is None or reply.epoch > worker.epoch:
            worker = self._enter(reply.worker_id, reply.epoch)
            worker.stale = True
        if reply.epoch < worker.epoch or not 0 <= reply.part < reply.parts <= MAX_SNAPSHOT_PARTS:
            return None
        if not worker.stale and reply.seq <= worker.seq:
            return None
        snapshot = worker.snapshot
        if (
            snapshot is None
            or reply.seq > snapshot.seq
            or (reply.seq == snapshot.seq and reply.parts != snapshot.wanted)
        ):
            snapshot = worker.snapshot = _Snapshot(reply.seq, reply.parts)
        if reply.seq != snapshot.seq:
            return None
        snapshot.parts[reply.part] = reply.hashes
        if len(snapshot.parts) < snapshot.wanted:
            return None
        worker.snapshot = None
        return self._install(reply.worker_id, worker, snapshot)

    def drop_worker(self, worker_id: WorkerId) -> None:
        """Forget a worker; nothing happens when it is unknown."""
        worker = self._workers.pop(worker_id, None)
        if worker is not None:
            self._clear(worker)
            self._by_slot[worker.slot] = WorkerId("")
            self._free_slots.append(worker.slot)

    # Questions

    def match(self, hashes: bytes, stride: int = 1) -> dict[WorkerId, int]:
        """Leading pages of the chain resident on each worker that has any.

        `hashes`: 8 bytes for each stride-th page of a chain from its start; with a stride the answer is a lower bound.
        """
        words = page_words(hashes)
        get = self._pages.get
        here = get(words[0], 0) if len(words) else 0
        if not here:
            return {}
        found: dict[WorkerId, int] = {}
        last = len(words) - 1
        whole = here & get(words[last], 0)
        self._name(whole, len(words) * stride, found)
        # Each entry: the workers that hold page `low` and lack page `high`.
        open_ranges = [(0, last, here & ~whole)]
        while open_ranges:
            low, high, workers = open_ranges.pop()
            while workers and high - low > 1:
                middle = (low + high) >> 1
                have = workers & get(words[middle], 0)
                if have == workers:
                    low = middle
                elif have:
                    open_ranges.append((middle, high, have))
                    workers ^= have
                    high = middle
                else:
                    high = middle
            self._name(workers, high * stride, found)
        return found

    def resident_pages(self, worker_id: WorkerId, hashes: bytes, stride: int = 1) -> int:
        """Leading pages of the chain resident on one worker; as `match`."""
        worker = self._workers.get(worker_id)
        words = page_words(hashes)
        if worker is None or not len(words) or words[0] not in worker.held:
            return 0
        held = worker.held
        high = len(words)
        if words[high - 1] in held:
            return high * stride
        low = 0
        high -= 1
        while high - low > 1:
            middle = (low + high) >> 1
            if words[middle] in held:
                low = middle
            else:
                high = middle
        return high * stride

    def stale(self, worker_id: WorkerId) -> bool:
        """Whether something is missing of this worker; an unknown worker is stale."""
        worker = self._workers.get(worker_id)
        return worker is None or worker.stale

    def stale_workers(self) -> list[WorkerId]:
        """Those that wait for a snapshot."""
        return [worker_id for worker_id, worker in self._workers.items() if worker.stale]

    def workers(self) -> list[WorkerId]:
        """All that are known."""
        return list(self._workers)

    def position(self, worker_id: WorkerId) -> tuple[int, int]:
        """(epoch, seq) of the last delta taken in; (0, 0) for an unknown worker."""
        worker = self._workers.get(worker_id)
        return (0, 0) if worker is None else (worker.epoch, worker.seq)

    def pages_on(self, worker_id: WorkerId) -> int:
        """Pages claimed for this worker."""
        worker = self._workers.get(worker_id)
        return 0 if worker is None else len(worker.held)

    @property
    def pages(self) -> int:
        """Different pages claimed by any worker."""
        return len(self._pages)

    def check(self) -> None:
        """Raise AssertionError unless both views agree, slots are used once, and only stale workers keep deltas."""
        rebuilt: dict[int, int] = {}
        for worker_id, worker in self._workers.items():
            if self._by_slot[worker.slot] != worker_id:
                raise AssertionError(f"slot {worker.slot} of {worker_id} belongs to {self._by_slot[worker.slot]}")
            if worker.kept_pages != sum(map(_size, worker.kept)) or (worker.kept and not worker.stale):
                raise AssertionError(f"{worker_id} keeps deltas that it should not, or miscounts them")
            for page in worker.held:
                rebuilt[page] = rebuilt.get(page, 0) | worker.bit
        if rebuilt != self._pages:
            raise AssertionError("page masks disagree with what each worker holds")
        used = sorted([*self._free_slots, *(worker.slot for worker in self._workers.values())])
        if used != list(range(len(self._by_slot))):
            raise AssertionError(f"slots leaked or doubled: {used} of {len(self._by_slot)}")

    # Inside

    def _enter(self, worker_id: WorkerId, epoch: int) -> _Worker:
        """A worker unheard of, or one whose engine started anew: it holds nothing as of its delta 0."""
        known = self._workers.get(worker_id)
        if known is not None:
            self._clear(known)
            slot = known.slot
        elif self._free_slots:
            slot = self._free_slots.pop()
        else:
            slot = len(self._by_slot)
            self._by_slot.append(worker_id)
        self._by_slot[slot] = worker_id
        worker = self._workers[worker_id] = _Worker(slot, epoch)
        return worker

    def _install(self, worker_id: WorkerId, worker: _Worker, snapshot: _Snapshot) -> ResyncNeeded | None:
        kept = list(worker.kept)
        worker.forget_kept()
        self._clear(worker)
        for part in sorted(snapshot.parts):
            self._store(worker, snapshot.parts[part])
        later = [delta for delta in kept if delta.seq > snapshot.seq]
        worker.stale = bool(later and later[0].seq != snapshot.seq + 1) or (not later and worker.seq > snapshot.seq)
        worker.seq = max(worker.seq, snapshot.seq)
        for delta in later:
            if worker.stale:
                worker.keep(delta)
            self._change(worker, delta.changes)
        return self._wish(worker_id, worker) if worker.stale else None

    def _change(self, worker: _Worker, changes: tuple[ResidencyChange, ...]) -> None:
        for change in changes:
            if isinstance(change, PagesStored):
                self._store(worker, change.hashes)
            elif isinstance(change, PagesRemoved):
                self._remove(worker, change.hashes)
            else:
                self._clear(worker)

    # Page by page in Python would cost most of what ingest costs: so each pass over pages is one call.

    def _store(self, worker: _Worker, hashes: bytes) -> None:
        pages, held, bit = self._pages, worker.held, worker.bit
        words = page_words(hashes).tolist()
        if not held.keys().isdisjoint(words):
            words = [page for page in words if page not in held]
        held.update(dict.fromkeys(words))
        if pages.keys().isdisjoint(words):
            pages.update(dict.fromkeys(words, bit))
            return
        before, after = bit, bit  # runs of a chain share their mask: one int object for the run
        for page, mask in zip(words, map(pages.get, words), strict=True):
            if mask is None:
                pages[page] = bit
            elif mask is before:
                pages[page] = after
            elif not mask & bit:  # a page twice in one change has it already
                before, after = mask, mask | bit
                pages[page] = after

    def _remove(self, worker: _Worker, hashes: bytes) -> None:
        words = page_words(hashes).tolist()
        was = list(map(worker.held.pop, words, repeat(False)))  # None: it was held
        if was.count(None) != len(words):
            words = [page for page, mark in zip(words, was, strict=True) if mark is None]
        self._release(words, worker.bit)

    def _clear(self, worker: _Worker) -> None:
        self._release(list(worker.held), worker.bit)
        worker.held = {}

    def _release(self, words: list[int], bit: int) -> None:
        """One worker no longer holds these pages, which it held."""
        pages = self._pages
        masks = list(map(pages.pop, words))
        if masks.count(bit) == len(words):
            return
        before, after = bit, 0
        for page, mask in zip(words, masks, strict=True):
            if mask is not before:
                before, after = mask, mask ^ bit
            if after:
                pages[page] = after

    def _name(self, mask: int, pages: int, found: dict[WorkerId, int]) -> None:
        by_slot = self._by_slot
        while mask:
            lowest = mask & -mask
            found[by_slot[lowest.bit_length() - 1]] = pages
            mask ^= lowest

    def _wish(self, worker_id: WorkerId, worker: _Worker) -> ResyncNeeded:
        return ResyncNeeded(worker_id, worker.epoch, worker.seq)
