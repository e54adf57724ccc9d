"""Which of an engine's numbered event batches is next, known already, missing, or of another engine process. Pure.

Batches come twice: as they happen, and replayed on request. Numbers start at 0 with each engine process, so a number
alone does not say whose it is: each batch taken leaves a mark (any fingerprint of its bytes), and what comes under a
number that was taken must bear the same.
"""

from enum import Enum
from typing import Final

REMEMBERED: Final = 4_096  # more than can be on their way while a replay lasts


class Verdict(Enum):
    """What to do with a batch."""

    NEXT = "next"  # use it
    KNOWN = "known"  # used already
    GAP = "gap"  # some before it are missing: ask for a replay
    LOST = "lost"  # those before it are gone for good; use it all the same
    STRANGE = "strange"  # not what was taken under this number: of another process, or nonsense


class EventSequence:
    """Position in the events of one engine process."""

    __slots__ = ("_marks", "expected")

    def __init__(self) -> None:
        self.expected = 0
        self._marks: dict[int, int] = {}  # of the last batches taken, in their order

    @property
    def replay_from(self) -> int:
        """Where a replay should begin: at the last batch taken, which shows whether the same process answers."""
        return self.expected - 1 if self.expected - 1 in self._marks else self.expected

    def is_ours(self, seq: int, mark: int) -> bool:
        """Whether this very batch was taken."""
        return self._marks.get(seq) == mark

    def live(self, seq: int, mark: int) -> Verdict:
        """A batch came as it happened."""
        if seq < self.expected:
            return Verdict.KNOWN if self.is_ours(seq, mark) else Verdict.STRANGE
        if seq > self.expected:
            return Verdict.GAP
        self._take(seq, mark)
        return Verdict.NEXT

    def replayed(self, seq: int, mark: int, *, first: bool) -> Verdict:
        """A batch came in answer to a request that began at `replay_from`.

        `first`: nothing before it can be had (it begins the answer, or asking again brought no more).
        """
        if seq < self.expected:
            known = self._marks.get(seq)
            return Verdict.STRANGE if known is not None and known != mark else Verdict.KNOWN
        if seq > self.expected and not first:
            return Verdict.GAP  # dropped on the way; the engine still has it
        lost = seq > self.expected
        self._take(seq, mark)
        return Verdict.LOST if lost else Verdict.NEXT

    def skip_to(self, seq: int, mark: int) -> None:
        """No replay can be had: go on after this batch."""
        if seq >= self.expected:
            self._take(seq, mark)

    def _take(self, seq: int, mark: int) -> None:
        self.expected = seq + 1
        marks = self._marks
        marks[seq] = mark
        if len(marks) > REMEMBERED:
            del marks[next(iter(marks))]
