"""How long, and in what order, idle sessions are kept, other than saga's own rule."""

from saga.contract.messages import Forecast
from saga.kernel.effects import Decision
from saga.worker.retention import UNLIKELY_RETURN, Idle, RetentionPolicy

FOREVER_S = 3_600.0  # longer than any session is kept in practice


class FixedTtl(RetentionPolicy):
    """Every session is kept for a fixed time after each step."""

    def __init__(self, ttl_s: float) -> None:
        self._ttl_s = ttl_s

    def keep_s(self, forecast: Forecast | None, idle: Idle) -> Decision[float]:  # noqa: ARG002 - a fixed time
        """As RetentionPolicy."""
        return Decision(0.0 if idle.final else self._ttl_s / idle.speed, "ttl")


class StepsToRun(RetentionPolicy):
    """As KVFlow evicts: the session whose next step is farthest off goes first, one that has none before all others.

    KVFlow counts steps of a declared graph. Here one step of a session is all that lies between it and its next use,
    so what differs is how far off that is: the forecast's gap. Nothing is loaded ahead of its use.
    """

    tells = True

    def __init__(self, *, overdue_s: float = FOREVER_S) -> None:
        """`overdue_s`: a session that stays away so much longer than forecast is given up."""
        self._overdue_s = overdue_s

    def keep_s(self, forecast: Forecast | None, idle: Idle) -> Decision[float]:
        """As RetentionPolicy."""
        if idle.final or (forecast is not None and forecast.samples and forecast.returns < UNLIKELY_RETURN):
            return Decision(0.0, "no_next_step")
        gap_s = forecast.gap_p50_s if forecast is not None else 0.0
        return Decision(gap_s + self._overdue_s / idle.speed, "until_its_step")

    def value(self, forecast: Forecast | None, idle: Idle) -> float | None:
        """As RetentionPolicy: the sooner its next step is due, the more it is worth."""
        gap_s = forecast.gap_p50_s if forecast is not None else 0.0
        return -(idle.ended_s + gap_s)
