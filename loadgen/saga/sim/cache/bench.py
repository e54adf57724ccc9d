"""Runs cache policies over one access trace at several sizes, and sets them against the two limits. Called by `cli`."""

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import msgspec
from msgspec import Struct

from saga.engine.radix import RadixTree
from saga.graph.forecast import Saga as SagaForecast
from saga.load.trace import Session
from saga.sim.cache.access import AccessTrace, Limits, drawn, each_once
from saga.sim.cache.causal import FORMULATIONS, Causal
from saga.sim.cache.fitting import Stream, fitted
from saga.sim.cache.orders import Belady, PagedLru
from saga.sim.cache.paged import Order, PagedCache
from saga.sim.cache.population import Key, Spread, population, prefix_shares
from saga.sim.cache.product import SessionTags
from saga.sim.cache.published import Ttl, WaLru
from saga.sim.cache.synthetic import drawn_tasks, other_tasks
from saga.sim.cache.whole_leaf import Untagged, WholeLeaf
from saga.sim.systems.registry import TAG_CAP_S, TAG_DEFAULT_S, make_system
from saga.worker.retention import POLICIES as RETENTION
from saga.worker.retention import RetentionPolicy, policy_named

LRU, BELADY, CAUSAL = "lru", "belady", "causal"


class CacheError(ValueError):
    """A size that makes no sense for this trace; the message says what was expected."""


class Outcome(Struct, frozen=True):
    """What a cache did: pages."""

    regenerated_pages: int
    hit_pages: int


class Result(Struct, frozen=True):
    """One policy at one size. Tokens are whole pages.

    `belady_ratio`: regenerated over the oracle's; `causal_gap_closed`: (LRU - policy) / (LRU - best causal). Null
    where the denominator is not above 0. `unfit_*`: calls that found no room beside others in use, answers not stored;
    the same for all policies and not in the other figures.
    """

    policy: str
    capacity_tokens: int
    regenerated_tokens: int
    oracle_regenerated_tokens: int
    belady_ratio: float | None
    causal_gap_closed: float | None
    lru_regenerated_tokens: int
    best_causal_regenerated_tokens: int
    best_causal: str
    hit_rate: float | None
    ideal_hit_rate: float | None
    prompt_tokens: int
    unfit_calls: int
    unfit_tokens: int
    unfit_answers: int


class Report(Struct, frozen=True):
    """What the JSON holds."""

    results: list[Result]


class Population(Struct, frozen=True):
    """What the best causal policy knows beforehand."""

    spreads: dict[Key, Spread]
    starts_per_s: dict[tuple[int, int], float]


def _paged(order: Callable[[Stream], Order]) -> Callable[[Stream], Outcome]:
    def run(stream: Stream) -> Outcome:
        cache = PagedCache(stream, order(stream))
        cache.run()
        return Outcome(cache.regenerated_pages, cache.hit_pages)

    return run


def _lru(stream: Stream) -> Outcome:
    cache = WholeLeaf(stream, RadixTree(), Untagged())
    cache.run()
    return Outcome(cache.regenerated_pages, cache.hit_pages)


def _product(retention: Callable[[], RetentionPolicy]) -> Callable[[Stream], Outcome]:
    def run(stream: Stream) -> Outcome:
        tree = RadixTree()
        cache = WholeLeaf(stream, tree, SessionTags(stream, tree, retention(), SagaForecast()))
        cache.run()
        return Outcome(cache.regenerated_pages, cache.hit_pages)

    return run


def _retention(name: str) -> Callable[[Stream], Outcome]:
    return _product(partial(policy_named, name, TAG_DEFAULT_S, TAG_CAP_S))


_RUNS: dict[str, Callable[[Stream], Outcome]] = {
    LRU: _lru,
    "lru-paged": _paged(PagedLru),
    "walru": _paged(WaLru),
    "ttl": _paged(Ttl),
    "saga": _product(lambda: make_system("saga", 1).retention()),
    **{f"agent-{name}": _retention(name) for name in RETENTION if name != LRU},
    BELADY: _paged(Belady),
}
POLICIES = (*_RUNS, CAUSAL)


def what_is_known(once: AccessTrace, limits: Limits) -> Population:
    """Distributions over all sessions, each of which `once` has once, and how often each prefix starts."""
    rates = {prefix: share * limits.starts_per_s for prefix, share in prefix_shares(once).items()}
    return Population(population(once), rates)


def best_causal(stream: Stream, known: Population) -> tuple[str, Outcome]:
    """The formulation that regenerates least on this stream."""
    found: dict[str, Outcome] = {}
    for name, formulation in FORMULATIONS.items():
        order = partial(Causal, spreads=known.spreads, formulation=formulation, starts_per_s=known.starts_per_s)
        found[name] = _paged(order)(stream)
    best = min(found, key=lambda name: found[name].regenerated_pages)
    return best, found[best]


class Subject(Struct, frozen=True):
    """What caches are compared on."""

    trace: AccessTrace
    known: Population


def recorded(sessions: Sequence[Session], limits: Limits = Limits()) -> Subject:  # noqa: B008 - frozen
    """Recorded sessions. Raises PlanError for none."""
    return Subject(drawn(sessions, limits), what_is_known(each_once(sessions), limits))


def synthetic(workload: str, limits: Limits) -> Subject:
    """Tasks of a synthetic workload."""
    return Subject(drawn_tasks(workload, limits), what_is_known(other_tasks(workload, limits), limits))


def bench_cache(
    subject: Subject,
    capacities: Sequence[int],
    policies: Sequence[str],
    told: Callable[[str, int], None] = lambda _policy, _capacity: None,
) -> Report:
    """All policies at all sizes. `told`: called before each. Raises CacheError."""
    trace = subject.trace
    results: list[Result] = []
    for capacity_tokens in capacities:
        if capacity_tokens < trace.page_tokens:
            raise CacheError(f"capacity {capacity_tokens}: expected at least a page of {trace.page_tokens} tokens")
        results += _at(trace, subject.known, capacity_tokens, policies, told)
    return Report(results)


def _at(
    trace: AccessTrace,
    known: Population,
    capacity_tokens: int,
    policies: Sequence[str],
    told: Callable[[str, int], None],
) -> list[Result]:
    stream = fitted(trace, capacity_tokens // trace.page_tokens)
    outcomes: dict[str, Outcome] = {}
    told(CAUSAL, capacity_tokens)
    best, outcomes[CAUSAL] = best_causal(stream, known)
    for policy in dict.fromkeys((LRU, BELADY, *policies)):
        if policy != CAUSAL:
            told(policy, capacity_tokens)
            outcomes[policy] = _RUNS[policy](stream)
    return [_result(policy, outcomes, best, stream, capacity_tokens) for policy in policies]


def _result(policy: str, outcomes: dict[str, Outcome], best: str, stream: Stream, capacity_tokens: int) -> Result:
    page_tokens = stream.trace.page_tokens
    tokens = {name: outcome.regenerated_pages * page_tokens for name, outcome in outcomes.items()}
    prompt_pages = stream.prompt_pages
    return Result(
        policy=policy,
        capacity_tokens=capacity_tokens,
        regenerated_tokens=tokens[policy],
        oracle_regenerated_tokens=tokens[BELADY],
        belady_ratio=_ratio(tokens[policy], tokens[BELADY]),
        causal_gap_closed=_ratio(tokens[LRU] - tokens[policy], tokens[LRU] - tokens[CAUSAL]),
        lru_regenerated_tokens=tokens[LRU],
        best_causal_regenerated_tokens=tokens[CAUSAL],
        best_causal=best,
        hit_rate=_ratio(outcomes[policy].hit_pages, prompt_pages),
        ideal_hit_rate=_ratio(sum(stream.known_pages), prompt_pages),
        prompt_tokens=prompt_pages * page_tokens,
        unfit_calls=stream.unfit_calls,
        unfit_tokens=stream.unfit_tokens,
        unfit_answers=stream.unfit_answers,
    )


def _ratio(above: int, below: int) -> float | None:
    return round(above / below, 4) if below > 0 else None


def write_json(path: Path, report: Report) -> None:
    """The same report is the same bytes."""
    path.write_bytes(msgspec.json.format(msgspec.json.encode(report), indent=1) + b"\n")
