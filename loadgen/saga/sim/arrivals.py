"""Who starts which conversation when: closed loop (users under a pressure) and open loop (Poisson).

Conversations are drawn in the order of their numbers, so that each system works on the same ones. Called by `runner`.
"""

from collections.abc import Callable, Sequence
from itertools import accumulate
from random import Random

from saga.sim.agenda import Agenda


class ClosedLoop:
    """Users that each start the next conversation when their last one ends, until `total` have been started.

    Their first ones are spread evenly over `spread_s`, so that not all are at the same step.
    """

    def __init__(
        self, agenda: Agenda, begin: Callable[[int], None], *, users: int, total: int, spread_s: float
    ) -> None:
        self._agenda = agenda
        self._begin = begin
        self._total = total
        self._over = 0
        self.started_s: list[float] = []
        for user in range(min(users, total)):
            agenda.at(spread_s * user / users, self._next, None)

    def ended(self, number: int) -> None:
        """A conversation is over."""
        del number
        self._over += 1
        if self._over == self._total:
            self._agenda.stop()
        else:
            self._next(None)

    def _next(self, _: None) -> None:
        if len(self.started_s) < self._total:
            self.started_s.append(self._agenda.now_s)
            self._begin(len(self.started_s) - 1)


def poisson(random: Random, per_s: float, total: int) -> list[float]:
    """Moments of a Poisson process."""
    return list(accumulate(random.expovariate(per_s) for _ in range(total)))


class OpenLoop:
    """Conversations that start at given moments, whatever became of the others."""

    def __init__(
        self,
        agenda: Agenda,
        begin: Callable[[int], None],
        starts: Sequence[float],
        awaited: frozenset[int] | None = None,
    ) -> None:
        """`starts`: in the order of the conversations' numbers. `awaited`: the run ends with these; None: with all."""
        self._agenda = agenda
        self._begin = begin
        self._awaited = awaited
        self._left = len(starts) if awaited is None else len(awaited)
        self._over = 0
        self.started_s: list[float] = []
        self.in_system: list[int] = []  # at each start
        for at_s in starts:
            agenda.at(at_s, self._next, None)

    def ended(self, number: int) -> None:
        """A conversation is over."""
        self._over += 1
        self._left -= self._awaited is None or number in self._awaited
        if self._left == 0:
            self._agenda.stop()

    def _next(self, _: None) -> None:
        self.started_s.append(self._agenda.now_s)
        self.in_system.append(len(self.started_s) - self._over)
        self._begin(len(self.started_s) - 1)
