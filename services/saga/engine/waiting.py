"""The engine's waiting queue, in the order of SGLang's --schedule-policy: fcfs, lof or lpm.

With priorities a higher one goes first (not with lpm). A retracted request goes to the back of its class. lpm is put in
order when the queue is scheduled, and only if the cache or the queue changed since; its matches mark what they find as
used, as SGLang's do. Not modelled: other policies; and in-batch prefixes are compared in whole pages. Called by Batch.
"""

import bisect
from collections.abc import Iterator
from typing import Final

from saga.engine.radix import RadixTree
from saga.engine.request import EngineRequest
from saga.engine.settings import EngineSettings
from saga.kv.pages import HASH_BYTES

LPM_MOST_WAITING: Final = 128
"""With more than these lpm falls back to fcfs."""
IN_BATCH_CHECK_TOKENS: Final = 32
"""SGLang's IN_BATCH_PREFIX_CACHING_CHECK_THRESHOLD: so little cached, a waiter is compared with those before it."""
IN_BATCH_DEPRIORITIZE_TOKENS: Final = 32
"""IN_BATCH_PREFIX_CACHING_DEPRIORITIZE_THRESHOLD: sharing so much with one of them, it goes last: it will hit soon."""

_Rank = tuple[int, int]


class WaitingQueue:
    """Requests that do not run yet, in the order in which they will be tried."""

    def __init__(self, settings: EngineSettings, page_tokens: int) -> None:
        self._by_priority = settings.priority_scheduling
        self._by_output = settings.schedule == "lof"
        self._by_prefix = settings.schedule == "lpm"
        self.arrival_reorders = settings.priority_scheduling or settings.schedule != "fcfs"
        """Whether a newcomer may go first though others wait."""
        self._page_tokens = page_tokens
        self._in_batch_pages = -(-IN_BATCH_DEPRIORITIZE_TOKENS // page_tokens)
        self._entries: list[tuple[_Rank, int, EngineRequest]] = []
        self._added = 0
        self._order: list[EngineRequest] = []
        """With lpm: last scheduled order, next one last."""
        self._keys: dict[str, tuple[bytes, int, bytes]] = {}
        """With lpm: what waiting requests are compared by."""
        self._order_of: tuple[int, int, int] | None = None
        """Which tree changes and queue the order is of; None: it must be made anew."""

    def schedule(self, tree: RadixTree) -> None:
        """The queue is about to be tried: put it in order."""
        if not self._by_prefix:
            return
        if len(self._entries) > LPM_MOST_WAITING:
            self._order = [entry[2] for entry in reversed(self._entries)]
            self._order_of = None
            return
        order_of = (tree.changes, self._added, len(self._entries))
        if order_of != self._order_of:
            self._order = self._longest_prefix_first(tree)
            self._order_of = order_of

    def _longest_prefix_first(self, tree: RadixTree) -> list[EngineRequest]:
        seen: set[bytes] = set()
        ranked = []
        in_batch_pages = IN_BATCH_CHECK_TOKENS // self._page_tokens
        for _, _, request in self._entries:
            hashes, most_pages, prefix = self._keys[request.rid]
            device, either = tree.peek(hashes, most_pages)
            rank = -either
            if prefix and device <= in_batch_pages:
                if prefix in seen:
                    rank = 1
                seen.add(prefix)
            ranked.append((rank, request))
        ranked.sort(key=_rank_of)
        return [request for _, request in reversed(ranked)]

    def _key(self, request: EngineRequest) -> tuple[bytes, int, bytes]:
        """(page hashes, pages that may be cached, hash by which it is compared with others): fixed while it waits."""
        fill_tokens = request.fill_tokens
        hashes = request.output.page_hashes(fill_tokens)
        prefix = b""
        if self._in_batch_pages <= fill_tokens // self._page_tokens:
            at = self._in_batch_pages * HASH_BYTES
            prefix = hashes[at - HASH_BYTES : at]  # hashes chain: one says all before it
        return hashes, (fill_tokens - 1) // self._page_tokens, prefix

    def take_number(self) -> int:
        """A place in the queue for one that cannot be tried yet."""
        self._added += 1
        return self._added

    def add(self, request: EngineRequest, number: int = 0) -> None:
        """Queue a request behind those that come before it, or with a `number` where that was taken."""
        number = number or self.take_number()
        self._order_of = None
        priority = -request.priority if self._by_priority else 0
        output = -request.max_new_tokens if self._by_output else 0
        bisect.insort(self._entries, ((priority, output), number, request))
        if self._by_prefix:
            self._order.insert(0, request)
            self._keys[request.rid] = self._key(request)

    def head(self) -> EngineRequest | None:
        """The next one to try."""
        if self._by_prefix:
            return self._order[-1] if self._order else None
        return self._entries[0][2] if self._entries else None

    def pop(self) -> EngineRequest:
        """Take the next one out."""
        if self._by_prefix:
            request = self._order[-1]
            self.remove(request)
            return request
        return self._entries.pop(0)[2]

    def remove(self, request: EngineRequest) -> None:
        """Take one out, wherever it stands."""
        self._entries = [entry for entry in self._entries if entry[2] is not request]
        if self._by_prefix:
            self._order.remove(request)
            del self._keys[request.rid]

    def __len__(self) -> int:
        return len(self._entries)

    def __iter__(self) -> Iterator[EngineRequest]:
        return (entry[2] for entry in self._entries)


def _rank_of(ranked: tuple[int, EngineRequest]) -> int:
    return ranked[0]
