"""The published tool-aware TTL (Algorithm 1 of arXiv 2605.00528), on session tags.

TTL = min(P95 of the gap x (1 - m / 2), 300 s), m = how far KV use lies between 70 % and 90 %. The published text has no
smoothing weight and fits a log-normal to each tool; here the P95 is the forecast's, of what was seen. A tag is closed
when its time is over, whatever room there is: the published code sweeps only above 70 %, which on an engine that evicts
on demand comes to the same, since what is untagged is not evicted before room is short. When all of an engine's KV is
tagged it evicts by age.
"""

from saga.contract.messages import Forecast
from saga.kernel.effects import Decision
from saga.worker.idle import Idle, RetentionPolicy

SOFT, HARD = 0.7, 0.9
CAP_S = 300.0


def tool_ttl_s(forecast: Forecast | None, idle: Idle) -> Decision[float]:
    """Of an idle session. Without a forecast, as for an unknown tool: the cap."""
    if idle.final:
        return Decision(0.0, "final")
    cap_s = CAP_S / idle.speed
    if forecast is None:
        return Decision(cap_s, "cap")
    pressure = min(1.0, max(0.0, (idle.used_share - SOFT) / (HARD - SOFT)))
    return Decision(min(forecast.gap_p95_s * (1.0 - 0.5 * pressure), cap_s), "tool_ttl")


class Ttl(RetentionPolicy):
    """Tags for that time; the engine's own order otherwise."""

    def __init__(self, default_s: float, cap_s: float) -> None:
        """Times are the published ones."""

    def keep_s(self, forecast: Forecast | None, idle: Idle) -> Decision[float]:
        """As RetentionPolicy."""
        return tool_ttl_s(forecast, idle)
