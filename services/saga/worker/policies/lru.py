"""No tags: the engine's own order, the published baseline."""

from saga.contract.messages import Forecast
from saga.kernel.effects import Decision
from saga.worker.idle import Idle, RetentionPolicy


class Lru(RetentionPolicy):
    """Nothing is asked of the engine."""

    tags = False

    def __init__(self, default_s: float, cap_s: float) -> None:
        """Times mean nothing here."""

    def keep_s(self, forecast: Forecast | None, idle: Idle) -> Decision[float]:  # noqa: ARG002 - never kept
        """As RetentionPolicy."""
        return Decision(0.0, "lru")
