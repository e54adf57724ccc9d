"""The requests of a batch that decode, one token each per tick.

A tick costs nothing per request: they share a counter, a calendar knows whose output ends when, and as each needs a
page when its tokens fill the last, it is enough to count how many do at which ticks. What a request says and holds is
written into it when it leaves, or when somebody looks. Called by Batch alone, which decides who joins and who leaves.
"""

import heapq
from collections.abc import Iterator

from saga.engine.request import EngineRequest, Ticks


class Decoding:
    """Decoding requests in the order in which they joined."""

    __slots__ = (
        "_ends",
        "_joined",
        "_late_pages",
        "_page_tokens",
        "_pages_at",
        "_requests",
        "_room_at",
        "_ticks",
        "context_tokens",
        "left_tokens",
        "most_new_tokens",
    )

    def __init__(self, page_tokens: int) -> None:
        self.context_tokens = 0
        """Tokens of prompt and output of all of them: KV that a decode attends to."""
        self.left_tokens = 0
        """Output tokens that they may still produce."""
        self.most_new_tokens = 0
        """The largest `max_new_tokens` that any of them ever had."""
        self._page_tokens = page_tokens
        self._requests: dict[str, EngineRequest] = {}
        self._ticks = Ticks()
        self._joined = 0
        self._ends: list[tuple[int, int, EngineRequest]] = []  # may name some that have left, or joined anew since
        self._pages_at = [0] * page_tokens
        """How many need a page at a tick, by the tick modulo page size."""
        self._room_at = 0
        """All have room for what they had said at this tick..."""
        self._late_pages = 0
        """...but for those that joined at it since."""

    def add(self, request: EngineRequest) -> None:
        """A request has its prompt and said the token after it; it has room for just all before that token."""
        fill_tokens = request.fill_tokens
        self.context_tokens += fill_tokens
        self.left_tokens += request.left_tokens
        self.most_new_tokens = max(self.most_new_tokens, request.max_new_tokens)
        self._joined += 1
        now = self._ticks.count
        request.join = self._joined
        request.ticks, request.since_tick = self._ticks, now
        self._requests[request.rid] = request
        self.expect_end(request)
        self._pages_at[(now + 1 - fill_tokens) % self._page_tokens] += 1
        if now == self._room_at and request.held_tokens < fill_tokens:
            self._late_pages += 1

    def remove(self, request: EngineRequest) -> bool:
        """It stops to decode; False when it did not."""
        if self._requests.pop(request.rid, None) is None:
            return False
        self._settle(request)
        fill_tokens = request.fill_tokens
        self.context_tokens -= fill_tokens
        self.left_tokens -= request.left_tokens
        self._pages_at[(self._ticks.count + 1 - fill_tokens) % self._page_tokens] -= 1
        request.said_tokens, request.ticks = request.output_tokens, None
        return True

    def tick(self, tokens: int) -> None:
        """Each of them has said so many tokens more."""
        self._ticks.count += tokens
        self.context_tokens += tokens * len(self._requests)
        self.left_tokens -= tokens * len(self._requests)

    def ended(self) -> list[EngineRequest]:
        """Those whose output is not known to go on, each once; the caller says `expect_end` if it does."""
        ended = []
        while self._ends and self._ends[0][0] <= self._ticks.count:
            _, join, request = heapq.heappop(self._ends)
            if request.ticks is self._ticks and request.join == join:
                ended.append(request)
        return ended

    def expect_end(self, request: EngineRequest) -> None:
        """Its output goes on to `planned_tokens`."""
        at = self._ticks.count + request.planned_tokens - request.output_tokens
        heapq.heappush(self._ends, (at, request.join, request))

    def until_end(self) -> int:
        """Ticks until the first of them ends; only with any."""
        while True:
            at, join, request = self._ends[0]
            if request.ticks is self._ticks and request.join == join:
                return at - self._ticks.count
            heapq.heappop(self._ends)

    def short_pages(self) -> list[int]:
        """Pages that they lack in all for what they have said, by the tick at which they came to lack them.

        The caller gets the pages for them, then says `has_room`.
        """
        size = self._page_tokens
        first, ticks = (self._room_at + 1) % size, self._ticks.count - self._room_at
        pages = (self._pages_at * ((first + ticks) // size + 1))[first : first + ticks]
        if self._late_pages:
            pages = [self._late_pages, *pages]
        return pages

    def has_room(self) -> None:
        """All have room for what they have said."""
        self._room_at = self._ticks.count
        self._late_pages = 0

    def settle(self) -> None:
        """Write into each request the room that it holds."""
        for request in self._requests.values():
            self._settle(request)

    def _settle(self, request: EngineRequest) -> None:
        room_for = request.fill_tokens - (self._ticks.count - self._room_at)
        pages = -(-room_for // self._page_tokens) - request.held_tokens // self._page_tokens
        if pages > 0 and not (self._late_pages and request.since_tick == self._room_at):
            request.held_tokens += pages * self._page_tokens
            request.private_pages += pages

    def check(self) -> None:
        """Assert that sums and calendars agree with the requests."""
        assert self.context_tokens == sum(request.fill_tokens for request in self)
        assert self.left_tokens == sum(request.left_tokens for request in self)
        for request in self:
            at = self._ticks.count + request.planned_tokens - request.output_tokens
            assert any(entry[0] <= at and entry[2] is request for entry in self._ends), "an end is not expected"
        pages_at = [0] * self._page_tokens
        for request in self:
            pages_at[(self._ticks.count + 1 - request.fill_tokens) % self._page_tokens] += 1
        assert pages_at == self._pages_at

    def __contains__(self, request: EngineRequest) -> bool:
        return request.ticks is self._ticks

    def __iter__(self) -> Iterator[EngineRequest]:
        return iter(self._requests.values())

    def __len__(self) -> int:
        return len(self._requests)
