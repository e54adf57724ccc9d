"""Requests without output that this gateway has at engines, one a session at most: asked for, over, or overtaken. Pure.

A worker agent asks (`saga.worker.ahead`), since it knows what was let go; the gateway sends, since it has the prompt.
Nothing waits for one, and nothing is done again: it is a guess.
"""

from typing import Final

from saga.contract.ids import SessionId
from saga.contract.messages import PrefetchAsked
from saga.gateway.events import EndPrefetch, Prefetch

MOST: Final = 256  # at engines at a time; what is asked for beyond is left


class Prefetches:
    """Those under way."""

    __slots__ = ("_sent",)

    def __init__(self) -> None:
        self._sent: dict[SessionId, Prefetch] = {}

    def asked(self, ask: PrefetchAsked, *, back: bool) -> list[Prefetch]:
        """A worker agent expects the session. `back`: a step of it is here already."""
        if back or ask.session in self._sent or len(self._sent) >= MOST:
            return []
        # As long as any other request id, and like none: engines abort by prefix.
        prefetch = self._sent[ask.session] = Prefetch(ask, f"{ask.step_id}-pf")
        return [prefetch]

    def back(self, session: SessionId) -> list[EndPrefetch]:
        """Its step is here: it has nothing to gain from a request that waits beside it."""
        sent = self._sent.pop(session, None)
        return [] if sent is None else [EndPrefetch(sent.ask.engine_url, sent.rid)]

    def over(self, session: SessionId, rid: str) -> None:
        """The engine is done with it."""
        sent = self._sent.get(session)
        if sent is not None and sent.rid == rid:
            del self._sent[session]

    def __len__(self) -> int:
        return len(self._sent)
