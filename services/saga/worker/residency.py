"""What the engine's KV cache holds, as its events tell: batches of changes for the index, and paged snapshots. Pure.

The other end is `saga.kv.residency`. A batch leaves about 20 ms after its first change, or when it is full. Snapshots
leave a few parts at a time, after a random moment, so that not all workers flood a new placement leader at once.
"""

from array import array
from collections import OrderedDict
from random import Random
from typing import Final

import msgspec

from saga.contract.ids import WorkerId
from saga.contract.messages import (
    MAX_CHAIN_PAGES,
    AllCleared,
    PagesRemoved,
    PagesStored,
    ResidencyChange,
    ResidencyDelta,
    ResyncReply,
)
from saga.kv.residency import HASH_BYTES, page_words

BATCH_S: Final = 0.02
BATCH_PAGES: Final = 2_000
MAX_DELTA_CHANGES: Final = 4_096  # with the pages of a batch far below the bus's limit
SNAPSHOTS_IN_FLIGHT: Final = 2
SNAPSHOTS_WAITING: Final = 32
PART_EVERY_S: Final = 0.01  # for each snapshot in flight: at most 13 MB/s
_PART_BYTES: Final = MAX_CHAIN_PAGES * HASH_BYTES
NEVER_S: Final = float("inf")


class _Flight(msgspec.Struct):
    """A snapshot on its way: what was held at `seq`."""

    inbox: str
    epoch: int
    seq: int
    hashes: bytes
    parts: int
    next_part: int = 0


class ResidencyFeed:
    """The pages of one engine, the deltas not sent yet, and the snapshots asked for."""

    __slots__ = (
        "_asked", "_batch", "_batch_pages", "_due_s", "_epoch", "_flights", "_held", "_jitter_s", "_part_due_s",
        "_published_at", "_rng", "_seq", "_worker_id",
    )  # fmt: skip

    def __init__(self, worker_id: WorkerId, rng: Random, jitter_s: float = 0.2) -> None:
        self._worker_id = worker_id
        self._rng = rng
        self._jitter_s = jitter_s
        self._epoch = 0
        self._seq = 0
        self._held: set[int] = set()
        self._batch: list[ResidencyChange] = []
        self._batch_pages = 0
        self._published_at = 0.0  # the oldest in the batch
        self._due_s = NEVER_S
        self._asked: OrderedDict[str, float] = OrderedDict()  # inbox -> when to start
        self._flights: list[_Flight] = []
        self._part_due_s = NEVER_S

    @property
    def epoch(self) -> int:
        """Of the engine incarnation that is followed; 0 before the first."""
        return self._epoch

    @property
    def seq(self) -> int:
        """Of the last delta sent."""
        return self._seq

    @property
    def pages(self) -> int:
        """Pages held."""
        return len(self._held)

    def restart(self, epoch: int) -> None:
        """A new engine incarnation, which holds nothing yet. Snapshots asked for will be of it."""
        if epoch <= self._epoch:
            raise ValueError(f"epoch {epoch} does not follow {self._epoch}")
        self._epoch, self._seq = epoch, 0
        self._held.clear()
        self._batch.clear()
        self._batch_pages = 0
        self._due_s = NEVER_S
        self._flights.clear()

    def change(
        self, changes: tuple[ResidencyChange, ...], now_s: float, published_at: float = 0.0
    ) -> list[ResidencyDelta]:
        """Take changes in; the deltas that are full now. `published_at`: wall time by the engine, 0 when unknown."""
        deltas = []
        for change in changes:
            if isinstance(change, PagesStored):
                self._held.update(page_words(change.hashes))
            elif isinstance(change, PagesRemoved):
                self._held.difference_update(page_words(change.hashes))
            else:
                self._held.clear()
            for piece in _pieces(change):
                if not self._batch:
                    self._published_at = published_at
                self._add(piece)
                self._batch_pages += 0 if isinstance(piece, AllCleared) else len(piece.hashes) // HASH_BYTES
                if self._batch_pages >= BATCH_PAGES or len(self._batch) >= MAX_DELTA_CHANGES:
                    deltas += self.flush()
        if self._batch and self._due_s == NEVER_S:
            self._due_s = now_s + BATCH_S
        return deltas

    def flush(self) -> list[ResidencyDelta]:
        """Everything not sent yet, as at most one delta."""
        self._due_s = NEVER_S
        if not self._batch:
            return []
        self._seq += 1
        changes = tuple(self._batch)
        self._batch.clear()
        self._batch_pages = 0
        delta = ResidencyDelta(
            worker_id=self._worker_id,
            epoch=self._epoch,
            seq=self._seq,
            changes=changes,
            published_at=self._published_at,
        )
        return [delta]

    def ask(self, inbox: str, now_s: float) -> None:
        """Somebody wants a snapshot. One that waits already for this asker will do; beyond a bound the oldest waits in
        vain and asks again."""
        if inbox not in self._asked:
            self._asked[inbox] = now_s + self._rng.uniform(0.0, self._jitter_s)
            if len(self._asked) > SNAPSHOTS_WAITING:
                self._asked.popitem(last=False)

    def due(self, now_s: float) -> tuple[list[ResidencyDelta], list[tuple[str, ResyncReply]]]:
        """What is to be sent now: deltas first, then parts of snapshots with their inboxes."""
        deltas = self.flush() if self._due_s <= now_s else []
        ripe = [inbox for inbox, start_s in self._asked.items() if start_s <= now_s] if self._epoch else []
        for inbox in ripe[: max(0, SNAPSHOTS_IN_FLIGHT - len(self._flights))]:
            del self._asked[inbox]
            deltas += self.flush()
            self._flights.append(self._flight(inbox))
            self._part_due_s = now_s
        parts: list[tuple[str, ResyncReply]] = []
        if self._flights and self._part_due_s <= now_s:
            parts = [self._part(flight) for flight in self._flights]
            self._flights = [flight for flight in self._flights if flight.next_part < flight.parts]
            self._part_due_s = now_s + PART_EVERY_S
        return deltas, parts

    def next_s(self) -> float:
        """When `due` has something to send."""
        next_s = self._due_s
        if self._flights:
            next_s = min(next_s, self._part_due_s)
        if self._asked and self._epoch and len(self._flights) < SNAPSHOTS_IN_FLIGHT:
            next_s = min(next_s, *self._asked.values())
        return next_s

    def _add(self, piece: ResidencyChange) -> None:
        """Neighbours of one kind become one change."""
        last = self._batch[-1] if self._batch else None
        if isinstance(piece, PagesStored) and isinstance(last, PagesStored):
            self._batch[-1] = PagesStored(last.hashes + piece.hashes)
        elif isinstance(piece, PagesRemoved) and isinstance(last, PagesRemoved):
            self._batch[-1] = PagesRemoved(last.hashes + piece.hashes)
        else:
            self._batch.append(piece)

    def _flight(self, inbox: str) -> _Flight:
        hashes = array("Q", self._held).tobytes()
        parts = max(1, -(-len(hashes) // _PART_BYTES))
        return _Flight(inbox, self._epoch, self._seq, hashes, parts)

    def _part(self, flight: _Flight) -> tuple[str, ResyncReply]:
        start = flight.next_part * _PART_BYTES
        reply = ResyncReply(
            worker_id=self._worker_id,
            epoch=flight.epoch,
            seq=flight.seq,
            part=flight.next_part,
            parts=flight.parts,
            hashes=flight.hashes[start : start + _PART_BYTES],
        )
        flight.next_part += 1
        return flight.inbox, reply


def _pieces(change: ResidencyChange) -> list[ResidencyChange]:
    """A change too long for one delta, in parts."""
    if isinstance(change, AllCleared) or len(change.hashes) <= _PART_BYTES:
        return [change]
    kind = type(change)
    return [kind(change.hashes[start : start + _PART_BYTES]) for start in range(0, len(change.hashes), _PART_BYTES)]
