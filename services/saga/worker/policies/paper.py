"""Both published rules together: WA-LRU's order within the tool-aware TTL.

A session past its TTL goes before any that is not (the published GPU code; the published Python ignores the TTL when it
chooses). What the actuators cannot say is listed with `walru` and `ttl`.
"""

from saga.contract.messages import Forecast
from saga.kernel.effects import Decision
from saga.worker.idle import Idle
from saga.worker.policies.ttl import tool_ttl_s
from saga.worker.policies.walru import WaLru


class Paper(WaLru):
    """Tags for the TTL, values by the score."""

    def keep_s(self, forecast: Forecast | None, idle: Idle) -> Decision[float]:
        """As RetentionPolicy: P95 of the tool's time, less under pressure, at most the cap."""
        return tool_ttl_s(forecast, idle)
