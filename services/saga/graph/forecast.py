"""What a session will do next, from what is learnt: the choice behind a Protocol, by name.

`saga`, the default, reads the narrowest model that knows enough and fills up from wider ones: class, tenant, all.
Forecasts are honest about ignorance: `samples` 0 says that they are defaults. How many steps are left is read from a
table that may lag behind the models by `STALE_SHARE` of what they have seen.
"""

from itertools import zip_longest
from typing import Final, Protocol

import msgspec

from saga.contract.errors import StartError
from saga.contract.messages import GAP_SHARES
from saga.graph.models import Model
from saga.graph.sketch import Sketch, mixed, quantiles

ENOUGH_GAPS: Final = 50.0  # samples after which a narrow model speaks alone; its P99 is then its second largest
PRIOR_STEPS: Final = 8.0  # weight of the wider model in a probability
MAX_REMAINING_STEPS: Final = 256
STALE_SHARE: Final = 1 / 64
MAX_TABLES: Final = 1_000  # of hazards; as many as models are kept
# Before anything is learnt: agent tools mostly take a second, people minutes.
DEFAULT_GAPS_S: Final = (0.1, 0.2, 0.5, 1.0, 3.0, 10.0, 30.0, 300.0)  # at GAP_SHARES
DEFAULT_RETURNS: Final = 0.9
DEFAULT_GROWTH_TOKENS: Final = 500.0


class Situation(msgspec.Struct, frozen=True, gc=False):
    """A session whose step just ended."""

    tool: str  # that it called
    steps: int  # of the session so far


class Estimate(msgspec.Struct, frozen=True, gc=False):
    """What will follow; fields as in Forecast."""

    returns: float
    gap_s: tuple[float, ...]  # at GAP_SHARES
    new_tokens: float
    remaining_steps: float
    remaining_engine_s: float
    samples: int


class ForecastPolicy(Protocol):
    """Chooses an estimate."""

    def estimate(self, situation: Situation, models: tuple[Model, ...]) -> Estimate:
        """`models`: from the narrowest to the widest; any may be empty."""
        ...


class Saga:
    """Shrinkage from wide to narrow, quantiles straight from the samples."""

    def __init__(self) -> None:
        self._hazards: dict[str, _Hazards] = {}  # by the narrowest model

    def estimate(self, situation: Situation, models: tuple[Model, ...]) -> Estimate:
        """As ForecastPolicy."""
        gaps = mixed(_gaps(situation.tool, models), ENOUGH_GAPS)
        hazards = self._hazards_of(models)
        remaining = hazards.remaining_steps(situation.steps)
        engine_s = next((m.engine_s.value for m in models if m.engine_s.weight), 0.0)
        growth = next((m.growth_tokens.value for m in models if m.growth_tokens.weight), DEFAULT_GROWTH_TOKENS)
        return Estimate(
            returns=_returns(situation, models, hazards),
            gap_s=tuple(quantiles(gaps, GAP_SHARES)) if gaps.weights else DEFAULT_GAPS_S,
            new_tokens=growth,
            remaining_steps=remaining,
            remaining_engine_s=remaining * engine_s,
            samples=gaps.samples,
        )

    def _hazards_of(self, models: tuple[Model, ...]) -> "_Hazards":
        known = self._hazards.get(models[0].name)
        if known is None or known.stale(models):
            if len(self._hazards) >= MAX_TABLES:
                self._hazards.clear()
            known = self._hazards[models[0].name] = _Hazards(models)
        return known


def _gaps(tool: str, models: tuple[Model, ...]) -> list[Sketch]:
    """Sketches to read, most telling first: the tool anywhere says more than other tools of the same class."""
    same_tool = [m.tools[tool].gaps for m in models if tool in m.tools]
    return same_tool + [m.gaps for m in models]


def _returns(situation: Situation, models: tuple[Model, ...], hazards: "_Hazards") -> float:
    """Probability of another step: by the tool called, shrunk towards the narrowness above it and the step count."""
    returns = 1.0 - hazards.at(situation.steps)
    for model in reversed(models):
        follows = model.tools.get(situation.tool)
        if follows is not None:
            seen = follows.returned + follows.ended
            returns = (follows.returned + PRIOR_STEPS * returns) / (seen + PRIOR_STEPS)
    return returns


class _Hazards:
    """Probability that a session ends with its n-th step, each level shrunk towards the wider one."""

    def __init__(self, models: tuple[Model, ...]) -> None:
        self._models = models
        self._good_until = [model.outcomes * (1.0 + STALE_SHARE) for model in models]
        self._flat = 1.0 - DEFAULT_RETURNS
        known = max((max(len(m.ended), len(m.continued)) for m in models), default=0)
        for model in reversed(models):
            ended = sum(model.ended)
            self._flat = (ended + PRIOR_STEPS * self._flat) / (ended + sum(model.continued) + PRIOR_STEPS)
        self._at = [self._flat] * known
        for model in reversed(models):
            for steps, (ended, continued) in enumerate(zip_longest(model.ended, model.continued, fillvalue=0)):
                self._at[steps] = (ended + PRIOR_STEPS * self._at[steps]) / (ended + continued + PRIOR_STEPS)
        # Nothing is known beyond but the mean hazard.
        self._beyond_steps = (1.0 - self._flat) / max(self._flat, 1.0 / MAX_REMAINING_STEPS)
        self._remaining_steps = [0.0] * known
        after = self._beyond_steps
        for steps in range(known - 1, -1, -1):
            after = self._remaining_steps[steps] = (1.0 - self._at[steps]) * (1.0 + after)

    def stale(self, models: tuple[Model, ...]) -> bool:
        """Whether the models are others, or have learnt too much since."""
        pairs = zip(models, self._models, self._good_until, strict=False)
        return len(models) != len(self._models) or any(m is not o or m.outcomes > u for m, o, u in pairs)

    def at(self, steps: int) -> float:
        """Of ending with this step."""
        return self._at[steps] if steps < len(self._at) else self._flat

    def remaining_steps(self, steps: int) -> float:
        """Mean number of steps after this one."""
        return self._remaining_steps[steps] if steps < len(self._at) else self._beyond_steps


POLICIES: Final[dict[str, type[Saga]]] = {"saga": Saga}


def policy_named(name: str) -> ForecastPolicy:
    """The policy of that name. Raises StartError that lists the known ones."""
    policy = POLICIES.get(name)
    if policy is None:
        raise StartError(f"SAGA_GRAPH_FORECAST={name!r}: no such policy; known are {', '.join(sorted(POLICIES))}")
    return policy()
