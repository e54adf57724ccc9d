"""How late the engine's clock is served: the check that a run's timings can be trusted.

All iterations due are done at each wake-up, at their due times, so lateness never adds up; but tokens leave late by it.
A run is sound when the 99th percentile of lateness stays within 5 % of a step (one LLM call), both in real time.
"""

from collections import deque
from typing import Final

_SAMPLES: Final = 4096


class LagMeter:
    """The newest lags and step times, in real seconds."""

    def __init__(self) -> None:
        self._lags_s: deque[float] = deque(maxlen=_SAMPLES)
        self._steps_s: deque[float] = deque(maxlen=_SAMPLES)

    def woke(self, lag_s: float) -> None:
        """An iteration was completed that much later than it was due."""
        self._lags_s.append(lag_s)

    def stepped(self, step_s: float) -> None:
        """A request took that long from arrival to end."""
        self._steps_s.append(step_s)

    @property
    def p99_s(self) -> float:
        """99th percentile of lateness, 0 without samples."""
        if not self._lags_s:
            return 0.0
        ordered = sorted(self._lags_s)
        return ordered[min(len(ordered) - 1, int(len(ordered) * 0.99))]

    @property
    def step_s(self) -> float:
        """Median step time, 0 without samples."""
        return sorted(self._steps_s)[len(self._steps_s) // 2] if self._steps_s else 0.0

    @property
    def p99_fraction(self) -> float:
        """P99 lateness as a fraction of the median step; 0 before the first step has ended."""
        return self.p99_s / self.step_s if self.step_s else 0.0
