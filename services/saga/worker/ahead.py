"""Sessions whose KV was let go and will be asked for before they return: who, when, and no more than link and KV bear.

A session enters when its tag is closed for want of room, and leaves when it is asked for, takes a step, or is over.
When to ask is `prefetch`'s choice. Pure; called by the agent's core.
"""

from typing import Final

from saga.contract.ids import SessionId
from saga.contract.messages import PrefetchAsked, WorkerHello
from saga.worker.deadlines import NEVER_S, Deadlines
from saga.worker.prefetch import HostLink, PrefetchPolicy
from saga.worker.tags import OpenTag

LINK_SHARE: Final = 0.25  # of the link's time that may go into guesses
MOST_WAITING: Final = 4_096  # sessions; beyond this nobody is added


class Ahead:
    """Those of one worker."""

    __slots__ = ("_due", "_link_free_s", "_policy", "_waiting")

    def __init__(self, policy: PrefetchPolicy | None) -> None:
        """None: nothing is ever asked for."""
        self._policy = policy
        self._waiting: dict[SessionId, PrefetchAsked] = {}
        self._due: Deadlines[SessionId] = Deadlines()
        self._link_free_s = 0.0

    def let_go(self, entry: OpenTag, hello: WorkerHello, now_s: float) -> None:
        """The session of this idle tag loses its claim to the device."""
        ended, forecast = entry.ended, entry.forecast
        if self._policy is None or ended is None or entry.final or len(self._waiting) >= MOST_WAITING:
            return
        if forecast is not None and forecast.step_id != ended.step_id:
            forecast = None  # of an earlier gap
        away_s = max(0.0, now_s - entry.ended_s)
        ask = self._policy.ask_s(forecast, away_s, ended.prompt_tokens, HostLink.of(hello))
        if ask.choice < NEVER_S:
            self._waiting[entry.session] = PrefetchAsked(
                worker_id=hello.worker_id,
                engine_url=hello.engine_url,
                gateway_id=ended.gateway_id,
                tenant=ended.tenant,
                session=entry.session,
                step_id=ended.step_id,
                prompt_tokens=ended.prompt_tokens,
            )
            self._due.set(entry.session, entry.ended_s + ask.choice)

    def back(self, session: SessionId) -> None:
        """It takes a step, or will take none."""
        if self._waiting.pop(session, None) is not None:
            self._due.drop(session)

    def clear(self) -> None:
        """The engine died."""
        self._waiting.clear()
        self._due.clear()

    def asks(self, hello: WorkerHello, covered_tokens: int, now_s: float) -> list[PrefetchAsked]:
        """What is to be asked for now. One that finds no room beside `covered_tokens`, which others hold, is given
        up; one that finds the link taken is put off."""
        asks = []
        link = HostLink.of(hello)
        for session in self._due.pop_due(now_s):
            ask = self._waiting[session]
            if now_s < self._link_free_s:
                self._due.set(session, self._link_free_s)
                continue
            del self._waiting[session]
            if covered_tokens + ask.prompt_tokens <= hello.kv_tokens:
                covered_tokens += ask.prompt_tokens
                self._link_free_s = now_s + link.load_s(ask.prompt_tokens) / LINK_SHARE
                asks.append(ask)
        return asks

    def next_s(self) -> float:
        """When `asks` has something to say."""
        return self._due.next_s()

    def __len__(self) -> int:
        return len(self._waiting)

    def check(self) -> None:
        """Raise AssertionError unless everybody who waits has a time."""
        for session in self._waiting:
            if self._due.at_s(session) == NEVER_S:
                raise AssertionError(f"session {session} waits to be asked for, but never will be")
