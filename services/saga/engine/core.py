"""EngineCore: a simulated SGLang scheduler. Radix cache, continuous batching with chunked prefill, retraction, timing.

Pure: `handle(event, now_s) -> effects`. It runs in real time behind HTTP and ZMQ in the `engine` service and in virtual
time in the simulator. An iteration that is due is done before the event; iterations between which nothing can happen
(only decode, no page short, nothing to admit) are done in one go, so that long decodes cost little.
Rules and constants follow SGLang's scheduler with --enable-mixed-chunk: chunked prefill and decode share an iteration.
"""

from bisect import bisect_right

from saga.engine.batch import Batch
from saga.engine.events import (
    Abort,
    Arrive,
    Cleared,
    CloseSession,
    Effect,
    Event,
    Finished,
    Flush,
    OpenSession,
    Progress,
    Rejected,
    SetRetention,
)
from saga.engine.fetching import NEVER_S, Fetching
from saga.engine.host_tier import HostTier
from saga.engine.pool import KvPool
from saga.engine.profile import Profile
from saga.engine.request import EngineRequest
from saga.engine.sessions import SessionTags
from saga.engine.settings import EngineSettings
from saga.engine.shared_tier import TierLink
from saga.engine.stats import EngineStats
from saga.engine.timing import IterationLoad, IterationTimer
from saga.kernel.effects import Tick, WakeAt

_DEFAULTS = EngineSettings()
_MOST_AHEAD = 512
"""Quiet iterations planned at a time: an arrival makes the plan void."""


class EngineCore:
    """One engine. `progress=False` leaves out all Progress effects but that of the first token, for simulators."""

    def __init__(
        self,
        profile: Profile,
        settings: EngineSettings = _DEFAULTS,
        *,
        progress: bool = True,
        pool: KvPool | None = None,
        shared: TierLink | None = None,
    ) -> None:
        """`pool`: a KV pool to use, perhaps with other engines; what is done to it is told by whoever does it.

        It has its host tier and its eviction policy, whatever `settings` say. `shared`: a tier behind the host tier;
        raises ValueError without one.
        """
        self.profile = profile
        self.stats = EngineStats()
        self._progress = progress
        host = HostTier(profile, settings.host_kv_tokens) if settings.host_kv_tokens and pool is None else None
        self._pool = pool or KvPool(profile.kv_pages, profile.page_tokens, host, settings.eviction)
        self._shares_pool = pool is not None
        self._pool.shared = shared
        self._fetching = Fetching(self._pool, shared, shrink=profile.shrink) if shared is not None else None
        self._sessions = SessionTags(enabled=settings.session_radix_cache)
        self._batch = Batch(profile, self._pool, self.stats, settings)
        self._timer = IterationTimer(profile)
        self._requests: dict[str, EngineRequest] = {}
        self._end_s = -1.0
        """When the running iteration ends; negative while idle."""
        self._iteration_s = 0.0
        self._load = IterationLoad()
        self._ends_s: list[float] = []
        """Planned ends of quiet iterations, see `_plan`; out of date unless it begins with `_end_s`."""
        self._effects: list[Effect] = self._pool.effects

    def handle(self, event: Event, now_s: float) -> list[Effect]:
        """Do what is due at `now_s` and then the event; returns effects in order, WakeAt last."""
        if self._fetching is not None:
            self._take_fetched(self._fetching, now_s)
        self._advance(now_s)
        self._pool.at(now_s)
        match event:
            case Tick():
                pass
            case Arrive():
                self._arrive(event, now_s)
            case Abort():
                self._abort(event, now_s)
            case OpenSession(session_id):
                self._sessions.open(session_id)
            case CloseSession(session_id):
                self._sessions.close(session_id, self._pool.tree)
            case SetRetention(session_id, value):
                self._sessions.value(session_id, value, self._pool.tree)
            case Flush():
                self._flush()
        if self._end_s < 0.0:
            self._begin(now_s)
        effects = self._effects[:]
        self._effects.clear()
        wake_s = NEVER_S if self._fetching is None else self._fetching.ready_s
        if self._end_s >= 0.0:
            ahead = self._batch.quiet_iterations and not self._progress
            wake_s = min(wake_s, self._plan()[-1] if ahead else self._end_s)
        if wake_s < NEVER_S:
            effects.append(WakeAt(wake_s))
        return effects

    # Questions.

    @property
    def running(self) -> int:
        """Requests in the batch, with the one whose prompt is being prefilled."""
        return self._batch.running

    @property
    def waiting(self) -> int:
        """Requests not started, or retracted."""
        return len(self._batch.waiting) + len(self._fetched())

    @property
    def waiting_tokens(self) -> int:
        """Tokens that waiting requests must fill, cached or not."""
        return sum(request.fill_tokens for request in (*self._batch.waiting, *self._fetched()))

    @property
    def idle(self) -> bool:
        """Whether nothing runs or waits."""
        return not self._requests

    @property
    def pool(self) -> KvPool:
        """The KV pool, to be read only."""
        return self._pool

    @property
    def due_s(self) -> float:
        """When the running iteration ends; negative while idle."""
        return self._end_s

    @property
    def open_sessions(self) -> list[str]:
        """Session tags that are open."""
        return self._sessions.open_ids

    def has(self, rid: str) -> bool:
        """Whether a request is waiting or running."""
        return rid in self._requests

    def cached_tokens(self, rid: str) -> int:
        """Prompt tokens of a request that waits or runs that were found in the cache."""
        return self._requests[rid].cached_tokens

    def check(self) -> None:
        """Assert all invariants; for tests and the simulator."""
        self._batch.check()
        holders = self._batch.holders()
        if not self._shares_pool:
            self._pool.check(holders)
        fetched = self._fetched()
        assert {request.rid for request in [*holders, *self._batch.waiting, *fetched]} == set(self._requests)
        assert (self._end_s >= 0.0) == bool(holders), "a batch without an iteration, or the reverse"
        assert self.idle or holders or fetched, "requests wait for nothing"
        if self._fetching is not None:
            self._fetching.check()

    # Events.

    def _arrive(self, arrival: Arrive, now_s: float) -> None:
        tokens = arrival.prompt_tokens + arrival.max_new_tokens
        room = min(self.profile.context_tokens, self._pool.capacity_pages * self.profile.page_tokens)
        if arrival.rid in self._requests:
            self._effects.append(Rejected(arrival.rid, "rid is in use"))
        elif arrival.prompt_tokens < 1 or arrival.max_new_tokens < 0:
            self._effects.append(Rejected(arrival.rid, "a prompt must have at least one token"))
        elif tokens > room:
            self._effects.append(Rejected(arrival.rid, f"prompt and output need {tokens} tokens, {room} fit"))
        else:
            generation = self._sessions.join(arrival.session_id)
            request = EngineRequest(arrival, generation, now_s)
            self._requests[arrival.rid] = request
            self.stats.requests += 1
            if self._fetching is not None and self._fetching.hold(request, now_s):
                request.number = self._batch.waiting.take_number()
            else:
                self._batch.enqueue(request)
                self._make_way(now_s)

    def _abort(self, abort: Abort, now_s: float) -> None:
        rids = [rid for rid in self._requests if rid == abort.rid or (not abort.exact and rid.startswith(abort.rid))]
        for request in [self._requests[rid] for rid in rids]:
            self._finish(request, "abort", now_s)
        if not self._batch.running:
            self._end_s = -1.0
            self.stats.works(now_s, busy=False)

    def _flush(self) -> None:
        if self.idle:
            self._pool.clear()
            self._effects.append(Cleared())

    def _fetched(self) -> list[EngineRequest]:
        """Requests for which pages are read from a shared tier."""
        return self._fetching.requests if self._fetching is not None else []

    def _take_fetched(self, fetching: Fetching, now_s: float) -> None:
        """Those whose pages are there by now may start, each from its own moment on."""
        while (ready_s := fetching.ready_s) <= now_s:
            self._advance(ready_s)
            self._pool.at(ready_s)
            request = fetching.take()
            self._batch.enqueue(request, request.number)
            self._make_way(ready_s)
            if self._end_s < 0.0:
                self._begin(ready_s)

    # Iterations.

    def _advance(self, now_s: float) -> None:
        while 0.0 <= self._end_s <= now_s:
            if self._batch.quiet_iterations > 0:
                self._skip(now_s)
            else:
                end_s = self._end_s
                self._pool.at(end_s)
                finished = self._batch.complete(end_s)
                for request in self._batch.first_tokens:
                    self._report(request)
                for request in finished:
                    self._finish(request, request.reason, end_s)
                self._begin(end_s)
        if self._progress:
            for request in self._batch.decoding:
                self._report(request)

    def _skip(self, now_s: float) -> None:
        """Complete quiet iterations up to `now_s`; the one in flight afterwards may be quiet too."""
        ends_s = self._plan()
        done = min(bisect_right(ends_s, now_s), len(ends_s) - 1)
        load = self._load
        self._load = load = load._replace(
            context_tokens=load.context_tokens + done * load.decodes, passes=self.profile.shrink
        )
        self._iteration_s = self._timer.iteration_s(load)
        self._end_s = ends_s[done]
        self._batch.skip(ends_s[:done])
        del ends_s[:done]

    def _plan(self) -> list[float]:
        """When the running iteration ends and the quiet ones after it, or many of them, and the one after those."""
        more = min(self._batch.quiet_iterations, _MOST_AHEAD)
        if len(self._ends_s) <= 1 or self._ends_s[0] != self._end_s or len(self._ends_s) - 1 > more:
            load = self._load._replace(passes=self.profile.shrink)
            self._ends_s = self._timer.decode_ends(load, self._end_s, more)
        return self._ends_s

    def _begin(self, now_s: float) -> None:
        self._ends_s = []
        self._load = load = self._batch.begin(now_s)
        if load.prefill_tokens or load.decodes:
            self._iteration_s = self._timer.iteration_s(load)
            self._end_s = now_s + self._iteration_s
            self.stats.iterations += 1
        else:
            self._end_s = -1.0
        self.stats.works(now_s, busy=self._end_s >= 0.0)

    def _make_way(self, now_s: float) -> None:
        """End an iteration of several decode passes (a shrunk profile's) after the pass that runs now."""
        load = self._load
        if self._end_s < 0.0 or load.prefill_tokens or load.passes <= 1 or not self._batch.tries_next:
            return
        pass_s = self._iteration_s / load.passes
        begun_s = self._end_s - self._iteration_s
        passes = int((now_s - begun_s) / pass_s) + 1
        if passes < load.passes:
            self._load = load._replace(passes=passes)
            self._iteration_s = passes * pass_s
            self._end_s = begun_s + self._iteration_s
            self._batch.cut(passes)

    def _report(self, request: EngineRequest) -> None:
        if request.output_tokens > request.reported_tokens:
            request.reported_tokens = request.output_tokens
            self._effects.append(Progress(request.rid, request.output_tokens))

    def _finish(self, request: EngineRequest, reason: str, now_s: float) -> None:
        if self._progress:
            self._report(request)
        # The last token said was never fed back, so it has no KV.
        computed = request.fill_tokens - 1 if request in self._batch.decoding else request.prefilled_tokens
        if self._fetching is None or not self._fetching.drop(request):
            self._batch.drop(request)
        if request.node is not None:
            self._pool.cache(request, computed)
            if reason != "abort":  # SGLang tags nothing then
                self._sessions.tag(request.session_id, request.session_generation, request.node, self._pool.tree)
        self._pool.release(request)
        del self._requests[request.rid]
        self.stats.finish(request, reason)
        self._effects.append(
            Finished(
                rid=request.rid,
                reason=reason,
                prompt_tokens=request.prompt_tokens,
                cached_tokens=request.cached_tokens,
                output_tokens=request.output_tokens,
                retractions=request.retractions,
                arrived_s=request.arrived_s,
                started_s=request.started_s,
                first_token_s=request.first_token_s,
                finished_s=now_s,
            )
        )
