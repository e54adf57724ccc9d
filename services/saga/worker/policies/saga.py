"""SAGA's own: what is kept is what returns soonest and likeliest for the room that it takes (`saga.worker.gap`).

`saga` needs nothing but session tags. Open tags may fill the engine's KV, running steps included; when another session
wants room, the tag that is worth least at that moment is closed, and the engine evicts what is untagged first. So the
engine's own order, which among tagged sessions is age alone, hardly ever decides. The KV of a workflow that admission
has paused is not given away at once either: it goes when its turn comes. `values` also tells an engine with our plugin
what each session is worth, for what the books of tags cannot know: prefixes shared, answers that grow.
"""

from math import exp, log

from saga.contract.messages import Forecast, ReleaseReason
from saga.kernel.effects import Decision
from saga.worker.gap import curve, index
from saga.worker.idle import UNLIKELY_RETURN, Idle, RetentionPolicy

LONGEST_S = 86_400.0  # engine-seconds: who is away longer holds no tag, however empty the engine
LOOK_AGAIN_S = 1.0  # engine-seconds, at first; later
LOOK_AGAIN_SHARE = 0.3  # of the time away
STEP = 0.05  # of a value's logarithm: smaller changes are not told


class Saga(RetentionPolicy):
    """Tags alone."""

    room_share = 1.0
    outlives = frozenset[ReleaseReason](("paused", "unbound", "dormant"))

    def __init__(self, default_s: float, cap_s: float) -> None:
        """Times mean nothing here: the forecast and the room say it all."""

    def keep_s(self, forecast: Forecast | None, idle: Idle) -> Decision[float]:
        """As RetentionPolicy."""
        if idle.final:
            return Decision(0.0, "final")
        if forecast is not None and forecast.samples and forecast.returns < UNLIKELY_RETURN:
            return Decision(0.0, "unlikely")
        return Decision(LONGEST_S / idle.speed, "while_there_is_room")

    def value(self, forecast: Forecast | None, idle: Idle) -> float | None:
        """As RetentionPolicy: returns per second, in steps of STEP."""
        worth = index(curve(forecast), max(0.0, idle.now_s - idle.ended_s))
        return exp(round(log(worth) / STEP) * STEP) if worth > 0.0 else 0.0

    def good_s(self, forecast: Forecast | None, idle: Idle) -> float:
        """As RetentionPolicy."""
        del forecast
        return max(LOOK_AGAIN_S / idle.speed, LOOK_AGAIN_SHARE * (idle.now_s - idle.ended_s))


class Values(Saga):
    """Tags and values."""

    tells = True
    room_share = 1.2
