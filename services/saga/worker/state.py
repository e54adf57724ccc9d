"""The worker agent's core: one engine's presence, residency, leases and session tags. Pure; `service` is its shell.

It owns the truth about its engine's KV and health, and the TTL of every session tag there. It starts no steps and
chooses no places. How long a tag is kept is `retention`'s choice.
"""

from collections.abc import Callable, Iterable
from random import Random
from typing import Any, Final

from saga.contract.ids import SessionId, SessionTag, WorkerId, rid
from saga.contract.messages import (
    AllCleared,
    Forecast,
    KvAsk,
    KvTold,
    LeaseReleased,
    LeaseReturned,
    LeasesRenewed,
    LeaseTaken,
    LetGoReason,
    Message,
    ReleaseReason,
    ResidencyDelta,
    ResyncRequest,
    SessionsReleased,
    StepCancelled,
    StepFinished,
    StepProgress,
    StepStarted,
    WorkerHello,
)
from saga.contract.subjects import Subjects
from saga.kernel.effects import Forget, Log, Persist, Publish, Received, Reconnected, Tick, WakeAt
from saga.kernel.fences import Fences
from saga.worker.ahead import Ahead
from saga.worker.attribution import Attribution
from saga.worker.endings import Endings
from saga.worker.events import (
    AbortRequest,
    Attached,
    BusAway,
    CheckEngine,
    CloseTag,
    Drain,
    EngineGone,
    KvEvents,
    KvEventsLost,
    Leave,
    LoadMissed,
    LoadSeen,
    Restored,
    TagClosed,
    TagCloseFailed,
    WorkerEffect,
    WorkerEvent,
)
from saga.worker.journal import encode_record
from saga.worker.keeping import EngineRoom, Keeping
from saga.worker.leases import Lease, LeaseTable
from saga.worker.prefetch import PrefetchPolicy
from saga.worker.presence import HEARTBEAT_S, NEVER_S, Presence
from saga.worker.residency import ResidencyFeed
from saga.worker.retention import RetentionPolicy
from saga.worker.tags import OpenTag, TagRecord, TagTable

UNCLAIMED_S: Final = 10.0  # a tag from the journal that no lease claims goes after this
Effects = list[WorkerEffect]


class WorkerState:
    """Everything one agent knows. `handle` is the one door."""

    def __init__(
        self,
        worker_id: WorkerId,
        engine_url: str,
        subjects: Subjects,
        retention: RetentionPolicy,
        rng: Random,
        *,
        lease_ttl_s: float,
        resync_jitter_s: float = 0.2,
        heartbeat_s: float = HEARTBEAT_S,
        prefetch: PrefetchPolicy | None = None,
    ) -> None:
        """`lease_ttl_s`: of a lease whose LeaseTaken was lost; `rng`: for the jitter of snapshots alone; `prefetch`: of
        what was let go to a host tier, None: never."""
        self._worker_id = worker_id
        self._subjects = subjects
        self._retention = retention
        self._lease_ttl_s = lease_ttl_s
        self._wake_s = NEVER_S
        self._deaf = False  # the bus is away
        self._fences = Fences()
        self.presence = Presence(worker_id, engine_url, heartbeat_s)
        self.leases = LeaseTable(lease_ttl_s)
        self.tags = TagTable()
        self.keeping = Keeping(retention, self.tags)
        self.ahead = Ahead(prefetch)
        self.endings = Endings()
        self.feed = ResidencyFeed(worker_id, rng, resync_jitter_s)
        self.attribution = Attribution()
        self._on_message: dict[type[Message], Callable[[Any, float], Effects]] = {
            LeaseTaken: self._lease_taken,
            LeaseReturned: self._lease_returned,
            LeasesRenewed: self._leases_renewed,
            StepStarted: self._step_started,
            StepProgress: self._step_moves,
            StepFinished: self._step_finished,
            StepCancelled: self._step_cancelled,
            SessionsReleased: self._sessions_released,
            Forecast: self._foretold,
            ResyncRequest: self._resync,
        }

    def restore(self, records: Iterable[TagRecord], now_s: float) -> Effects:
        """The first event: Restored."""
        return self.handle(Restored(tuple(records)), now_s)

    # Questions

    @property
    def hello(self) -> WorkerHello | None:
        """Who this worker is; None without an engine."""
        return self.presence.hello

    def told(self, ask: KvAsk, now_s: float) -> KvTold:
        """What became of a session's KV."""
        return self.endings.told(ask, self._worker_id, now_s)

    def check(self) -> None:
        """Raise AssertionError where tables disagree: a lease out keeps its tag open, and none closes under it."""
        self.leases.check()
        self.tags.check()
        self.keeping.check()
        self.ahead.check()
        for lease_id in self.tags.leases_out():
            if not self.leases.out(lease_id):
                raise AssertionError(f"a tag waits for lease {lease_id}, which is not out")

    # The one door

    def handle(self, event: WorkerEvent, now_s: float) -> Effects:
        """Take an event in and return what to do about it. `now_s`: monotonic."""
        effects: Effects = []
        self.attribution.see(event)
        match event:
            case Received():
                act = self._on_message.get(type(event.message))
                effects = act(event.message, now_s) if act is not None else []
            case Tick():
                self._wake_s = NEVER_S
            case TagClosed(tag):
                self.tags.closed(tag)
            case TagCloseFailed(tag):
                self.tags.close_failed(tag, now_s)
            case Restored(records):
                for record in records:
                    self.tags.restore(record, now_s + UNCLAIMED_S)
                    for lease in record.leases:
                        self.leases.take(lease, now_s)
            case BusAway():
                self._deaf = True
            case Reconnected():
                self._deaf = False
                self.leases.excuse(now_s)
            case _:
                effects = self._of_engine(event, now_s)
        return self._settled(effects, now_s)

    # Engine

    def _of_engine(self, event: WorkerEvent, now_s: float) -> Effects:
        match event:
            case KvEvents(changes, published_at):
                return self._deltas(self.feed.change(changes, now_s, published_at)) if self.hello else []
            case KvEventsLost():
                return self._events_lost(now_s)
            case LoadSeen():
                self.presence.loaded(event)
                return self._health(healthy=True, now_s=now_s)
            case LoadMissed():
                return self._health(healthy=False, now_s=now_s)
            case Drain(on):
                told = self._beat(now_s) if self.presence.drained(on=on) else []
                return [*told, *(self._let_go(self.tags.sessions(), "moved", now_s) if on else [])]
            case Attached():
                return self._attached(event, now_s)
            case EngineGone():
                return self._engine_gone(now_s)
            case Leave():  # tags stay open: the journal has them
                return self._announce(self.presence.leave())
            case _:
                return []

    def _attached(self, event: Attached, now_s: float) -> Effects:
        facts = event.facts
        self.feed.restart(event.epoch)
        self.endings.attached(now_s)
        hello = self.presence.attached(facts, event.epoch, tags=self._retention.tags)
        told = Log("worker.attached", {"model": facts.model, "epoch": event.epoch, "session_tags": hello.session_tags})
        # One that is to be empty says so with its first word: nobody may start anything on it in between.
        return [told, *self._announce(None if self.presence.draining else hello), *self._beat(now_s)]

    def _engine_gone(self, now_s: float) -> Effects:
        """Its KV, its requests and its session tags went with it."""
        leaving = self.presence.gone()
        if leaving is None:
            return []
        for lease in self.leases.clear():
            self.tags.free(lease, now_s)
        self.endings.engine_died(self.tags.sessions(), now_s)
        self.tags.clear()
        self.keeping.clear()
        self.ahead.clear()
        return [*self._announce(leaving), Log("worker.engine_gone", {"epoch": leaving.epoch})]

    def _events_lost(self, now_s: float) -> Effects:
        lost = Log("worker.kv_events_lost", {"epoch": self.feed.epoch, "pages_forgotten": self.feed.pages})
        return [lost, *self._deltas(self.feed.change((AllCleared(),), now_s))] if self.hello else []

    def _health(self, *, healthy: bool, now_s: float) -> Effects:
        if not self.presence.turned(healthy=healthy):
            return []
        return [Log("worker.health", {"healthy": healthy}), *self._beat(now_s)]

    def _beat(self, now_s: float) -> Effects:
        counts = {"residency_seq": self.feed.seq, "tags": len(self.tags), "leases": len(self.leases)}
        return self._announce(self.presence.heartbeat(now_s, **counts))

    def _announce(self, message: Message | None) -> Effects:
        return [] if message is None else [Publish(self._subjects.worker_presence(), message)]

    # Messages

    def _lease_taken(self, message: LeaseTaken, now_s: float) -> Effects:
        tag = message.session_tag if self._retention.tags else SessionTag("")
        lease = Lease(message.lease_id, message.step_id, message.attempt, message.lease_ttl_s, message.session, tag)
        if self.leases.take(lease, now_s):
            return self._taken(lease, message.prompt_tokens)
        if not self.leases.out(lease.lease_id) and tag and self.tags.state_of(tag) is None:
            # The step's end overtook its beginning: the engine has the tag open all the same.
            return [*self._taken(lease), *self._ended(lease, now_s)]
        return []

    def _lease_returned(self, message: LeaseReturned, now_s: float) -> Effects:
        effects = self._ended(self.leases.end(message.lease_id), now_s)
        if message.reason == "engine_died" and self.hello is not None:
            effects.append(CheckEngine())
        return effects

    def _leases_renewed(self, message: LeasesRenewed, now_s: float) -> Effects:
        for lease_id in message.lease_ids:
            self.leases.renew(lease_id, now_s)
        return []

    def _step_started(self, message: StepStarted, now_s: float) -> Effects:
        """Its LeaseTaken may have been lost; the engine opens the tag all the same."""
        tag = message.session_tag if self._retention.tags else SessionTag("")
        lease = Lease(message.lease_id, message.step_id, message.attempt, self._lease_ttl_s, message.session, tag)
        if self.leases.take(lease, now_s):
            return self._taken(lease)
        self.leases.renew(message.lease_id, now_s)
        return []

    def _step_moves(self, message: StepProgress, now_s: float) -> Effects:
        self.leases.progress(message.lease_id, message.step_id, message.attempt, now_s)
        return []

    def _step_finished(self, message: StepFinished, now_s: float) -> Effects:
        return self._ended(self.leases.end(message.lease_id), now_s, message)

    def _step_cancelled(self, message: StepCancelled, now_s: float) -> Effects:
        return self._ended(self.leases.end(message.lease_id), now_s) if message.lease_id else []

    def _sessions_released(self, message: SessionsReleased, now_s: float) -> Effects:
        if message.reason in self._retention.outlives or self._fences.stale(message.by, message.fence):
            return []
        return self._let_go(message.sessions, message.reason, now_s)

    def _foretold(self, message: Forecast, now_s: float) -> Effects:
        room = self._room()
        return [effect for entry in self.tags.foretold(message) for effect in self.keeping.ended(entry, room, now_s)]

    def _resync(self, message: ResyncRequest, now_s: float) -> Effects:
        self.feed.ask(message.inbox, now_s)
        return []

    # Inside

    def _ended(self, lease: Lease | None, now_s: float, ended: StepFinished | None = None) -> Effects:
        """`ended`: how its step finished; None: it did not, or nobody said."""
        if lease is None:
            return []
        finished = ended is not None
        entry, close = self.tags.free(lease, now_s, finished=finished, final=ended is not None and ended.final)
        if entry is None:
            return self._closings(close)
        entry.ended = ended
        entry.context_tokens = 0 if ended is None else ended.prompt_tokens + ended.output_tokens
        return [*self.keeping.ended(entry, self._room(), now_s), *self._closings(close)]

    def _taken(self, lease: Lease, prompt_tokens: int = 0) -> Effects:
        kept = self.tags.has(lease.session)
        close = self.tags.take(lease)
        self.endings.took(lease.session, lease.step_id, kept=kept)
        self.ahead.back(lease.session)
        self.keeping.began(lease, prompt_tokens)
        if self.presence.draining:  # it goes on elsewhere
            close += self.tags.release(lease.session)
        return self._closings(close)

    def _let_go(self, sessions: Iterable[SessionId], reason: ReleaseReason, now_s: float) -> Effects:
        """They have no claim to their KV here: their tags close as soon as no lease of theirs is out."""
        effects: Effects = []
        for session in sessions:
            self.ahead.back(session)
            if self.tags.has(session):
                self.endings.let_go(session, reason, now_s)
            effects += self._closings(self.tags.release(session))
        return effects

    def _room(self) -> EngineRoom:
        hello = self.hello
        if hello is None:
            return EngineRoom()
        used_share = self.feed.pages * hello.page_tokens / hello.kv_tokens
        return EngineRoom(hello.kv_tokens, used_share, hello.speed)

    def _expired(self, now_s: float) -> Effects:
        """Leases that nobody renews: their gateway is gone, so their requests end, and placement hears of it."""
        effects: Effects = []
        for lease in self.leases.expire(now_s):
            released = LeaseReleased(
                step_id=lease.step_id, attempt=lease.attempt, lease_id=lease.lease_id, worker_id=self._worker_id
            )
            effects += [
                AbortRequest(rid(lease.step_id, lease.attempt)),
                Publish(self._subjects.lease(self._worker_id), released),
                Log("worker.lease_expired", {"lease": lease.lease_id, "step": lease.step_id}),
                *self._ended(lease, now_s),
            ]
        return effects

    def _why(self, entry: OpenTag) -> LetGoReason:
        """Its tag is closed though nobody said so."""
        return "closed" if entry.final else "crowded" if entry.tag in self.keeping.crowded else "expired"

    def _closings(self, tags: list[SessionTag]) -> Effects:
        self.keeping.closing(tags)
        return [CloseTag(tag) for tag in tags]

    def _deltas(self, deltas: list[ResidencyDelta]) -> Effects:
        subject, word = self._subjects.residency(self._worker_id), self._subjects.gateway_word()
        chains = self.attribution.chains() if deltas else []
        return [*(Publish(subject, delta) for delta in deltas), *(Publish(word, chain) for chain in chains)]

    def _settled(self, effects: Effects, now_s: float) -> Effects:
        """Do what is due, tell the journal, and ask to be woken for the next thing."""
        hello = self.presence.hello
        here = hello is not None
        if not self._deaf and self.leases.not_before_s() <= now_s:
            effects += self._expired(now_s)
        if hello is not None:
            if self.keeping.next_s() <= now_s or self.keeping.over(hello.kv_tokens):
                effects += self.keeping.review(self._room(), now_s)
            if self.tags.not_before_s() <= now_s:
                expired = self.tags.expire(now_s)
                for entry in filter(None, map(self.tags.idle, expired)):
                    if not self.tags.has(entry.session):
                        self.endings.let_go(entry.session, self._why(entry), now_s)
                    self.ahead.let_go(entry, hello, now_s)
                effects += self._closings(expired)
            if self.ahead.next_s() <= now_s:
                for ask in self.ahead.asks(hello, self.keeping.tokens, now_s):
                    effects.append(Publish(self._subjects.gateway(ask.gateway_id), ask))
            if self.feed.next_s() <= now_s:
                deltas, parts = self.feed.due(now_s)
                effects += self._deltas(deltas)
                effects += [Publish(inbox, part) for inbox, part in parts]
            if self.presence.next_s() <= now_s:
                effects += self._beat(now_s)
        if self.tags.changed:
            for tag, record in self.tags.take_changes():
                effects.append(Forget(tag) if record is None else Persist(tag, encode_record(record)))
        # Bounds first: mostly a wake-up before all of them is set already.
        set_s = self._wake_s
        wake_s = NEVER_S
        if not self._deaf and self.leases.not_before_s() < set_s:
            wake_s = self.leases.next_s()
        if here:
            if self.tags.not_before_s() < set_s:
                wake_s = min(wake_s, self.tags.next_s())
            wake_s = min(wake_s, self.feed.next_s(), self.presence.next_s(), self.keeping.next_s(), self.ahead.next_s())
        if wake_s < set_s:
            self._wake_s = wake_s
            effects.append(WakeAt(wake_s))
        return effects
