"""Whether something runs: it lives, is stopped for a while, or is dead. And the two clocks that it has.

What happens to it while it is stopped piles up and happens at once when it goes on. Of processes and engines alike.
"""

from collections.abc import Callable

import msgspec

Act = Callable[[], None]


class Life:
    """Of one incarnation; what starts again gets a new one."""

    __slots__ = ("_piled", "alive", "stopped")

    def __init__(self) -> None:
        self.alive = True
        self.stopped = False
        self._piled: list[Act] = []

    def do(self, act: Act) -> None:
        """Act now, or when it goes on, or never."""
        if not self.alive:
            return
        if self.stopped:
            self._piled.append(act)
        else:
            act()

    def stop(self) -> None:
        """SIGSTOP."""
        self.stopped = True

    def go_on(self) -> None:
        """SIGCONT: all that has piled up, in its order."""
        self.stopped = False
        piled, self._piled = self._piled, []
        for act in piled:
            self.do(act)

    def end(self) -> None:
        """SIGKILL."""
        self.alive = False
        self._piled = []


class Clocks(msgspec.Struct):
    """One machine's: its monotonic clock starts anywhere and drifts, its wall clock may be put wrong."""

    offset_s: float = 0.0
    rate: float = 1.0
    wall_offset_s: float = 1_700_000_000.0

    def monotonic_s(self, world_s: float) -> float:
        """What it reads then."""
        return self.offset_s + world_s * self.rate

    def world_s(self, monotonic_s: float) -> float:
        """When it reads that."""
        return (monotonic_s - self.offset_s) / self.rate

    def wall_s(self, world_s: float) -> float:
        """The time of day, as it believes."""
        return self.wall_offset_s + world_s
