"""Continuous batching: what runs in the next iteration, and what comes of it.

Each iteration decodes one token of every request that has its prompt, and prefills at most `chunk_tokens` tokens of
prompts, in chunks of whole pages; at most one prompt is left half done. When decode runs out of pages the request that
has said least is retracted: it keeps what it said and waits again. Rules as in SGLang; called by EngineCore alone.
"""

from typing import Final

from saga.engine.decoding import Decoding
from saga.engine.new_tokens import NewTokenEstimate
from saga.engine.pool import KvPool
from saga.engine.profile import Profile
from saga.engine.request import EngineRequest
from saga.engine.settings import EngineSettings
from saga.engine.stats import EngineStats
from saga.engine.timing import IterationLoad, prefill_pairs
from saga.engine.waiting import WaitingQueue

PREEMPTION_THRESHOLD: Final = 10
"""SGLang's --priority-scheduling-preemption-threshold: a waiter must beat a running request by more than this."""
_RETRY_ITERATIONS: Final = 8
"""A waiter for whom KV was short is tried again after so many iterations, or when anything is freed."""
_WHEN_FREED: Final = 1 << 60


class Batch:
    """The running requests of one engine, and those that wait to join."""

    def __init__(self, profile: Profile, pool: KvPool, stats: EngineStats, settings: EngineSettings) -> None:
        self.waiting = WaitingQueue(settings, profile.page_tokens)
        self.decoding = Decoding(profile.page_tokens)
        self.quiet_iterations = 0
        """Iterations from the running one on that only decode: nobody ends, joins or needs pages that are not there."""
        self.first_tokens: list[EngineRequest] = []
        """Requests that got their first token in the iteration completed last."""
        self._profile = profile
        self._pool = pool
        self._stats = stats
        self._priority_scheduling = settings.priority_scheduling
        self._estimate = NewTokenEstimate(profile.shrink)
        self._prefills: list[tuple[EngineRequest, int]] = []
        self._half_done: EngineRequest | None = None
        self._retry_in = 0
        """Iterations until the head of the queue is tried again."""
        self._passes = 0
        """Passes of the running iteration; a decoded token takes `shrink` of them."""
        self._passes_before = 0
        """Passes towards the next token that earlier iterations made."""

    @property
    def running(self) -> int:
        """Requests that hold KV."""
        return len(self.decoding) + len(self._prefills) + self._half_done_waits()

    @property
    def tries_next(self) -> bool:
        """Whether the next iteration will try to start somebody."""
        return self._retry_in <= 0 and len(self.waiting) > 0 and self.running < self._profile.max_running

    def holders(self) -> list[EngineRequest]:
        """Requests that hold KV, each once."""
        self.decoding.settle()
        return [*self.decoding, *self._prefilling()]

    def enqueue(self, request: EngineRequest, number: int = 0) -> None:
        """A request starts to wait, or with a `number` can be tried from now on."""
        self.waiting.add(request, number)
        if number or self.waiting.arrival_reorders or len(self.waiting) == 1:
            self._disturb()

    def drop(self, request: EngineRequest) -> None:
        """A request is over, wherever it stands; its KV is its owner's business."""
        if request.node is None:
            self.waiting.remove(request)
        elif not self.decoding.remove(request):
            self._prefills = [entry for entry in self._prefills if entry[0] is not request]
            if self._half_done is request:
                self._half_done = None
        self._disturb()

    def begin(self, now_s: float) -> IterationLoad:
        """Put the next iteration together; an empty load when there is nothing to do."""
        self._room_for_decode()
        self._prefills = []
        budget = max(self._profile.page_tokens, self._profile.chunk_tokens - len(self.decoding) // self._profile.shrink)
        if self._half_done is not None:
            budget -= self._go_on(self._half_done, budget)
        if self._half_done is None and self._retry_in <= 0:
            self._admit(budget, now_s)
        if not len(self.decoding):
            self._passes_before = 0
        # Prefill has its say after every pass; decode alone goes on to its next token.
        self._passes = 1 if self._prefills else self._profile.shrink - self._passes_before
        self.quiet_iterations = self._quiet()
        decoding, prefills = self.decoding, self._prefills
        if not prefills:
            return IterationLoad(decodes=len(decoding), context_tokens=decoding.context_tokens, passes=self._passes)
        return IterationLoad(
            prefill_tokens=sum(chunk for _, chunk in prefills),
            prefill_pairs=sum(prefill_pairs(request.prefilled_tokens, chunk) for request, chunk in prefills),
            prefill_context_tokens=sum(request.prefilled_tokens for request, _ in prefills),
            decodes=len(decoding),
            context_tokens=decoding.context_tokens,
            passes=self._passes,
            load_s=0.0 if self._pool.host is None else self._pool.host.begin(now_s),
        )

    def cut(self, passes: int) -> None:
        """End the running iteration, which only decodes, after that many of its passes."""
        self._passes = passes
        self.quiet_iterations = 0

    def complete(self, end_s: float) -> list[EngineRequest]:
        """Take the results of the running iteration; returns the requests that end with it."""
        over = []
        self._passes_before += self._passes
        if self._passes_before >= self._profile.shrink:
            self._passes_before = 0
            self.decoding.tick(1)
            self._count(1)
            for request in self.decoding.ended():
                if _is_over(request):
                    over.append(request)
                else:
                    self.decoding.expect_end(request)
        self.first_tokens = []
        for request, chunk in self._prefills:
            request.prefilled_tokens += chunk
            self._stats.prefilled_tokens += chunk
            self._pool.cache(request, request.prefilled_tokens)
            if request.prefilled_tokens < request.fill_tokens:
                continue
            if self._half_done is request:
                self._half_done = None
            if not request.max_new_tokens:  # it came for its prompt alone
                request.reason = "length"
                over.append(request)
                continue
            if request.first_token_s < 0.0:
                request.first_token_s = end_s
                self.first_tokens.append(request)
            request.said_tokens += 1
            self._stats.generated_tokens += 1
            if _is_over(request):
                over.append(request)
            else:
                self.decoding.add(request)
        self._prefills = []
        return over

    def skip(self, ends_s: list[float]) -> None:
        """Take the results of as many quiet iterations as ended, at those times; the one after them is running now."""
        self.decoding.tick(len(ends_s))
        # SGLang evicts before each decode until there is a page for everybody, though few need one.
        self._pool.take(self.decoding.short_pages(), ends_s, least_free=len(self.decoding))
        self.decoding.has_room()
        iterations = len(ends_s)
        self.quiet_iterations -= iterations
        self._passes = self._profile.shrink
        self._passes_before = 0
        self._count(iterations)
        self._stats.iterations += iterations

    def check(self) -> None:
        """Assert the batch's own invariants."""
        self.decoding.settle()
        self.decoding.check()
        for request in self.decoding:
            assert request.output_tokens < request.planned_tokens <= request.max_new_tokens
            assert request.held_tokens >= request.fill_tokens, "decode without room"
        for request, chunk in self._prefills:
            assert request not in self.decoding
            assert request.held_tokens >= request.prefilled_tokens + chunk
        assert self.running <= self._profile.max_running
        assert all(request.node is None for request in self.waiting)

    def _prefilling(self) -> list[EngineRequest]:
        requests = [request for request, _ in self._prefills]
        if self._half_done is not None and self._half_done not in requests:
            requests.append(self._half_done)
        return requests

    def _half_done_waits(self) -> bool:
        """Whether the half done prompt has no chunk in the running iteration."""
        half_done = self._half_done
        if half_done is None:
            return False
        for request, _ in self._prefills:  # noqa: SIM110 - asked often: a loop is cheaper than any()
            if request is half_done:
                return False
        return True

    def _count(self, iterations: int) -> None:
        """Every decode has said so many tokens more."""
        self._stats.generated_tokens += iterations * len(self.decoding)
        self._estimate.decayed(iterations)
        self._retry_in -= iterations

    def _disturb(self) -> None:
        self._retry_in = 0
        self.quiet_iterations = 0

    def _quiet(self) -> int:
        if self._prefills or self._half_done is not None or not len(self.decoding):
            return 0
        steps = self.decoding.until_end() - 1
        with_room = self._pool.available_pages // len(self.decoding) * self._profile.page_tokens
        until_retry = self._retry_in if len(self.waiting) else steps
        return max(0, min(steps, with_room, until_retry))

    def _room_for_decode(self) -> None:
        pages = sum(self.decoding.short_pages())
        if pages > self._pool.available_pages:
            self.decoding.settle()
            for request in list(self.decoding):
                while request in self.decoding and not self._pool.grow(request, request.fill_tokens):
                    self._retract(self._least_said())
        else:
            self._pool.take([pages], least_free=len(self.decoding))
        self.decoding.has_room()

    def _least_said(self) -> EngineRequest:
        """Whom SGLang retracts: the fewest output tokens, then the longest prompt; the last one of a batch stays."""
        if len(self.decoding) == 1 and self._half_done is not None:
            return self._half_done
        return min(self.decoding, key=lambda request: (request.output_tokens, -request.prompt_tokens))

    def _retract(self, request: EngineRequest) -> None:
        if self._half_done is request:
            self._half_done = None
        else:
            self.decoding.remove(request)
        self._pool.release(request)
        request.retractions += 1
        self._stats.retractions += 1
        self._estimate.retracted(self.decoding)
        self.waiting.add(request)
        self._disturb()

    def _go_on(self, request: EngineRequest, budget: int) -> int:
        """Prefill the next chunk of the half done prompt, as much as there is room for; returns its tokens."""
        room = request.held_tokens - request.prefilled_tokens
        room += self._pool.available_pages * self._profile.page_tokens
        chunk = self._chunk(request.fill_tokens - request.prefilled_tokens, min(budget, room))
        if chunk and self._pool.grow(request, request.prefilled_tokens + chunk, spare_pages=1):
            self._prefills.append((request, chunk))
            if request.prefilled_tokens + chunk == request.fill_tokens:
                self._half_done = None
        return chunk

    def _chunk(self, rest: int, budget: int) -> int:
        return rest if rest <= budget else budget // self._profile.page_tokens * self._profile.page_tokens

    def _admit(self, budget: int, now_s: float) -> None:
        """Start waiting requests, first one first, until chunk, slots or KV are used up."""
        self.waiting.schedule(self._pool.tree)
        while (head := self.waiting.head()) is not None and budget >= self._profile.page_tokens:
            if self.running >= self._profile.max_running:
                if not self._preempt_for(head):
                    self._retry_in = _WHEN_FREED
                    return
                continue
            chunk = self._start(head, budget)
            if chunk == 0:
                if not self._preempt_for(head):
                    self._retry_in = _RETRY_ITERATIONS
                    return
                continue
            self.waiting.pop()
            budget -= chunk
            self._prefills.append((head, chunk))
            if head.started_s < 0.0:
                head.started_s = now_s
                head.cached_tokens = head.prefilled_tokens
                self._stats.prompt_tokens += head.prompt_tokens
                self._stats.cached_tokens += head.cached_tokens
            if head.prefilled_tokens + chunk < head.fill_tokens:
                self._half_done = head
                return

    def _start(self, request: EngineRequest, budget: int) -> int:
        """Attach a waiting request to its prefix and make room for its first chunk; 0 when KV is short."""
        alone = self.running == 0
        pool, page_tokens = self._pool, self._profile.page_tokens
        pool.attach(request)
        wanted = request.fill_tokens - request.prefilled_tokens + self._estimate.new_tokens(request)
        loaded_tokens = pool.hosted_pages(request) * page_tokens
        filled_tokens = request.prefilled_tokens + loaded_tokens
        chunk = self._chunk(request.fill_tokens - filled_tokens, budget)
        fits = alone or wanted <= self._unreserved_tokens()
        if chunk and fits and -(-(loaded_tokens + chunk) // page_tokens) <= pool.available_pages:
            pool.start(request)
            grown = pool.grow(request, filled_tokens + chunk, spare_pages=1)
            assert grown, "there was room a moment ago"
            assert request.prefilled_tokens == filled_tokens, "the host tier had other pages a moment ago"
            return chunk
        pool.detach(request)
        return 0

    def _unreserved_tokens(self) -> float:
        reserved = self._estimate.reserved_tokens(self.decoding)
        for request, _ in self._prefills:
            missing = request.fill_tokens - request.held_tokens
            reserved += max(0, missing) + self._estimate.new_tokens(request)
        return self._pool.available_pages * self._profile.page_tokens - reserved

    def _preempt_for(self, head: EngineRequest) -> bool:
        """With priorities: retract the least important decode if `head` beats it clearly."""
        if not self._priority_scheduling or not len(self.decoding):
            return False
        victim = min(self.decoding, key=lambda request: (request.priority, request.output_tokens))
        if head.priority - victim.priority <= PREEMPTION_THRESHOLD:
            return False
        self._retract(victim)
        return True


def _is_over(request: EngineRequest) -> bool:
    """Whether the output ends with the token just produced; asks how it goes on where that is not known yet."""
    if request.output_tokens < request.planned_tokens:
        return False
    if not request.reason:
        known, reason = request.output.plan(request.output_tokens)
        request.planned_tokens = min(known, request.max_new_tokens)
        request.reason = reason if known <= request.max_new_tokens else "length"
        if not request.reason and known == request.max_new_tokens:
            request.reason = "length"
    return request.output_tokens >= request.planned_tokens
