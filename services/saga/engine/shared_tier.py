"""A KV store that several engines share: which pages it holds, and when what they write and read has crossed.

After a storage backend of SGLang's HiCache (--hicache-storage-backend) on another machine: pages are keys of their own,
the least recently used go first. Every engine has one link, the same rate in each direction; what all of them read, or
write, the store serves in the order of asking. Pure books and arithmetic: an engine reads and writes through its
`TierLink`, the simulator makes the tier. Times are seconds of the engines' clock.
"""

import heapq
from typing import Final

from saga.kv.pages import HASH_BYTES

LEAST_TOKENS: Final = 256
"""SGLang's prefetch_threshold: with fewer tokens found in the store nothing is read."""


class SharedTier:
    """The store. Raises ValueError for one that could hold or carry nothing."""

    def __init__(self, pages: int, page_bytes: float, bytes_per_s: float, total_bytes_per_s: float = 0.0) -> None:
        """`pages`: its size. `bytes_per_s`: of each engine's link, each direction. `total_bytes_per_s`: of the store,
        each direction; 0: no limit but the links'."""
        if pages < 1 or page_bytes <= 0 or bytes_per_s <= 0 or total_bytes_per_s < 0:
            told = f"pages {pages:,}, page_bytes {page_bytes:,.0f}, bytes_per_s {bytes_per_s:.3g}"
            raise ValueError(f"a shared tier needs room and a link, not {told}, total {total_bytes_per_s:.3g}")
        self.capacity_pages = pages
        self.page_bytes = page_bytes
        self.bytes_per_s = bytes_per_s
        self.evicted_pages = 0
        self._total_bytes_per_s = total_bytes_per_s
        self._held: dict[bytes, None] = {}
        """Pages, the least recently used first."""
        self._under_way: list[tuple[float, int, TierLink, bytes]] = []
        """Heap of writes: when the last byte has crossed, a number, whose, page hashes."""
        self._writes = 0
        self._read_until_s = 0.0
        self._written_until_s = 0.0
        """How long the store itself is busy with what was asked of it."""

    @property
    def pages(self) -> int:
        """That it holds."""
        return len(self._held)

    def link(self) -> "TierLink":
        """A further engine's."""
        return TierLink(self)

    def found(self, hashes: bytes, pages: int, now_s: float) -> int:
        """Pages of the chain `hashes` that it holds without a gap from page `pages` on."""
        self._land(now_s)
        held = self._held
        at = start = pages * HASH_BYTES
        while at < len(hashes) and hashes[at : at + HASH_BYTES] in held:
            at += HASH_BYTES
        self._use(hashes[start:at])
        return (at - start) // HASH_BYTES

    def reads_until_s(self, pages: int, now_s: float) -> float:
        """When the store has sent that many pages after what it was asked for before."""
        return self._busy(pages, now_s, reading=True)

    def write(self, link: "TierLink", hashes: bytes, now_s: float) -> None:
        """An engine sends those of the pages that the store lacks; they count as held once all of them have crossed."""
        self._land(now_s)
        held = self._held
        keys = (hashes[at : at + HASH_BYTES] for at in range(0, len(hashes), HASH_BYTES))
        lacked = b"".join(key for key in keys if key not in held)
        if not lacked:
            return
        pages = len(lacked) // HASH_BYTES
        link.written_pages += pages
        link.writes_until_s = max(now_s, link.writes_until_s) + pages * self.page_bytes / self.bytes_per_s
        done_s = max(link.writes_until_s, self._busy(pages, now_s, reading=False))
        self._writes += 1
        heapq.heappush(self._under_way, (done_s, self._writes, link, lacked))

    def lose(self, link: "TierLink", now_s: float) -> None:
        """An engine is gone: what it was writing never arrives whole."""
        self._land(now_s)
        self._under_way = [write for write in self._under_way if write[2] is not link]
        heapq.heapify(self._under_way)

    def check(self) -> None:
        """Assert its invariants."""
        assert len(self._held) <= self.capacity_pages
        assert all(len(key) == HASH_BYTES for key in self._held)

    def _busy(self, pages: int, now_s: float, *, reading: bool) -> float:
        before_s = self._read_until_s if reading else self._written_until_s
        seconds = pages * self.page_bytes / self._total_bytes_per_s if self._total_bytes_per_s else 0.0
        until_s = max(now_s, before_s) + seconds
        if reading:
            self._read_until_s = until_s
        else:
            self._written_until_s = until_s
        return until_s

    def _land(self, now_s: float) -> None:
        """What has crossed by now is held."""
        while self._under_way and self._under_way[0][0] <= now_s:
            self._use(heapq.heappop(self._under_way)[3])
        while len(self._held) > self.capacity_pages:
            del self._held[next(iter(self._held))]
            self.evicted_pages += 1

    def _use(self, hashes: bytes) -> None:
        """The pages count as used now, the first of the chain last: without it the others are of no use."""
        held = self._held
        for at in range(len(hashes) - HASH_BYTES, -1, -HASH_BYTES):
            key = hashes[at : at + HASH_BYTES]
            held.pop(key, None)
            held[key] = None


class TierLink:
    """One engine's way to the tier. Reads follow each other, and so do writes; the two do not disturb each other."""

    __slots__ = ("_reads_until_s", "hits", "loaded_pages", "tier", "writes_until_s", "written_pages")

    def __init__(self, tier: SharedTier) -> None:
        self.tier = tier
        self.hits = 0
        """Requests for which something was read."""
        self.loaded_pages = 0
        self.written_pages = 0
        self.writes_until_s = 0.0
        self._reads_until_s = 0.0

    def found(self, hashes: bytes, pages: int, now_s: float) -> int:
        """As SharedTier."""
        return self.tier.found(hashes, pages, now_s)

    def write(self, hashes: bytes, now_s: float) -> None:
        """Pages that are new to this engine go to the tier, too, in the background."""
        self.tier.write(self, hashes, now_s)

    def read(self, pages: int, now_s: float) -> float:
        """Read pages that were found; returns when all of them are here."""
        self.hits += 1
        self.loaded_pages += pages
        seconds = pages * self.tier.page_bytes / self.tier.bytes_per_s
        self._reads_until_s = max(max(now_s, self._reads_until_s) + seconds, self.tier.reads_until_s(pages, now_s))
        return self._reads_until_s

    def lose(self, now_s: float) -> None:
        """The engine is gone, with what it was sending and what it had asked for."""
        self.tier.lose(self, now_s)
        self.writes_until_s = self._reads_until_s = now_s
