"""Which waiting step starts elsewhere than where it waits: the choice behind a Protocol. Asked at each tick.

A generating step never moves. What is stolen starts without its cache, or with what a shared tier has of it; its old
home lets the session's tag go.
`IdleAndUneven` is the published rule, `SavedWait` ours.
"""

from collections.abc import Sequence
from random import Random
from typing import Protocol, runtime_checkable

import msgspec

from saga.contract.ids import NO_WORKER, WorkerId
from saga.contract.messages import StepReady
from saga.placement.candidate import Candidate
from saga.placement.pricing import Placed, price


class Load(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """A worker, as a policy of load alone sees it."""

    worker_id: WorkerId
    running: int  # leases out
    queued: int  # steps that wait there for a slot
    idle_s: float  # since when nobody has waited there; 0 while somebody does


@runtime_checkable
class StealPolicy(Protocol):
    """Chooses by the load of workers; the oldest step that waits at the victim moves."""

    @property
    def every_s(self) -> float:
        """How often to ask."""
        ...

    def victim(self, thief: Load, others: Sequence[Load]) -> WorkerId | None:
        """Whose oldest waiting step the thief takes; None: nobody's."""
        ...


class MovePolicy(Protocol):
    """Chooses by the price of each step that waits."""

    @property
    def every_s(self) -> float:
        """How often to ask."""
        ...

    def move(self, step: StepReady, home: Candidate, others: Sequence[Candidate]) -> Placed:
        """Where the step, which waits at home, starts; NO_WORKER: it goes on waiting. `others` have room now."""
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


class SavedWait:
    """A step moves when that saves clearly more waiting than it costs engines to prefill again what it leaves.

    Waiting is saved to the step itself, and to those behind it, who come earlier by what it would have taken. Each
    second of wait that is saved is one; each second of prefill is counted for the step itself and, by as much, for
    the engine that could have done something else: so what is regenerated never exceeds the waiting that was saved.
    What a shared tier has is read while the engine goes on, so that costs the step alone.
    """

    every_s = 0.25

    def __init__(self, clearly: float = 2.0) -> None:
        """`clearly`: waiting saved for each second of what the move costs."""
        self._clearly = clearly

    def move(self, step: StepReady, home: Candidate, others: Sequence[Candidate]) -> Placed:
        """As MovePolicy."""
        stays = price(step, home, returns=0.0)
        prices = sorted((price(step, c, returns=0.0) for c in others), key=lambda p: (p.total_s, p.worker_id))
        if not prices:
            return Placed(NO_WORKER, "nobody_has_room", (stays,))
        best = prices[0]
        saved_s = stays.wait_s + stays.behind_s - best.wait_s
        moving_s = max(0.0, best.prefill_s - stays.prefill_s) + max(0.0, best.load_s - stays.load_s)
        reading_s = max(0.0, best.shared_s - stays.shared_s)
        worth = saved_s > self._clearly * moving_s + reading_s and best.total_s < stays.total_s
        return Placed(best.worker_id if worth else NO_WORKER, "saves_wait" if worth else "dearer", (best, stays))


STEALING = ("off", "paper", "saga")  # by name


def stealing_named(name: str, seed: str) -> StealPolicy | MovePolicy | None:
    """The policy of that name; None: nothing is stolen. `seed`: of the published rule's choice among victims."""
    if name == "paper":
        return IdleAndUneven(Random(seed))
    return SavedWait() if name == "saga" else None
