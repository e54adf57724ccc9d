"""Requests whose prefix is on its way from a shared tier to host memory, until it is there.

As SGLang with --hicache-storage-prefetch-policy wait_complete: when a request joins the queue, what the tier has of its
prompt beyond device and host is read in the background; it keeps its place, and others start meanwhile. Then its pages
are the host tier's, and are loaded back like any of those. Kept by EngineCore.
"""

import heapq

from saga.engine.pool import KvPool
from saga.engine.request import EngineRequest
from saga.engine.shared_tier import LEAST_TOKENS, TierLink
from saga.kv.pages import HASH_BYTES

NEVER_S = float("inf")


class Fetching:
    """Requests that are held, the next one ready first."""

    def __init__(self, pool: KvPool, link: TierLink, *, shrink: int) -> None:
        """`shrink`: how many real tokens a token of the pool stands for. Raises ValueError for a pool without a host
        tier: what is read is read to there."""
        if pool.host is None:
            raise ValueError("a shared tier needs a host tier, as in SGLang: set host_kv_tokens")
        self._pool = pool
        self._link = link
        self._least_pages = max(1, -(-LEAST_TOKENS // (shrink * pool.page_tokens)))
        self._most_pages = pool.host.pages // 2  # as in SGLang: of the host tier, the rest is for what is written
        self._pages = 0
        self._held: dict[str, tuple[EngineRequest, int, int]] = {}
        """By rid: with the page up to which its prefix will be there, and how many of them are read."""
        self._order: list[tuple[float, int, str]] = []
        self._numbers = 0

    @property
    def ready_s(self) -> float:
        """When the next one has all its pages; never, while there is none."""
        return self._order[0][0] if self._order else NEVER_S

    @property
    def requests(self) -> list[EngineRequest]:
        """All that are held."""
        return [request for request, _, _ in self._held.values()]

    def hold(self, request: EngineRequest, now_s: float) -> bool:
        """Whether there is something to read for a request that arrives; if so it is held until it is there."""
        pool = self._pool
        hashes = request.output.page_hashes(request.fill_tokens)
        most = min(pool.most_pages(request), len(hashes) // HASH_BYTES)
        have = pool.tree.peek(hashes, most)[1]
        if most - have < self._least_pages or self._pages >= self._most_pages:
            return False
        pages = self._link.found(hashes[: most * HASH_BYTES], have, now_s)
        if pages < self._least_pages:
            return False
        self._pages += pages
        self._numbers += 1
        self._held[request.rid] = (request, have + pages, pages)
        heapq.heappush(self._order, (self._link.read(pages, now_s), self._numbers, request.rid))
        return True

    def take(self) -> EngineRequest:
        """The one that is ready next; its pages are the host tier's now."""
        rid = heapq.heappop(self._order)[2]
        request, until_page, pages = self._held.pop(rid)
        self._pages -= pages
        self._pool.receive(request, until_page)
        return request

    def drop(self, request: EngineRequest) -> bool:
        """It is over; whether it was held. What was asked for crosses the link all the same."""
        held = self._held.pop(request.rid, None)
        if held is None:
            return False
        self._pages -= held[2]
        self._order = [entry for entry in self._order if entry[2] != request.rid]
        heapq.heapify(self._order)
        return True

    def check(self) -> None:
        """Assert its invariants."""
        assert {rid for _, _, rid in self._order} == set(self._held)
        assert self._pages == sum(pages for _, _, pages in self._held.values())
