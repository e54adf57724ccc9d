"""What a session will do next, from what is learnt: the choice behind a Protocol, by name.

`saga`, the default, reads every level that knows something, the class, the tenant and all, each shrunk towards the
wider ones by how much it has seen: gaps in `blending`, returns and what is left in `hazards`. Forecasts are honest
about ignorance: `samples` 0 says that they are defaults. `defaults` never learns: for comparison.
"""

from typing import Final, Protocol

import msgspec

from saga.contract.errors import StartError
from saga.contract.messages import UNKNOWN_GAPS_S, UNKNOWN_RETURNS
from saga.graph.blending import PRIOR, Blending
from saga.graph.hazards import STALE_SHARE, Hazards, returns
from saga.graph.models import OTHER, Mean, Model
from saga.graph.situation import Situation

__all__ = [
    "STALE_SHARE",
    "Defaults",
    "Estimate",
    "ForecastPolicy",
    "Saga",
    "Situation",
    "next_tools",
    "policy_named",
]

MAX_TABLES: Final = 1_000  # of hazards
DEFAULT_GROWTH_TOKENS: Final = 500.0
END: Final = "~end"  # as a next tool


class Estimate(msgspec.Struct, frozen=True, gc=False):
    """What will follow; fields as in Forecast."""

    returns: float
    gap_s: tuple[float, ...]  # at GAP_SHARES
    new_tokens: float
    remaining_steps: float
    remaining_engine_s: float  # modelled
    samples: int


class ForecastPolicy(Protocol):
    """Chooses an estimate."""

    def estimate(self, situation: Situation, models: tuple[Model, ...]) -> Estimate:
        """`models`: from the narrowest to the widest; any may be empty."""
        ...


class Saga:
    """Shrinkage from wide to narrow, quantiles straight from the samples."""

    def __init__(self) -> None:
        self._hazards: dict[str, Hazards] = {}  # by the narrowest model
        self._blending = Blending(UNKNOWN_GAPS_S)

    def estimate(self, situation: Situation, models: tuple[Model, ...]) -> Estimate:
        """As ForecastPolicy."""
        hazards = self._hazards_of(models)
        goes_on = returns(situation, models, hazards.flat)
        remaining = goes_on * (1.0 + hazards.remaining_steps(situation.steps + 1))
        samples, any_samples, step_s, any_tokens, new_tokens = 0, 0, 0.0, 0.0, -1.0
        for model in reversed(models):
            step_s = _shrunk(model.modelled_s, step_s)
            any_tokens = _shrunk(model.growth_tokens, any_tokens)
            any_samples = max(any_samples, model.gaps.samples)
            follows = model.tools.get(situation.tool)
            if follows is not None:
                samples = max(samples, follows.gaps.samples)
                new_tokens = _shrunk(follows.growth_tokens, new_tokens)
        return Estimate(
            returns=goes_on,
            gap_s=self._blending.gap_s(situation, models),
            new_tokens=new_tokens if new_tokens >= 0 else any_tokens or DEFAULT_GROWTH_TOKENS,
            remaining_steps=remaining,
            remaining_engine_s=remaining * step_s,
            samples=samples or any_samples,
        )

    def _hazards_of(self, models: tuple[Model, ...]) -> Hazards:
        known = self._hazards.get(models[0].name)
        if known is None or known.stale(models):
            if len(self._hazards) >= MAX_TABLES:
                self._hazards.clear()
            known = self._hazards[models[0].name] = Hazards(models)
        return known


class Defaults:
    """Learns nothing: what everybody does without a graph service, said by one."""

    def estimate(self, situation: Situation, models: tuple[Model, ...]) -> Estimate:
        """As ForecastPolicy."""
        del situation, models
        return Estimate(
            returns=UNKNOWN_RETURNS,
            gap_s=UNKNOWN_GAPS_S,
            new_tokens=DEFAULT_GROWTH_TOKENS,
            remaining_steps=UNKNOWN_RETURNS / (1.0 - UNKNOWN_RETURNS),
            remaining_engine_s=0.0,
            samples=0,
        )


def next_tools(tool: str, models: tuple[Model, ...]) -> dict[str, float]:
    """Probabilities of what the step after one that called `tool` calls; END: there is none. Most likely first.

    Each level is shrunk towards the wider one by PRIOR transitions.
    """
    found: dict[str, float] = {}
    for model in reversed(models):
        follows = model.tools.get(tool)
        if follows is None:
            continue
        names = {known.number: name for name, known in model.tools.items()}
        counts: dict[str, float] = {END: float(follows.ended)}
        for number, edge in follows.next.items():
            name = names.get(number, OTHER)
            counts[name] = counts.get(name, 0.0) + edge.count
        seen = sum(counts.values())
        prior = PRIOR if found else 0.0
        if seen:
            found = {name: p * prior / (seen + prior) for name, p in found.items()}
            for name, n in counts.items():
                found[name] = found.get(name, 0.0) + n / (seen + prior)
    return dict(sorted(found.items(), key=lambda item: (-item[1], item[0])))


def _shrunk(mean: Mean, wider: float) -> float:
    """A mean, shrunk to that of the wider level by PRIOR samples; all of it where nothing was known."""
    if not mean.weight:
        return wider
    return mean.value + (wider - mean.value) * PRIOR / (mean.weight + PRIOR) if wider > 0 else mean.value


POLICIES: Final[dict[str, type[Saga | Defaults]]] = {"saga": Saga, "defaults": Defaults}


def policy_named(name: str) -> ForecastPolicy:
    """The policy of that name. Raises StartError that lists the known ones."""
    policy = POLICIES.get(name)
    if policy is None:
        raise StartError(f"SAGA_GRAPH_FORECAST={name!r}: no such policy; known are {', '.join(sorted(POLICIES))}")
    return policy()
