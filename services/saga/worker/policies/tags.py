"""Tags by time alone: open while the session is likely to come back. Simple, and blind to how much room there is."""

from saga.contract.messages import Forecast
from saga.kernel.effects import Decision
from saga.worker.idle import UNLIKELY_RETURN, Idle, RetentionPolicy


class Tags(RetentionPolicy):
    """Keep for the gap's forecast P95, at most a cap; a default while nothing is known."""

    def __init__(self, default_s: float, cap_s: float) -> None:
        """Both in engine-seconds."""
        self._default_s = default_s
        self._cap_s = cap_s

    def keep_s(self, forecast: Forecast | None, idle: Idle) -> Decision[float]:
        """As RetentionPolicy."""
        if idle.final:
            return Decision(0.0, "final")
        cap_s = self._cap_s / idle.speed
        if forecast is None or forecast.samples == 0:
            return Decision(min(self._default_s / idle.speed, cap_s), "default")
        if forecast.returns < UNLIKELY_RETURN:
            return Decision(0.0, "unlikely")
        if forecast.gap_p95_s > cap_s:
            return Decision(cap_s, "cap")
        return Decision(forecast.gap_p95_s, "gap_p95")
