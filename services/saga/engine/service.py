"""The live shell of EngineCore: real time x speed, text for tokens, KV events, sinks for the HTTP side.

Knows no HTTP and no JSON. `submit` gives the core a request and its sink what comes of it; one timer serves all
iterations. Called by the HTTP handlers.
"""

import asyncio
from typing import Protocol

from msgspec import Struct

from saga.engine.core import EngineCore
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
    Removed,
    Stored,
)
from saga.engine.lag import LagMeter
from saga.engine.output import LiveOutput
from saga.engine.profile import Profile
from saga.engine.settings import EngineSettings
from saga.engine.zmq_events import AllBlocksCleared, KvEvent, KvEventPublisher, removed_event, stored_event
from saga.kernel.effects import Tick, WakeAt
from saga.kv.pages import HASH_BYTES
from saga.runtime.clock import Clock


class Sink(Protocol):
    """Where a request's tokens go. Called from the event loop, must not block."""

    def progressed(self, output: LiveOutput, output_tokens: int) -> None:
        """It has produced so many tokens in all."""
        ...

    def finished(self, output: LiveOutput, end: Finished) -> None:
        """It is over; nothing follows."""
        ...


class Submission(Protocol):
    """A request as the engine takes it, parsed and checked: an Ask of the HTTP side."""

    @property
    def rid(self) -> str: ...
    @property
    def prompt_tokens(self) -> int: ...
    @property
    def max_new_tokens(self) -> int: ...
    @property
    def output(self) -> LiveOutput: ...
    @property
    def priority(self) -> int: ...
    @property
    def session_id(self) -> str: ...
    @property
    def cache_salt(self) -> str: ...


class RequestRefusedError(Exception):
    """The engine cannot take this request; the message says why."""


class _Live(Struct, frozen=True):
    submission: Submission
    sink: Sink


class EngineService:
    """One engine in real time, on the running event loop."""

    def __init__(
        self,
        profile: Profile,
        engine: EngineSettings,
        clock: Clock,
        publisher: KvEventPublisher,
        *,
        speed: float = 1.0,
    ) -> None:
        self.core = EngineCore(profile, engine)
        self.lag = LagMeter()
        self.speed = speed
        self.finished_sink = _ignore
        """Called with every Finished: metrics."""
        self._clock = clock
        self._start_s = clock.monotonic_s()
        self._publisher = publisher
        self._loop = asyncio.get_running_loop()
        self._timer: asyncio.TimerHandle | None = None
        self._live: dict[str, _Live] = {}
        self._rejected: dict[str, str] = {}
        self._opened: dict[str, asyncio.TimerHandle | None] = {}
        """Sessions opened by hand, and the timer that closes them; those opened by a request never expire."""

    @property
    def now_s(self) -> float:
        """Engine time, in seconds since the start."""
        return (self._clock.monotonic_s() - self._start_s) * self.speed

    def is_live(self, rid: str) -> bool:
        """Whether a request with that rid waits or runs."""
        return rid in self._live

    def submit(self, submission: Submission, sink: Sink) -> None:
        """Take a request in. Raises RequestRefusedError when it can never run or its rid is in use."""
        if submission.rid in self._live:
            raise RequestRefusedError(f"rid {submission.rid!r} is in use")
        self._live[submission.rid] = _Live(submission, sink)
        self._handle(
            Arrive(
                rid=submission.rid,
                prompt_tokens=submission.prompt_tokens,
                max_new_tokens=submission.max_new_tokens,
                output=submission.output,
                priority=submission.priority,
                session_id=submission.session_id,
            )
        )
        reason = self._rejected.pop(submission.rid, None)
        if reason is not None:
            raise RequestRefusedError(reason)

    def abort(self, rid_prefix: str) -> None:
        """End all requests whose rid starts so."""
        self._handle(Abort(rid_prefix))

    def drop(self, rid: str) -> None:
        """A request's client has gone: end exactly this one, and tell nobody."""
        if rid in self._live:
            self._live[rid] = _Live(self._live[rid].submission, _NO_SINK)
            self._handle(Abort(rid, exact=True))

    def open_session(self, session_id: str, timeout_s: float | None) -> bool:
        """Open a session tag, for `timeout_s` engine-seconds if given; False when it was opened already."""
        if session_id in self._opened:
            return False
        self._handle(OpenSession(session_id))
        self._opened[session_id] = None
        if timeout_s is not None:
            delay_s = timeout_s / self.speed
            self._opened[session_id] = self._loop.call_later(delay_s, self.close_session, session_id)
        return True

    def close_session(self, session_id: str) -> None:
        """Close a session tag; unknown ones are ignored."""
        timer = self._opened.pop(session_id, None)
        if timer is not None:
            timer.cancel()
        self._handle(CloseSession(session_id))

    def flush(self) -> bool:
        """Drop the cache; False, and nothing happens, while anything runs or waits."""
        if not self.core.idle:
            return False
        self._handle(Flush())
        return True

    def close(self) -> None:
        """Stop the clock; requests in flight end as aborted."""
        self.abort("")
        for timer in [self._timer, *self._opened.values()]:
            if timer is not None:
                timer.cancel()

    def _handle(self, event: Event) -> None:
        now_s = self.now_s
        due_s = self.core.due_s
        if 0.0 <= due_s <= now_s:
            self.lag.woke((now_s - due_s) / self.speed)
        wake_s: float | None = None
        kv_events: list[KvEvent] = []
        for effect in self.core.handle(event, now_s):
            if isinstance(effect, Progress):
                live = self._live[effect.rid]
                live.sink.progressed(live.submission.output, effect.output_tokens)
            elif isinstance(effect, WakeAt):
                wake_s = effect.at_s
            else:
                self._perform(effect, kv_events)
        if kv_events:
            self._publisher.publish(kv_events)
        self._wake_at(wake_s)

    def _perform(self, effect: Effect, kv_events: list[KvEvent]) -> None:
        match effect:
            case Finished(rid):
                live = self._live.pop(rid)
                self.lag.stepped((effect.finished_s - effect.arrived_s) / self.speed)
                self.finished_sink(effect)
                live.sink.finished(live.submission.output, effect)
            case Rejected(rid, reason):
                del self._live[rid]
                self._rejected[rid] = reason
            case Stored(rid, parent, hashes, first_page, session_id):
                submission = self._live[rid].submission
                page_tokens = self.core.profile.page_tokens
                tokens = len(hashes) // HASH_BYTES * page_tokens
                token_bytes = submission.output.token_bytes(first_page * page_tokens, tokens)
                kv_events.append(
                    stored_event(
                        parent,
                        hashes,
                        token_bytes,
                        page_tokens=page_tokens,
                        cache_salt=submission.cache_salt,
                        session_id=session_id,
                    )
                )
            case Removed(hashes):
                kv_events.append(removed_event(hashes))
            case Cleared():
                kv_events.append(AllBlocksCleared())

    def _wake_at(self, at_s: float | None) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if at_s is not None:
            self._timer = self._loop.call_later(max(0.0, (at_s - self.now_s) / self.speed), self._on_timer)

    def _on_timer(self) -> None:
        self._timer = None
        self._handle(Tick())


class _NoSink:
    def progressed(self, output: LiveOutput, output_tokens: int) -> None:
        pass

    def finished(self, output: LiveOutput, end: Finished) -> None:
        pass


_NO_SINK = _NoSink()


def _ignore(end: Finished) -> None:
    del end
