"""How long a session's tag stays open in the gap after a step: the choice behind a Protocol, by name.

`tags` is the default: as long as the session is likely to come back; `values` is the same and also says which tag is
worth more, for an engine with our eviction plugin. `lru` is the baseline that leaves the engine's own eviction order
alone: no session is tagged at all. A policy may say which of the open tags is worth more (`value`):
the engine then evicts by value among sessions that are as much referenced as each other, before it looks at their age.
Not the books of tags: `tags.py`.
"""

from typing import Final, Protocol

import msgspec

from saga.contract.errors import StartError
from saga.contract.messages import Forecast
from saga.kernel.effects import Decision

UNLIKELY_RETURN: Final = 0.02  # below this a session that may come back is not worth keeping


class Idle(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """A session whose step has ended, as its worker sees it."""

    final: bool = False  # the step was the workflow's last
    ended_s: float = 0.0  # on the worker's clock
    context_tokens: int = 0  # prompt and answer of the step; 0: its end was not heard
    speed: float = 1.0  # of the engine's time, by which what is set in engine-seconds is divided
    used_share: float = 0.0  # of the engine's KV, idle sessions included


class RetentionPolicy(Protocol):
    """Chooses the seconds for which an idle session keeps its tag, and what it is worth meanwhile."""

    @property
    def tags(self) -> bool:
        """Whether sessions are tagged at all."""
        ...

    def keep_s(self, forecast: Forecast | None, idle: Idle) -> Decision[float]:
        """Real seconds from the step's end. `forecast`: of this gap; None until one comes."""
        ...

    def value(self, forecast: Forecast | None, idle: Idle) -> float | None:
        """What keeping it is worth: higher is kept longer. None: nothing to say, the engine goes by age alone."""
        ...


class Tags:
    """Keep for the gap's forecast P95, at most a cap; a default while nothing is known."""

    tags = True

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

    def value(self, forecast: Forecast | None, idle: Idle) -> float | None:  # noqa: ARG002 - by age
        """As RetentionPolicy."""
        return None


class Values:
    """As Tags; and worth the more, the likelier and the sooner the session comes back.

    That is P(return) x cost to recompute, per token and second held. Cost and space both grow with the tokens: what is
    left is the chance over the gap. A class that nobody knows yet counts as one that returns after the default time.
    """

    tags = True
    SHORTEST_GAP_S: Final = 0.1  # below it another gap does not matter

    def __init__(self, default_s: float, cap_s: float) -> None:
        """Both in engine-seconds."""
        self._default_s = default_s
        self._as_tags = Tags(default_s, cap_s)

    def keep_s(self, forecast: Forecast | None, idle: Idle) -> Decision[float]:
        """As RetentionPolicy."""
        return self._as_tags.keep_s(forecast, idle)

    def value(self, forecast: Forecast | None, idle: Idle) -> float | None:
        """As RetentionPolicy, per engine-second. Until the forecast of this gap comes, that of the last one holds."""
        if forecast is None:
            return None
        if forecast.samples == 0:
            return 1.0 / self._default_s
        return forecast.returns / max(self.SHORTEST_GAP_S, forecast.gap_p50_s * idle.speed)


class Lru:
    """No tags: the engine's own order, the published baseline."""

    tags = False

    def __init__(self, default_s: float, cap_s: float) -> None:
        """Times mean nothing here."""

    def keep_s(self, forecast: Forecast | None, idle: Idle) -> Decision[float]:  # noqa: ARG002 - never kept
        """As RetentionPolicy."""
        return Decision(0.0, "lru")

    def value(self, forecast: Forecast | None, idle: Idle) -> float | None:  # noqa: ARG002 - by age
        """As RetentionPolicy."""
        return None


POLICIES: Final[dict[str, type[Tags | Values | Lru]]] = {"tags": Tags, "values": Values, "lru": Lru}


def policy_named(name: str, default_s: float, cap_s: float) -> RetentionPolicy:
    """The policy of that name. Raises StartError that lists the known ones."""
    policy = POLICIES.get(name)
    if policy is None:
        raise StartError(f"SAGA_WORKER_RETENTION={name!r}: no such policy; known are {', '.join(sorted(POLICIES))}")
    return policy(default_s, cap_s)
