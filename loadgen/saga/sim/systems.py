"""The systems compared: each a few lines of policy on our own cores. What each stands for: `docs/evaluation.md`.

A system is the present policies of the mesh with some replaced. None knows how long a task or an answer will be.
"""

from collections.abc import Callable, Iterable, Sequence

from msgspec import Struct

from saga.admission.needs import Tokens
from saga.admission.policy import ActiveSetPolicy, Claimant, Everybody, OldestThatFit
from saga.contract.ids import RootId, WorkerId
from saga.contract.messages import Forecast, StepReady
from saga.engine.profile import Profile
from saga.kernel.effects import Decision
from saga.placement.policy import Candidate, CheapestStart, PlacementPolicy, SessionAffinity
from saga.worker.retention import Lru, RetentionPolicy, Tags

TAG_DEFAULT_S, TAG_CAP_S = 60.0, 300.0  # as the worker agents' settings


class UnknownSystemError(ValueError):
    """No such system; the message lists those there are."""


class RoundRobin:
    """Each request to the next worker."""

    engine_queues = True

    def __init__(self) -> None:
        self._next = 0

    def choose(self, step: StepReady, candidates: Sequence[Candidate]) -> Decision[WorkerId]:  # noqa: ARG002 - the step has no say
        self._next += 1
        return Decision(candidates[self._next % len(candidates)].worker_id, "next")


class LeastLoaded:
    """Each request to the worker with the least outstanding work, running or queued in the engine."""

    engine_queues = True

    def choose(self, step: StepReady, candidates: Sequence[Candidate]) -> Decision[WorkerId]:  # noqa: ARG002 - the step has no say
        best = min(candidates, key=lambda c: (c.leases, c.leased_engine_s, c.worker_id))
        return Decision(best.worker_id, "least_loaded")


class PrefixAware:
    """SGLang's cache-aware router: to the longest resident prefix, unless loads differ too much or little would hit."""

    engine_queues = True
    IMBALANCE_REQUESTS = 64  # --balance-abs-threshold
    IMBALANCE_RATIO = 1.5  # --balance-rel-threshold
    LEAST_HIT = 0.3  # --cache-threshold

    def choose(self, step: StepReady, candidates: Sequence[Candidate]) -> Decision[WorkerId]:
        least = min(candidates, key=lambda c: (c.leases, c.leased_engine_s, c.worker_id))
        most = max(c.leases for c in candidates)
        if most - least.leases > self.IMBALANCE_REQUESTS and most > self.IMBALANCE_RATIO * least.leases:
            return Decision(least.worker_id, "imbalance")
        best = max(candidates, key=lambda c: (c.cached_tokens, -c.leases, c.worker_id))
        if best.cached_tokens > self.LEAST_HIT * step.prompt_tokens:
            return Decision(best.worker_id, "resident_prefix")
        return Decision(least.worker_id, "least_loaded")


class StaticCap:
    """So many workflows at once, oldest first: the operator's max concurrency."""

    def __init__(self, workflows: int) -> None:
        self._workflows = workflows

    def fits(self, needs_tokens: Tokens, kv_tokens: int) -> bool:  # noqa: ARG002 - counts workflows, not tokens
        return False

    def active(self, oldest_first: Iterable[Claimant], kv_tokens: int) -> set[RootId]:  # noqa: ARG002 - the same
        chosen: set[RootId] = set()
        for claimant in oldest_first:
            if len(chosen) == self._workflows:
                break
            chosen.add(claimant.root)
        return chosen


class ShortestFirst:
    """Least expected remaining work first until the KV is spoken for; forecasts say, newcomers by the mean of all.

    Who runs is paused at its step boundary when someone with less left comes: that is what SRPT is.
    """

    KV_SHARE = 0.95

    def __init__(self) -> None:
        self._left_s: dict[RootId, float] = {}
        self._first_s = 0.0  # mean remaining work told after first steps

    def hear(self, forecast: Forecast) -> None:
        """What the graph expects of a workflow."""
        if forecast.root not in self._left_s:
            self._first_s += 0.05 * (forecast.remaining_engine_s - self._first_s)
        self._left_s[forecast.root] = forecast.remaining_engine_s

    def fits(self, needs_tokens: Tokens, kv_tokens: int) -> bool:
        return needs_tokens[0] <= int(kv_tokens * self.KV_SHARE)

    def active(self, oldest_first: Iterable[Claimant], kv_tokens: int) -> set[RootId]:
        left_tokens = int(kv_tokens * self.KV_SHARE)
        chosen: set[RootId] = set()
        order = sorted(oldest_first, key=lambda c: self._left_s.get(c.root, self._first_s))
        for claimant in order:
            if chosen and claimant.needs_tokens[0] > left_tokens:
                break
            chosen.add(claimant.root)
            left_tokens -= claimant.needs_tokens[0]
        return chosen


class FixedTtl:
    """Every session is kept for a fixed time after each step."""

    tags = True

    def __init__(self, ttl_s: float) -> None:
        self._ttl_s = ttl_s

    def keep_s(self, forecast: Forecast | None, *, final: bool, speed: float) -> Decision[float]:
        """As RetentionPolicy."""
        del forecast
        return Decision(0.0 if final else self._ttl_s / speed, "ttl")


class System(Struct):
    """One system of one run: factories of its policies.

    `request_level`: routes requests, knows no sessions. `hear`: forecasts go here, for policies that order by them.
    """

    name: str
    active_set: Callable[[Profile, int], ActiveSetPolicy]
    placement: Callable[[], PlacementPolicy]
    retention: Callable[[], RetentionPolicy]
    request_level: bool = False
    shared_kv: bool = False  # every worker reaches the KV of all: only the bound can
    hear: Callable[[Forecast], None] = lambda _: None


def _everybody(profile: Profile, workers: int) -> ActiveSetPolicy:
    del profile, workers
    return Everybody()


def _oldest(profile: Profile, workers: int) -> ActiveSetPolicy:
    del profile, workers
    return OldestThatFit()


def _lru() -> RetentionPolicy:
    return Lru(TAG_DEFAULT_S, TAG_CAP_S)


def _tags() -> RetentionPolicy:
    return Tags(TAG_DEFAULT_S, TAG_CAP_S)


def _ttl() -> RetentionPolicy:
    return FixedTtl(TTL_S)


CAP_SHARE = 0.8  # of the users of pressure 1, found by sweep: docs/evaluation.md
TTL_S = 30.0  # between 10 and 60, which gave the same: docs/evaluation.md


def make_system(name: str, users_at_one: int) -> System:
    """The system of that name, fresh. `users_at_one`: of pressure 1. Raises UnknownSystemError."""
    base, _, setting = name.partition(":")  # "affinity+cap:0.75" is a point of a sweep
    value = float(setting) if setting else None
    match base:
        case "round-robin":
            return System(name, _everybody, RoundRobin, _lru, request_level=True)
        case "least-loaded":
            return System(name, _everybody, LeastLoaded, _lru, request_level=True)
        case "prefix-aware":
            return System(name, _everybody, PrefixAware, _lru, request_level=True)
        case "session-affinity":
            return System(name, _everybody, SessionAffinity, _lru)
        case "affinity+cap":
            cap = max(1, round((value or CAP_SHARE) * users_at_one))
            return System(name, lambda _profile, _workers: StaticCap(cap), SessionAffinity, _lru)
        case "srpt+affinity":
            shortest = ShortestFirst()
            return System(name, lambda _profile, _workers: shortest, SessionAffinity, _lru, hear=shortest.hear)
        case "kv-ttl":
            return System(name, _everybody, SessionAffinity, lambda: FixedTtl(value or TTL_S))
        case "saga":
            return System(name, _oldest, CheapestStart, _tags)
        case "kv-bound":
            return System(name, _everybody, LeastLoaded, _lru, request_level=True, shared_kv=True)
        case _:
            raise UnknownSystemError(f"unknown system {name!r}; known: {', '.join(SYSTEMS)}")


SYSTEMS = (
    "round-robin",
    "least-loaded",
    "session-affinity",
    "prefix-aware",
    "affinity+cap",
    "srpt+affinity",
    "kv-ttl",
    "saga",
)
