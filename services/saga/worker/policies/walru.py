"""The published WA-LRU (arXiv 2605.00528), on session tags and told values: evict the largest score first,

    0.3 x idle time + 0.5 x (1 - P_reuse) + 0.2 x size

Idle time is over the longest seen so far, size over the largest seen so far, at this worker; P_reuse is the chance of a
next step times the share of its prompt that is cached. What these actuators cannot say: the engine compares how many
sessions share a page before it looks at values (published: a shared page goes by its lowest score); idle times are
not divided by the longest among those still resident, and not capped at it, since no value is told anew as time passes.
"""

from saga.contract.messages import Forecast
from saga.kernel.effects import Decision
from saga.worker.idle import Idle, RetentionPolicy

RECENCY, REUSE, SIZE = 0.3, 0.5, 0.2
LONGEST_S = 3_600.0  # engine-seconds: published entries have no end, a tag must have one


class WaLru(RetentionPolicy):
    """One worker's scores."""

    tells = True

    def __init__(self, default_s: float = 0.0, cap_s: float = 0.0) -> None:
        """Times mean nothing here."""
        del default_s, cap_s
        self._longest_s = 1e-3
        self._largest_tokens = 1
        self._last_s = 0.0
        self._recency = 0.0  # of now: time over the longest idle time, summed as both went on

    def keep_s(self, forecast: Forecast | None, idle: Idle) -> Decision[float]:
        """As RetentionPolicy."""
        del forecast
        return Decision(0.0, "final") if idle.final else Decision(LONGEST_S / idle.speed, "walru")

    def value(self, forecast: Forecast | None, idle: Idle) -> float | None:
        """As RetentionPolicy: the score, negated. What idle sessions lose with time they all lose alike, so that a
        later access is a higher value and nothing must be said again."""
        if forecast is None:
            return None
        self._largest_tokens = max(self._largest_tokens, idle.context_tokens)
        self._longest_s = max(self._longest_s, forecast.gap_p50_s)
        self._recency += max(0.0, idle.ended_s - self._last_s) / self._longest_s
        self._last_s = max(self._last_s, idle.ended_s)
        overlap = idle.context_tokens / (idle.context_tokens + max(1.0, forecast.new_tokens))
        reuse = min(1.0, forecast.returns * overlap)
        size = idle.context_tokens / self._largest_tokens
        return RECENCY * self._recency - REUSE * (1.0 - reuse) - SIZE * size
