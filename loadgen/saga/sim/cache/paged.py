"""A cache that evicts page by page, from the ends of chains: what every order of eviction is run in.

A chain can only hit while all pages before are there, so only the last held page of a segment without held children may
go. The order chooses whose. Pages of running calls stay. Called by `bench`; orders are `orders` and `causal`.
"""

from collections.abc import Sequence
from heapq import heapify, heappop, heappush
from typing import Protocol, runtime_checkable

from saga.sim.cache.fitting import Stream

NEVER_S = float("inf")


class Order(Protocol):
    """Chooses whose last page goes first. Told of every start and end; asked when a segment's end may go."""

    def started(self, call: int, now_s: float) -> Sequence[int]:
        """A call begins; its prompt's pages are in use from now on. Returns segments whose rank changed by that."""
        ...

    def ended(self, call: int, path: list[int], now_s: float, used_share: float) -> None:
        """It ended. `path`: its segments, last one first; `used_share`: of the pool that holds pages."""
        ...

    def evicted(self, segment: int, pages: int) -> None:
        """So many pages of this segment went."""
        ...

    def rank(self, segment: int, now_s: float) -> tuple[float, float]:
        """(rank, until when it holds): lowest rank goes first."""
        ...


@runtime_checkable
class WholeOrder(Order, Protocol):
    """An order whose ranks depend on all pages at once and change with every second."""

    def ranks(self, segments: list[int], now_s: float) -> list[float]:
        """Rank of each."""
        ...


class PagedCache:
    """One pool. `run` drives a stream through it; `regenerated_pages` and `hit_pages` are the result."""

    def __init__(self, stream: Stream, order: Order) -> None:
        self._stream = stream
        self._order = order
        self._whole = order if isinstance(order, WholeOrder) else None
        count = len(stream.trace.segments.pages)
        self._held = [0] * count
        self._locks = [0] * count
        self._held_children = [0] * count
        self._stamps = [0] * count  # of the newest queue entry of a segment: older ones are void
        self._queue: list[tuple[float, int, int]] = []
        self._due: list[tuple[float, int, int]] = []
        self._candidates: dict[int, None] = {}
        self._free = stream.capacity_pages
        self.regenerated_pages = 0
        self.hit_pages = 0

    def run(self) -> None:
        """The whole stream."""
        stream, segments = self._stream, self._stream.trace.segments
        for at_s, call, is_end in ((e.at_s, e.call, e.is_end) for e in stream.events):
            if not is_end:
                for segment in self._order.started(call, at_s):
                    self._offer(segment, at_s)
                path = segments.path(stream.trace.calls[call].prompt)
                prompt_pages = stream.trace.calls[call].prompt_pages
                hit = prompt_pages - self._take(path, at_s)
                self.hit_pages += hit
                self.regenerated_pages += max(0, stream.known_pages[call] - hit)
                continue
            path = segments.path(stream.ends[call])
            above = len(segments.path(stream.trace.calls[call].prompt))
            self._take(path[: len(path) - above], at_s)
            self._release(path)
            used_share = 1.0 - self._free / stream.capacity_pages
            self._order.ended(call, path, at_s, used_share)
            if path:
                self._offer(path[0], at_s)

    def _take(self, path: list[int], now_s: float) -> int:
        """Lock a chain and fill it; returns the pages that were missing."""
        held, locks, pages = self._held, self._locks, self._stream.trace.segments.pages
        missing = 0
        for segment in path:
            locks[segment] += 1
            missing += pages[segment] - held[segment]
        if missing == 0:
            return 0
        if missing > self._free:
            self._evict(missing - self._free, now_s)
        self._free -= missing
        parent = self._stream.trace.segments.parent
        for segment in path:
            if held[segment] == pages[segment]:
                break  # and so are all above
            if held[segment] == 0:
                self._held_children[parent[segment]] += 1
            held[segment] = pages[segment]
        return missing

    def _release(self, path: list[int]) -> None:
        locks = self._locks
        for segment in path:
            locks[segment] -= 1

    def _evictable(self, segment: int) -> bool:
        return self._held[segment] > 0 and not self._locks[segment] and not self._held_children[segment]

    def _offer(self, segment: int, now_s: float) -> None:
        """Queue a segment whose last page may go now; void if it may not."""
        if not segment or not self._evictable(segment):
            return
        self._stamps[segment] += 1
        if self._whole is not None:
            self._candidates[segment] = None
            return
        rank, until_s = self._order.rank(segment, now_s)
        stamp = self._stamps[segment]
        heappush(self._queue, (rank, segment, stamp))
        if until_s < NEVER_S:
            heappush(self._due, (until_s, segment, stamp))

    def _evict(self, pages: int, now_s: float) -> None:
        self._refresh(now_s)
        parent = self._stream.trace.segments.parent
        while pages > 0:
            if not self._queue:
                raise AssertionError("nothing left to evict for a chain that fits")
            entry = heappop(self._queue)
            segment = entry[1]
            if entry[2] != self._stamps[segment] or not self._evictable(segment):
                continue
            taken = min(pages, self._held[segment])
            self._held[segment] -= taken
            self._free += taken
            pages -= taken
            self._order.evicted(segment, taken)
            if self._held[segment]:
                heappush(self._queue, entry)
                continue
            self._candidates.pop(segment, None)
            above = parent[segment]
            self._held_children[above] -= 1
            self._offer(above, now_s)
            if self._whole is not None and above in self._candidates:
                (rank,) = self._whole.ranks([above], now_s)
                heappush(self._queue, (rank, above, self._stamps[above]))

    def _refresh(self, now_s: float) -> None:
        """Ranks that hold no longer are asked for again."""
        if self._whole is not None:
            self._candidates = {s: None for s in self._candidates if self._evictable(s)}
            segments = list(self._candidates)
            ranks = self._whole.ranks(segments, now_s)
            stamps = self._stamps
            self._queue = [(rank, s, stamps[s]) for rank, s in zip(ranks, segments, strict=True)]
            heapify(self._queue)
            return
        while self._due and self._due[0][0] <= now_s:
            _, segment, stamp = heappop(self._due)
            if stamp == self._stamps[segment]:
                self._offer(segment, now_s)
