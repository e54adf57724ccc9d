"""Which step an idle worker takes from another's queue: the choice behind a Protocol. Asked at each tick.

A generating step never moves. What is stolen starts without its cache; its old home lets the session's tag go.
"""

from collections.abc import Sequence
from random import Random
from typing import Protocol

import msgspec

from saga.contract.ids import WorkerId


class Load(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """A worker, as a stealing policy sees it."""

    worker_id: WorkerId
    running: int  # leases out
    queued: int  # steps that wait there for a slot
    idle_s: float  # since when nobody has waited there; 0 while somebody does


class StealPolicy(Protocol):
    """Chooses victims."""

    @property
    def every_s(self) -> float:
        """How often to ask."""
        ...

    def victim(self, thief: Load, others: Sequence[Load]) -> WorkerId | None:
        """Whose oldest waiting step the thief takes; None: nobody's."""
        ...


class IdleAndUneven:
    """The published rule in its strict reading: the thief's queue has been empty for 100 ms, and the victim, any of
    those so loaded, has steps waiting and more than twice the thief's load. Load: requests running or waiting."""

    every_s = 0.1

    def __init__(self, random: Random, idle_s: float = 0.1, ratio: float = 2.0) -> None:
        """`random`: chooses among victims."""
        self._random = random
        self._idle_s = idle_s
        self._ratio = ratio

    def victim(self, thief: Load, others: Sequence[Load]) -> WorkerId | None:
        """As StealPolicy."""
        if thief.queued or thief.idle_s < self._idle_s:
            return None
        bar = self._ratio * thief.running
        loaded = [o.worker_id for o in others if o.queued and o.running + o.queued > bar]
        return self._random.choice(loaded) if loaded else None
