"""Which idle sessions keep their tags: asks the policy at the right moments, and makes room when tags cover too much.

A value is asked for when a gap begins, when its forecast comes, and later as often as the policy wants; without anybody
to tell it to, only once room is short. Tokens are counted as the sessions' contexts: prefixes that some share count for
each. Pure; called by the agent's core, and by the laboratory's cache benchmark.
"""

import heapq
from typing import Final

import msgspec

from saga.contract.ids import SessionId, SessionTag
from saga.contract.messages import Forecast
from saga.worker.deadlines import NEVER_S, Deadlines
from saga.worker.events import SetRetention
from saga.worker.idle import Idle, RetentionPolicy
from saga.worker.leases import Lease
from saga.worker.tags import OpenTag, TagTable

_SPARE: Final = 64  # void entries of the ranking that are left alone


class EngineRoom(msgspec.Struct, frozen=True, gc=False):
    """An engine's KV."""

    kv_tokens: int = 0  # 0: there is no engine
    used_share: float = 0.0  # idle sessions included
    speed: float = 1.0


class _Kept:
    """What is known of one open tag."""

    __slots__ = ("idle", "rank", "session", "tokens", "told")

    def __init__(self, session: SessionId) -> None:
        self.session = session
        self.tokens = 0
        self.idle: OpenTag | None = None  # None: a step of its session runs, or nothing is said of its worth
        self.rank = 0  # number of its newest entry in the ranking; others are void
        self.told: float | None = None


class Keeping:
    """The idle sessions of one worker by what they are worth, and the tokens that all of its tags cover."""

    __slots__ = ("_due", "_kept", "_latest", "_policy", "_ranked", "_ranks", "_tags", "crowded", "tokens")

    def __init__(self, policy: RetentionPolicy, tags: TagTable) -> None:
        self._policy = policy
        self._tags = tags
        self._kept: dict[SessionTag, _Kept] = {}
        self._latest: dict[SessionId, SessionTag] = {}
        self._ranks: list[tuple[float, int, SessionTag]] = []  # lowest value first
        self._ranked = 0
        self._due: Deadlines[SessionTag] = Deadlines()
        self.tokens = 0
        self.crowded: set[SessionTag] = set()  # that go for others to have room, and are not closed yet

    def began(self, lease: Lease, prompt_tokens: int) -> None:
        """A step runs under its session's tag. One that this supersedes is not idle either, until the step ends."""
        session, tag = lease.session, lease.tag
        if not tag:
            return
        for busy in (self._latest.get(session, tag), tag):
            if (kept := self._kept.get(busy)) is not None:
                self._busy(busy, kept)
        self._latest[session] = tag
        self._cover(self._kept.setdefault(tag, _Kept(session)), prompt_tokens, at_least=True)

    def ended(self, entry: OpenTag, room: EngineRoom, now_s: float) -> list[SetRetention]:
        """Its session is idle, or a forecast of its gap has come."""
        idle = _idle(entry, room, now_s)
        until = self._policy.keep_s(_forecast(entry), idle)
        self._tags.keep_until(entry.tag, entry.ended_s + until.choice)
        kept = self._kept.get(entry.tag)
        if kept is None:
            kept = self._kept[entry.tag] = _Kept(entry.session)
            self._latest.setdefault(entry.session, entry.tag)
        self._cover(kept, entry.context_tokens)
        return self._value(entry, kept, idle)

    def closing(self, tags: list[SessionTag]) -> None:
        """The engine is asked to close these."""
        for tag in tags:
            self.crowded.discard(tag)
            kept = self._kept.pop(tag, None)
            if kept is not None:
                self._busy(tag, kept)
                self.tokens -= kept.tokens
                if self._latest.get(kept.session) == tag:
                    self._step_back(kept.session)

    def clear(self) -> None:
        """The engine died."""
        self.closing(list(self._kept))
        self.crowded.clear()
        self._ranks.clear()

    def review(self, room: EngineRoom, now_s: float) -> list[SetRetention]:
        """What is due now: values that do not hold any more, and tags that must go for others to have room.

        Those get a deadline of now in the table of tags.
        """
        crowded = self.over(room.kv_tokens)
        if not crowded and not self._policy.tells:
            return []
        told = []
        for tag in self._due.pop_due(now_s):
            kept = self._kept[tag]
            if kept.idle is not None:
                told += self._value(kept.idle, kept, _idle(kept.idle, room, now_s))
        covered = self.tokens
        while crowded and covered > self._policy.room_share * room.kv_tokens and self._ranks:
            _, rank, tag = heapq.heappop(self._ranks)
            least = self._kept.get(tag)
            if least is not None and least.rank == rank:
                self._tags.keep_until(tag, now_s)
                self.crowded.add(tag)
                covered -= least.tokens
        return told

    def over(self, kv_tokens: int) -> bool:
        """Whether tags cover more than they may: then `review` has something to do."""
        return self.tokens > self._policy.room_share * kv_tokens > 0

    def next_s(self) -> float:
        """When `review` has something to do, though nothing else happens."""
        return self._due.next_s() if self._policy.tells else NEVER_S

    def check(self) -> None:
        """Raise AssertionError where sums or tables disagree."""
        covered = sum(kept.tokens for kept in self._kept.values())
        if self.tokens != covered:
            raise AssertionError(f"{self.tokens} tokens covered, not {covered}")
        for tag, kept in self._kept.items():
            if self._tags.state_of(tag) is None:
                raise AssertionError(f"tag {tag} is counted, but not open")
            if kept.session not in self._latest:
                raise AssertionError(f"session {kept.session} of tag {tag} is unknown")

    def _step_back(self, session: SessionId) -> None:
        """Its latest tag is gone; one before it may be held by a step whose end nobody has said."""
        before = [tag for tag in self._tags.of(session) if tag in self._kept]
        if before:
            self._latest[session] = before[-1]
        else:
            del self._latest[session]

    def _cover(self, kept: _Kept, tokens: int, *, at_least: bool = False) -> None:
        covered = max(tokens, kept.tokens) if at_least else tokens
        self.tokens += covered - kept.tokens
        kept.tokens = covered

    def _busy(self, tag: SessionTag, kept: _Kept) -> None:
        self.crowded.discard(tag)
        kept.idle, kept.rank = None, 0
        self._due.drop(tag)

    def _value(self, entry: OpenTag, kept: _Kept, idle: Idle) -> list[SetRetention]:
        forecast = _forecast(entry)
        value = self._policy.value(forecast, idle)
        if value is None:
            return []
        self._ranked += 1
        kept.idle, kept.rank = entry, self._ranked
        heapq.heappush(self._ranks, (value, kept.rank, entry.tag))
        if len(self._ranks) > 2 * len(self._kept) + _SPARE:
            live = {kept.rank for kept in self._kept.values()}
            self._ranks = [entry for entry in self._ranks if entry[1] in live]
            heapq.heapify(self._ranks)
        good_s = self._policy.good_s(forecast, idle)
        if good_s < NEVER_S:
            self._due.set(entry.tag, idle.now_s + good_s)
        if not self._policy.tells or kept.told == value:
            return []
        kept.told = value
        return [SetRetention(entry.tag, value)]


def _idle(entry: OpenTag, room: EngineRoom, now_s: float) -> Idle:
    return Idle(
        final=entry.final,
        ended_s=entry.ended_s,
        now_s=now_s,
        context_tokens=entry.context_tokens,
        speed=room.speed,
        used_share=room.used_share,
    )


def _forecast(entry: OpenTag) -> Forecast | None:
    """Of this gap. One of an earlier step says nothing of it."""
    forecast = entry.forecast
    return forecast if forecast is not None and forecast.step_id == entry.ended_step else None
