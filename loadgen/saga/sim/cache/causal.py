"""The best causal order: knows the true distributions of `population` and nothing of the individual future.

A page that is kept costs room for as long as it waits, and saves the same work whenever it is hit: a session's context
counts on both sides and cancels. So pages are ranked by hits per second of room. `FORMULATIONS` are ways to say that;
`gittins` is the one to expect: with a price on room instead of a bound, keeping a page exactly while its index is above
the price is optimal (each page is then a stopping problem of its own). With the bound none is proven best, so all are
run, in `paged`, and the best one counts.
"""

from collections.abc import Callable
from math import log1p

from msgspec import Struct

from saga.sim.cache.fitting import Stream
from saga.sim.cache.population import EDGES_S, Key, Spread, Watch, bin_of

HORIZON_S = 100_000.0  # what never returns counts as returning then, for the mean
SOON_S = 300.0
_LOOK_AGAIN_S = 60.0  # at pages that several sessions may need
_NOTHING = [0.0] * len(EDGES_S)


class Formulation(Struct, frozen=True):
    """A value for each elapsed gap, in the bins of EDGES_S; values of sessions that share a page add up.

    `arrival_s`: what an arrival rate of 1/s adds.
    """

    values: Callable[[Spread], list[float]]
    arrival_s: float


def gittins(spread: Spread) -> list[float]:
    """Returns per second of waiting if one waits for the best time and then gives up, at most."""
    values = []
    for first, elapsed_s in enumerate(EDGES_S):
        alive = sum(spread.by_bin[first:]) + spread.never
        best = returned = waited_s = 0.0
        for at in range(first, len(EDGES_S) - 1):
            mass = spread.by_bin[at]
            returned += mass
            waited_s += mass * ((EDGES_S[at] + EDGES_S[at + 1]) / 2 - elapsed_s)
            if mass > 0:
                best = max(best, returned / (waited_s + (alive - returned) * (EDGES_S[at + 1] - elapsed_s)))
        values.append(best)
    return values


def hazard(spread: Spread) -> list[float]:
    """Returns per second of waiting in the next stretch, as long as the gap is already (at least a second)."""
    values = []
    for first, elapsed_s in enumerate(EDGES_S):
        alive = sum(spread.by_bin[first:]) + spread.never
        until = max(first + 1, bin_of(elapsed_s + max(1.0, elapsed_s)))
        returned = sum(spread.by_bin[first:until])
        stretch_s = (EDGES_S[until] if until < len(EDGES_S) else HORIZON_S * 100) - elapsed_s
        values.append(returned / ((alive - returned / 2) * stretch_s) if alive else 0.0)
    return values


def soon(spread: Spread) -> list[float]:
    """Probability of a return within SOON_S; as -log(1 - p), so that it adds up."""
    values = []
    for first, elapsed_s in enumerate(EDGES_S):
        alive = sum(spread.by_bin[first:]) + spread.never
        returned = sum(spread.by_bin[first : bin_of(elapsed_s + SOON_S) + 1])
        values.append(-log1p(-min(returned / alive, 1 - 1e-9)) if alive else 0.0)
    return values


def residual(spread: Spread) -> list[float]:
    """One over the mean time to a return."""
    values = []
    for first, elapsed_s in enumerate(EDGES_S):
        alive = sum(spread.by_bin[first:]) + spread.never
        waited_s = spread.never * HORIZON_S
        for at in range(first, len(EDGES_S) - 1):
            waited_s += spread.by_bin[at] * ((EDGES_S[at] + EDGES_S[at + 1]) / 2 - elapsed_s)
        values.append(alive / waited_s if alive and waited_s else 0.0)
    return values


FORMULATIONS = {
    "gittins": Formulation(gittins, 1.0),
    "hazard": Formulation(hazard, 1.0),
    "soon": Formulation(soon, SOON_S),
    "residual": Formulation(residual, 1.0),
}


class Causal:
    """Pages by their value, lowest first."""

    def __init__(
        self,
        stream: Stream,
        spreads: dict[Key, Spread],
        formulation: Formulation,
        starts_per_s: dict[tuple[int, int], float],
    ) -> None:
        """`starts_per_s`: rate of new sessions by their prefix, while sessions start at all."""
        self._trace = stream.trace
        self._values = {key: formulation.values(spread) for key, spread in spreads.items()}
        self._arrivals = {prefix: rate * formulation.arrival_s for prefix, rate in starts_per_s.items()}
        self._starts_left = 1 + max((agent.draw for agent in stream.trace.agents), default=0)
        self._seen_draws: set[int] = set()
        self._watch = Watch(stream.trace)
        count = len(stream.trace.segments.pages)
        self._since_s = [0.0] * count
        self._row = [_NOTHING] * count
        self._toucher = [-1] * count
        # Of pages that sessions may share: who has them in its chain, since when, and how that is valued.
        self._sharers: dict[int, dict[int, tuple[float, list[float]]]] = {}

    def started(self, call: int, now_s: float) -> list[int]:
        """Pages that it no longer needs fall in value."""
        agent = self._trace.calls[call].agent
        draw = self._trace.agents[agent].draw
        if draw not in self._seen_draws:
            self._seen_draws.add(draw)
            self._starts_left -= 1
        left, situation = self._watch.started(call)
        row = self._values.get(situation, _NOTHING)
        for segment in left:
            if segment in self._sharers:
                self._sharers[segment].pop(agent, None)
            elif self._toucher[segment] == agent:
                self._since_s[segment], self._row[segment] = now_s, row
        return left

    def ended(self, call: int, path: list[int], now_s: float, used_share: float) -> None:
        """The gap begins."""
        del used_share
        the = self._trace.calls[call]
        of_prompt, of_answer = (self._values.get(key, _NOTHING) for key in self._watch.ended(call))
        depth = self._trace.segments.depth_pages
        for segment in path:
            row = of_prompt if depth[segment] <= the.prompt_pages else of_answer
            self._since_s[segment], self._row[segment], self._toucher[segment] = now_s, row, the.agent
            if depth[segment] <= the.shared_pages:
                self._sharers.setdefault(segment, {})[the.agent] = (now_s, row)

    def evicted(self, segment: int, pages: int) -> None:
        """Changes nothing."""

    def rank(self, segment: int, now_s: float) -> tuple[float, float]:
        """As Order."""
        sharers = self._sharers.get(segment)
        if sharers is None:
            at = bin_of(now_s - self._since_s[segment])
            until_s = self._since_s[segment] + EDGES_S[min(at + 1, len(EDGES_S) - 1)]
            return self._row[segment][at], max(until_s, now_s + 1e-6)
        value = sum(row[bin_of(now_s - since_s)] for since_s, row in sharers.values())
        if self._starts_left:
            prefix = self._trace.agents[self._toucher[segment]].prefix
            value += self._arrivals.get(prefix, 0.0)
        return value, now_s + _LOOK_AGAIN_S
