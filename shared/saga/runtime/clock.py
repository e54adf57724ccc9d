"""Two readings of time: monotonic for durations, wall for stamps that people read.

Shells hold a Clock and hand `now_s` to the pure cores; nothing else in the tree reads the time.
"""

import time
from typing import Protocol


class Clock(Protocol):
    """What a shell may ask about time."""

    def monotonic_s(self) -> float:
        """Seconds since an arbitrary moment; never goes back; for durations."""
        ...

    def wall_s(self) -> float:
        """Seconds since 1970, UTC; may jump; for display and traces only."""
        ...


class MonotonicClock:
    """The machine's clocks."""

    __slots__ = ()

    def monotonic_s(self) -> float:
        """As Clock."""
        return time.monotonic()

    def wall_s(self) -> float:
        """As Clock."""
        return time.time()


class VirtualClock:
    """A clock that only moves when told to: simulator and tests."""

    __slots__ = ("_monotonic_s", "_wall_at_zero_s")

    def __init__(self, start_s: float = 0.0, wall_at_zero_s: float = 1_700_000_000.0) -> None:
        self._monotonic_s = start_s
        self._wall_at_zero_s = wall_at_zero_s

    def monotonic_s(self) -> float:
        """As Clock."""
        return self._monotonic_s

    def wall_s(self) -> float:
        """As Clock."""
        return self._wall_at_zero_s + self._monotonic_s

    def advance(self, by_s: float) -> float:
        """Moves on by `by_s` seconds, which may not be negative, and returns the new monotonic reading."""
        return self.advance_to(self._monotonic_s + by_s)

    def advance_to(self, at_s: float) -> float:
        """Moves on to the monotonic reading `at_s`; ValueError if that lies in the past."""
        if at_s < self._monotonic_s:
            raise ValueError(f"a clock cannot go back from {self._monotonic_s} s to {at_s} s")
        self._monotonic_s = at_s
        return at_s
