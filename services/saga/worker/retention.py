"""How long a session's tag stays open in the gap after a step: the choice behind a Protocol, by name.

`tags` is the default: as long as the session is likely to come back. `lru` is the baseline that leaves the engine's own
eviction order alone: no session is tagged at all. Not the books of tags: `tags.py`.
"""

from typing import Final, Protocol

from saga.contract.errors import StartError
from saga.contract.messages import Forecast
from saga.kernel.effects import Decision

UNLIKELY_RETURN: Final = 0.02  # below this a session that may come back is not worth keeping


class RetentionPolicy(Protocol):
    """Chooses the seconds for which an idle session keeps its tag."""

    @property
    def tags(self) -> bool:
        """Whether sessions are tagged at all."""
        ...

    def keep_s(self, forecast: Forecast | None, *, final: bool, speed: float) -> Decision[float]:
        """Real seconds from the step's end. `forecast`: None until one comes; `final`: the step was the workflow's
        last; `speed`: of the engine's time, by which what is set in engine-seconds is divided."""
        ...


class Tags:
    """Keep for the gap's forecast P95, at most a cap; a default while nothing is known."""

    tags = True

    def __init__(self, default_s: float, cap_s: float) -> None:
        """Both in engine-seconds."""
        self._default_s = default_s
        self._cap_s = cap_s

    def keep_s(self, forecast: Forecast | None, *, final: bool, speed: float) -> Decision[float]:
        """As RetentionPolicy."""
        if final:
            return Decision(0.0, "final")
        cap_s = self._cap_s / speed
        if forecast is None or forecast.samples == 0:
            return Decision(min(self._default_s / speed, cap_s), "default")
        if forecast.returns < UNLIKELY_RETURN:
            return Decision(0.0, "unlikely")
        if forecast.gap_p95_s > cap_s:
            return Decision(cap_s, "cap")
        return Decision(forecast.gap_p95_s, "gap_p95")


class Lru:
    """No tags: the engine's own order, the published baseline."""

    tags = False

    def __init__(self, default_s: float, cap_s: float) -> None:
        """Times mean nothing here."""

    def keep_s(self, forecast: Forecast | None, *, final: bool, speed: float) -> Decision[float]:
        """As RetentionPolicy: never kept."""
        del forecast, final, speed
        return Decision(0.0, "lru")


POLICIES: Final[dict[str, type[Tags] | type[Lru]]] = {"tags": Tags, "lru": Lru}


def policy_named(name: str, default_s: float, cap_s: float) -> RetentionPolicy:
    """The policy of that name. Raises StartError that lists the known ones."""
    policy = POLICIES.get(name)
    if policy is None:
        raise StartError(f"SAGA_WORKER_RETENTION={name!r}: no such policy; known are {', '.join(sorted(POLICIES))}")
    return policy(default_s, cap_s)
