"""Why sessions lost their claim to the KV that they had here: remembered until their next step, and a while after.

For receipts alone (`KvAsk`): nothing is decided by it. What it does not know it does not guess; `known_s` says how far
back it goes. Pure; the agent's core tells it.
"""

from collections import OrderedDict
from collections.abc import Iterable
from typing import Final

from saga.contract.ids import SessionId, StepId, WorkerId
from saga.contract.messages import KvAsk, KvTold, LetGoReason

MAX_REMEMBERED: Final = 16_384  # sessions, and steps


class Endings:
    """Of one worker's session tags."""

    __slots__ = ("_before", "_last", "_since_s")

    def __init__(self) -> None:
        self._last: OrderedDict[SessionId, tuple[LetGoReason, float]] = OrderedDict()  # that did not come back since
        self._before: OrderedDict[StepId, LetGoReason] = OrderedDict()
        self._since_s: float | None = None  # nothing of the engine was missed or forgotten from here on

    def attached(self, now_s: float) -> None:
        """An engine is there, and holds nothing yet."""
        self._since_s = now_s

    def engine_died(self, sessions: Iterable[SessionId], now_s: float) -> None:
        """And with it the KV of these sessions, whose tags were open."""
        for session in sessions:
            self.let_go(session, "engine_died", now_s)
        self._since_s = None

    def let_go(self, session: SessionId, reason: LetGoReason, now_s: float) -> None:
        """The session has no open tag here any more."""
        if session in self._last:
            return  # of what was let go then, nothing was left to be let go now
        self._last[session] = (reason, now_s)
        if len(self._last) > MAX_REMEMBERED:
            _, (_, forgotten_s) = self._last.popitem(last=False)
            if self._since_s is not None:
                self._since_s = max(self._since_s, forgotten_s)

    def took(self, session: SessionId, step_id: StepId, *, kept: bool) -> None:
        """A step of the session runs here: what was let go before it explains its misses, and no later one's. `kept`: a
        tag was still open, so that nothing was let go after all."""
        reason, _ = self._last.pop(session, ("", 0.0))
        if reason and not kept:
            self._before[step_id] = reason
            if len(self._before) > MAX_REMEMBERED:
                self._before.popitem(last=False)

    def told(self, ask: KvAsk, worker_id: WorkerId, now_s: float) -> KvTold:
        """What is known. A session that has moved away has not come back: then its last ending counts."""
        reason = self._before.get(ask.step_id) or self._last.get(ask.session, ("", 0.0))[0]
        known_s = -1.0 if self._since_s is None else now_s - self._since_s
        return KvTold(worker_id=worker_id, let_go=reason, known_s=known_s)
