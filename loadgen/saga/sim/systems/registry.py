"""The systems by name: which policies each is made of, and the settings that suit it best, as
`bench/offline/sweep_baselines.py` found them.

A name may carry another value of its system's one setting and another engine queue policy, as points of a sweep do:
`affinity+cap:0.75`, `session-affinity@lpm`, `kv-ttl:5@lof`.
"""

from collections.abc import Callable
from random import Random
from typing import Any, get_args

from msgspec import Struct
from msgspec.structs import replace

from saga.admission.margin import FIRST_SHARE
from saga.admission.order import FairStart, TagPolicy
from saga.admission.policy import ActiveSetPolicy, Everybody, OldestThatFit
from saga.admission.ranks import ByAge, LeastAttained, LeastSlack, LeastWorkLeft, Rank
from saga.admission.records import Workflow
from saga.admission.worker_budgets import WorkerBudgets
from saga.contract.tenants import TenantTerms
from saga.engine.settings import EngineSettings, Schedule
from saga.graph.forecast import Defaults, ForecastPolicy
from saga.graph.forecast import Saga as SagaForecast
from saga.placement.policy import CheapestStart, PlacementPolicy, SessionAffinity
from saga.placement.pricing import Priced
from saga.placement.routers import LeastLoaded, PrefixAware, PricedRouter, RoundRobin
from saga.placement.stealing import IdleAndUneven, MovePolicy, SavedWait, StealPolicy
from saga.sim.systems.afs import PublishedShares, by_age
from saga.sim.systems.caps import FirstThatFit, StaticCap
from saga.sim.systems.orders import By, ByRank, LeastAttainedSteps, TaskTimes
from saga.sim.systems.paper import AgentFairShare, ThetaAffinity
from saga.sim.systems.pausing import PauseResume, Readiness
from saga.sim.systems.retention import FixedTtl, StepsToRun
from saga.worker.prefetch import NearReturn, PrefetchPolicy
from saga.worker.retention import POLICIES as RETENTION
from saga.worker.retention import Lru, RetentionPolicy, policy_named

TAG_DEFAULT_S, TAG_CAP_S = 60.0, 300.0  # as the worker agents' settings


class UnknownSystemError(ValueError):
    """No such system; the message lists those there are."""


def _lru() -> RetentionPolicy:
    return Lru(TAG_DEFAULT_S, TAG_CAP_S)


def _named(policy: str) -> Callable[[], RetentionPolicy]:
    return lambda: policy_named(policy, TAG_DEFAULT_S, TAG_CAP_S)


def _own_queues() -> PlacementPolicy:
    return SessionAffinity(engine_queues=False)


def _nothing() -> None:
    return None


def _no_stealing(seed: int) -> StealPolicy | MovePolicy | None:
    del seed
    return None


def _stealing(seed: int) -> StealPolicy:
    return IdleAndUneven(Random(f"{seed}/stealing"))


def _saved_wait(seed: int) -> MovePolicy:
    del seed
    return SavedWait()


class System(Struct):
    """One system of one run: what makes its policies. Each run takes a fresh one."""

    name: str
    placement: Callable[[], PlacementPolicy]
    active_set: Callable[[], ActiveSetPolicy] = Everybody
    order: Callable[[], TagPolicy] = FairStart
    rank: Callable[[], Rank] = ByAge
    retention: Callable[[], RetentionPolicy] = _lru
    stealing: Callable[[int], StealPolicy | MovePolicy | None] = _no_stealing  # of the run's seed
    engine: EngineSettings = EngineSettings()
    forecasts: Callable[[], ForecastPolicy | None] = SagaForecast  # None: there is no graph service
    prefetch: Callable[[], PrefetchPolicy | None] = _nothing  # with a host tier
    supersede: bool = False  # fresh session tags once old ones pin dead KV
    preempts: bool = False  # steps that run, by the engines' priorities
    terms: dict[str, TenantTerms] = {}  # weights and quotas of tenants, from the start
    shared_kv: bool = False  # every worker reaches the KV of all: only the bound can


# Best of bench/offline/sweep_baselines.py on S1, seed 1001.
LPM = EngineSettings(schedule="lpm")  # engines start what is cached longest first: where they keep the queue
CAP_SHARE = 0.65  # of the users of pressure 1
TTL_S = 1.0
FIRST_LEVEL_S = 1.0
PAUSE_AT = 0.95


def make_system(name: str, users_at_one: int) -> System:
    """The system of that name, fresh. `users_at_one`: of pressure 1. Raises UnknownSystemError."""
    base, _, setting = name.partition("@")[0].partition(":")
    schedule = name.partition("@")[2]
    make = _MAKERS.get(base)
    if make is None or (schedule and schedule not in get_args(Schedule)):
        raise UnknownSystemError(f"unknown system {name!r}; known: {', '.join(SYSTEMS)}")
    system = make(name, float(setting) if setting else None, users_at_one)
    engine = replace(system.engine, session_radix_cache=system.retention().tags)
    system.engine = replace(engine, schedule=schedule) if schedule else engine
    return system


Maker = Callable[[str, float | None, int], System]


def _router(policy: Callable[[], PlacementPolicy]) -> Maker:
    return lambda name, _value, _users: System(name, policy, engine=LPM)


def _cap(name: str, value: float | None, users_at_one: int) -> System:
    workflows = max(1, round((value or CAP_SHARE) * users_at_one))
    return System(name, SessionAffinity, lambda: StaticCap(workflows))


def _srpt(name: str, value: float | None, users_at_one: int) -> System:
    del value, users_at_one
    return System(name, _own_queues, OldestThatFit, lambda: ByRank(_remaining), lambda: By(_remaining))


def _edf(name: str, value: float | None, users_at_one: int) -> System:
    del value, users_at_one
    times = TaskTimes()
    deadline = times.deadline_s
    order = lambda: ByRank(deadline, times.learn)  # noqa: E731
    return System(name, _own_queues, FirstThatFit, order, lambda: By(deadline))


def _ttl(name: str, value: float | None, users_at_one: int) -> System:
    del users_at_one
    ttl_s = TTL_S if value is None else value
    return System(name, SessionAffinity, retention=lambda: FixedTtl(ttl_s), engine=LPM)


def _steps_to_run(name: str, value: float | None, users_at_one: int) -> System:
    del value, users_at_one
    return System(name, SessionAffinity, retention=StepsToRun, engine=LPM)


def _pause_resume(name: str, value: float | None, users_at_one: int) -> System:
    del users_at_one
    pause_at = PAUSE_AT if value is None else value
    return System(name, SessionAffinity, lambda: PauseResume(pause_at, pause_at - 0.15), rank=Readiness)


def _attained(name: str, value: float | None, users_at_one: int) -> System:
    del users_at_one
    first_level_s = FIRST_LEVEL_S if value is None else value
    return System(name, _own_queues, order=lambda: LeastAttainedSteps(first_level_s))


def _paper(name: str, value: float | None, users_at_one: int) -> System:
    del value, users_at_one
    return System(name, ThetaAffinity, order=AgentFairShare, retention=_named("paper"), stealing=_stealing)


def _paper_stealing(stealing: Callable[[int], StealPolicy | MovePolicy | None]) -> Maker:
    return lambda name, _value, _users: replace(_paper(name, None, 0), stealing=stealing)


def _saga(name: str, value: float | None, users_at_one: int) -> System:
    del value, users_at_one
    return System(
        name,
        Priced,
        WorkerBudgets,
        retention=_named("saga"),
        stealing=_saved_wait,
        prefetch=NearReturn,
        supersede=True,
    )


def _paper_afs(name: str, value: float | None, users_at_one: int) -> System:
    shares = PublishedShares()
    saga = _saga(name, value, users_at_one)
    return replace(saga, active_set=lambda: WorkerBudgets(line=shares.line), order=lambda: shares)


def _saga_without(**changed: Any) -> Maker:  # noqa: ANN401 - fields of System
    """One part of saga replaced by what the affinity baseline has there."""
    return lambda name, _value, _users: replace(_saga(name, None, 0), **changed)


def _saga_fills(name: str, value: float | None, users_at_one: int) -> System:
    """A fixed share of each worker's KV for the active set to join, instead of the one that is learnt."""
    share = FIRST_SHARE if value is None else value
    return replace(_saga(name, None, users_at_one), active_set=lambda: WorkerBudgets(share, learns=False))


def _alone(**added: Any) -> Maker:  # noqa: ANN401 - fields of System
    """The affinity baseline with one part of saga added. Engines order their own queues unless a part replaces them."""
    return lambda name, _value, _users: replace(System(name, SessionAffinity, engine=LPM), **added)


def _bound(name: str, value: float | None, users_at_one: int) -> System:
    del value, users_at_one
    return System(name, LeastLoaded, shared_kv=True)


def _remaining(workflow: Workflow) -> float:
    return workflow.remaining_engine_s


_MAKERS: dict[str, Maker] = {
    "round-robin": _router(RoundRobin),
    "least-loaded": _router(LeastLoaded),
    "session-affinity": _router(SessionAffinity),
    "prefix-aware": _router(PrefixAware),
    "affinity+cap": _cap,
    "srpt+affinity": _srpt,
    "edf+affinity": _edf,
    "kv-ttl": _ttl,
    "steps-to-run": _steps_to_run,
    "pause-resume": _pause_resume,
    "attained-service": _attained,
    "paper": _paper,
    "saga": _saga,
    "paper-afs": _paper_afs,
    "paper-no-stealing": _paper_stealing(_no_stealing),
    "paper-saved-wait": _paper_stealing(_saved_wait),
    "saga-by-age": _saga_without(active_set=lambda: WorkerBudgets(line=by_age)),
    "saga-age": _saga_without(rank=ByAge),
    "saga-las": _saga_without(rank=LeastAttained),
    "saga-slack": _saga_without(rank=LeastSlack),
    "saga-srpt-aging": _saga_without(rank=LeastWorkLeft),
    "saga-fills": _saga_fills,
    "saga-preempts": _saga_without(preempts=True, engine=EngineSettings(priority_scheduling=True)),
    "saga-no-active-set": _saga_without(active_set=Everybody),
    "saga-one-budget": _saga_without(active_set=OldestThatFit),
    "saga-no-leeway": _saga_without(active_set=lambda: WorkerBudgets(lenient=False)),
    "saga-no-tags": _saga_without(retention=_lru),
    **{
        f"saga-keeps-{name}": _saga_without(retention=_named(name)) for name in RETENTION if name not in ("saga", "lru")
    },
    "saga-no-graph": _saga_without(forecasts=_nothing),
    "saga-no-forecasts": _saga_without(forecasts=Defaults),
    "saga-no-prefetch": _saga_without(prefetch=_nothing),
    "saga-no-supersession": _saga_without(supersede=False),
    "saga-no-start-price": _saga_without(placement=_own_queues),
    "saga-cheapest-start": _saga_without(placement=CheapestStart),
    "saga-bound": _saga_without(active_set=lambda: WorkerBudgets(asks_placement=False), stealing=_no_stealing),
    "saga-holds-ended": _saga_without(active_set=lambda: WorkerBudgets(unlikely_return=0.0)),
    "saga-before": _saga_without(
        active_set=lambda: WorkerBudgets(asks_placement=False, unlikely_return=0.0),
        placement=CheapestStart,
        stealing=_no_stealing,
    ),
    "saga-no-stealing": _saga_without(stealing=_no_stealing),
    "saga-steals-as-paper": _saga_without(stealing=_stealing),
    "saga-no-affinity": _saga_without(placement=lambda: LeastLoaded(engine_queues=False), stealing=_no_stealing),
    "alone-active-set": _alone(active_set=lambda: WorkerBudgets(asks_placement=False), forecasts=_nothing),
    "alone-active-set-and-forecasts": _alone(active_set=lambda: WorkerBudgets(asks_placement=False)),
    "alone-tags": _alone(retention=_named("saga"), supersede=True),
    "alone-prices": _alone(placement=PricedRouter),
    "alone-queue": _alone(placement=_own_queues, engine=EngineSettings()),
    "alone-queue-and-moves": _alone(placement=_own_queues, engine=EngineSettings(), stealing=_saved_wait),
    "saga-no-active-set-no-stealing": _saga_without(active_set=Everybody, stealing=_no_stealing),
    "saga-no-active-set-steals-as-paper": _saga_without(active_set=Everybody, stealing=_stealing),
    "kv-bound": _bound,
}

VARIANTS = ("paper-afs", "paper-no-stealing", "paper-saved-wait")  # of the published system
ABLATIONS = tuple(name for name in _MAKERS if name.startswith(("saga-", "alone-")))
SYSTEMS = tuple(name for name in _MAKERS if name not in ("kv-bound", *VARIANTS, *ABLATIONS))
