"""Which of an engine's numbered event batches is next, known already, missing, or of another engine process. Pure.

Batches come twice: as they happen, and replayed on request. Numbers start at 0 with each engine process.
"""

from enum import Enum


class Verdict(Enum):
    """What to do with a batch."""

    NEXT = "next"  # use it
    KNOWN = "known"  # used already
    GAP = "gap"  # some before it are missing: ask for a replay
    LOST = "lost"  # those before it are gone for good; use it all the same
    RESTARTED = "restarted"  # another process counts anew


class EventSequence:
    """Position in the events of one engine process."""

    __slots__ = ("_last_live", "expected")

    def __init__(self) -> None:
        self.expected = 0
        self._last_live = -1  # of one process these only grow

    def live(self, seq: int) -> Verdict:
        """A batch came as it happened."""
        if seq <= self._last_live:
            return Verdict.RESTARTED
        self._last_live = seq
        if seq < self.expected:
            return Verdict.KNOWN
        if seq > self.expected:
            return Verdict.GAP
        self.expected += 1
        return Verdict.NEXT

    def replayed(self, seq: int, *, first: bool) -> Verdict:
        """A batch came in answer to a request that began with `expected`; `first` of that answer or not."""
        if seq < self.expected:
            return Verdict.KNOWN
        if seq > self.expected:
            if not first:
                return Verdict.GAP  # dropped on the way; the engine still has it
            self.expected = seq + 1
            return Verdict.LOST
        self.expected += 1
        return Verdict.NEXT

    def skip_to(self, seq: int) -> None:
        """No replay can be had: go on after this batch."""
        self.expected = max(self.expected, seq + 1)

    def settle(self) -> None:
        """Nothing is on its way: from here on any number below `expected` is of another process."""
        self._last_live = self.expected - 1
