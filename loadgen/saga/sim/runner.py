"""One simulation: a workload on a system on a cluster from a seed. A pure function of its `RunSpec`.

Called by `bench`, in its own process when several run at once.
"""

import gc
from pathlib import Path
from random import Random

from msgspec import Struct

from saga.engine.profile import Profile
from saga.load.settings import CODING_SESSIONS
from saga.load.trace import TraceError, read_sessions
from saga.sim.agenda import Agenda
from saga.sim.alone import Alone, alone, users_for
from saga.sim.arrivals import ClosedLoop, OpenLoop
from saga.sim.clients import Clients
from saga.sim.clusters import UNLIMITED_KV_TOKENS, load_cluster
from saga.sim.conversation import Workload
from saga.sim.ledger import Ledger, TaskRecord
from saga.sim.recorded import Recorded
from saga.sim.synthetic import CLASSES, Synthetic
from saga.sim.systems import make_system
from saga.sim.world import NO_DELAYS, Delays, World

KV_BOUND = "kv-bound"
SAMPLE = 500  # conversations behind the mean of one run alone
TASKS = 500  # at least
ROUNDS = 3  # conversations per user, at least
HORIZON_S = 7 * 86_400.0
QUARTERS = 4


class RunSpec(Struct, frozen=True):
    """What to run. Exactly one of `pressure` and `per_min` (open loop, tasks a minute) is set."""

    workload: str
    system: str
    cluster: str
    seed: int
    pressure: float | None = None
    per_min: float | None = None
    workers: int | None = None
    tasks: int | None = None
    sessions: Path | None = None
    horizon_s: float = HORIZON_S


class RunRecord(Struct, frozen=True):
    """What came of it. Times in virtual seconds; totals over all steps unless they say measured."""

    users: int
    conversations: int
    dropped_sessions: int
    measured: tuple[TaskRecord, ...]
    ttft_s: tuple[float, ...]  # of measured steps
    prompt_tokens: int  # of measured steps
    cached_tokens: int  # of measured steps
    regenerated_tokens: int
    tasks_per_min: float
    failures: int
    refusals: int
    steps: int
    retractions: int
    unstable: bool
    ended_s: float


def simulate(spec: RunSpec, *, check: bool = False) -> RunRecord:
    """Run it to the last task or the horizon. `check`: assert every core's invariants at the end."""
    collecting = gc.isenabled()
    gc.disable()  # what a run makes is freed by reference counts; looking for cycles takes a third of its time
    try:
        simulation = Simulation(spec)
        record = simulation.run()
        if check:
            simulation.world.check()
    finally:
        if collecting:
            gc.enable()
    return record


class Simulation:
    """One run, put together but not started."""

    def __init__(self, spec: RunSpec) -> None:
        cluster, profile = load_cluster(spec.cluster, spec.workers)
        workload, dropped = make_workload(spec, profile)
        mean = alone_of(workload, spec, profile)
        pool_kv_tokens = cluster.workers * profile.kv_tokens
        self.spec = spec
        self.dropped_sessions = dropped
        self.users = users_for(spec.pressure, pool_kv_tokens, mean.kv_tokens) if spec.pressure is not None else 0
        self.total = spec.tasks or max(TASKS, ROUNDS * self.users)
        warm = min(self.users or self.total // 10, self.total - 1)
        drain = min(self.users or self.total // 10, (self.total - warm) // 2)
        self.ledger = Ledger(range(warm, self.total - drain))
        system = make_system(spec.system, users_for(1.0, pool_kv_tokens, mean.kv_tokens))
        self.agenda = Agenda()
        bound = spec.system == KV_BOUND
        self.world = World(
            self.agenda,
            system,
            profile.with_kv_tokens(UNLIMITED_KV_TOKENS) if bound else profile,
            cluster.workers,
            spec.seed,
            weights=workload.weights,
            delays=NO_DELAYS if bound else Delays(),
        )
        self.clients = Clients(
            self.world,
            workload,
            profile,
            self.ledger,
            request_level=system.request_level,
            on_end=self._over,
        )
        self.arrivals: ClosedLoop | OpenLoop
        if spec.per_min is not None:
            random = Random(f"{spec.seed}/arrivals")
            self.arrivals = OpenLoop(
                self.agenda, self.clients.begin, per_s=spec.per_min / 60, total=self.total, random=random
            )
        else:
            self.arrivals = ClosedLoop(
                self.agenda, self.clients.begin, users=self.users, total=self.total, spread_s=mean.seconds
            )
        self.workload = workload

    def _over(self, number: int) -> None:
        self.arrivals.ended(number)

    def run(self) -> RunRecord:
        """To the end."""
        drained = self.agenda.run(self.spec.horizon_s)
        ledger = self.ledger
        unfinished = 0
        if not drained:
            unfinished = sum(self.workload.draw(n).turns for n in range(self.total)) - len(ledger.tasks)
        engines = [engine.core for engine in self.world.engines.values()]
        prefilled = sum(core.stats.prefilled_tokens for core in engines)
        return RunRecord(
            users=self.users,
            conversations=self.total,
            dropped_sessions=self.dropped_sessions,
            measured=tuple(sorted((t for t in ledger.tasks if t.number in ledger.measured), key=_order)),
            ttft_s=tuple(ledger.ttft_s),
            prompt_tokens=ledger.prompt_tokens,
            cached_tokens=ledger.cached_tokens,
            regenerated_tokens=max(0, prefilled - ledger.needed_tokens),
            tasks_per_min=self._tasks_per_min(),
            failures=unfinished if not drained else ledger.failures,
            refusals=ledger.refusals,
            steps=ledger.steps,
            retractions=sum(core.stats.retractions for core in engines),
            unstable=isinstance(self.arrivals, OpenLoop) and grows(self.arrivals.in_system),
            ended_s=self.agenda.now_s,
        )

    def _tasks_per_min(self) -> float:
        """While all users were at work after their first task; over the whole run when that is too short."""
        starts = self.arrivals.started_s
        first, last = (starts[self.ledger.measured.start], starts[-1]) if len(starts) == self.total else (0.0, 0.0)
        done = sum(first < task.ended_s <= last for task in self.ledger.tasks)
        if done < 10:
            first, last, done = 0.0, self.agenda.now_s, len(self.ledger.tasks)
        return 60.0 * done / (last - first) if last > first else 0.0


def make_workload(spec: RunSpec, profile: Profile) -> tuple[Workload, int]:
    """The workload, and how many recorded sessions do not fit."""
    if spec.workload in CLASSES:
        return Synthetic(spec.workload, spec.seed, profile.context_tokens, profile.page_tokens), 0
    if spec.sessions is None:
        raise TraceError(f"{CODING_SESSIONS} needs --sessions FILE")
    recorded = Recorded(
        read_sessions(spec.sessions),
        spec.seed,
        context_tokens=profile.context_tokens,
        kv_tokens=profile.kv_tokens,
        page_tokens=profile.page_tokens,
    )
    left = recorded.left_out
    return recorded, left.dropped_over_context + left.dropped_over_half_kv


def alone_of(workload: Workload, spec: RunSpec, profile: Profile) -> Alone:
    """Mean of one run alone: of the workload, not of the seed."""
    if spec.workload in CLASSES:
        workload = Synthetic(spec.workload, 0, profile.context_tokens, profile.page_tokens)
    elif isinstance(workload, Recorded):
        return alone(workload.every, profile)
    return alone((workload.draw(number) for number in range(SAMPLE)), profile)


def grows(in_system: list[int]) -> bool:
    """Whether a queue grows throughout: each quarter's mean above the last, and the end twice the second quarter."""
    size = len(in_system) // QUARTERS
    if size == 0:
        return False
    means = [sum(in_system[q * size : (q + 1) * size]) / size for q in range(QUARTERS)]
    return means == sorted(means) and means[3] > 2 * means[1]


def _order(task: TaskRecord) -> tuple[int, int]:
    return task.number, task.turn
