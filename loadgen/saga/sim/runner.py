"""One simulation: a workload on a system on a cluster from a seed. A pure function of its `RunSpec`.

Called by `bench`, in its own process when several run at once.
"""

import gc
from random import Random

from saga.sim.agenda import Agenda
from saga.sim.alone import alone, users_for
from saga.sim.arrivals import ClosedLoop, OpenLoop, poisson
from saga.sim.clients import Clients
from saga.sim.clusters import UNLIMITED_KV_TOKENS, load_cluster, other_profiles, shared_tier_of, with_host_tier
from saga.sim.conversation import Workload
from saga.sim.flood import Flood
from saga.sim.ledger import Ledger, TaskRecord
from saga.sim.observer import Observer
from saga.sim.spec import Detail, RunRecord, RunSpec
from saga.sim.systems.registry import make_system
from saga.sim.work import Work
from saga.sim.workloads import make_workload, typical
from saga.sim.world import CAREFREE, NO_DELAYS, WATCHFUL, Delays, World

KV_BOUND = "kv-bound"
QUARTERS = 4


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
        made = make_workload(spec.workload, spec.seed, profile, spec.sessions, skip_bad=spec.skip_bad)
        workload = made.workload
        mean = alone(typical(spec.workload, made, profile, spec.sessions, skip_bad=spec.skip_bad), profile)
        others = other_profiles(cluster, profile)
        pool_kv_tokens = cluster.workers * profile.kv_tokens + sum(other.kv_tokens for other in others)
        self.spec = spec
        self.made = made
        self.users = users_for(spec.pressure, pool_kv_tokens, mean.kv_tokens) if spec.pressure is not None else 0
        self.total = spec.tasks or max(spec.least_tasks, round(spec.rounds * self.users))
        starts = self._starts(workload, spec.per_min / 60) if spec.per_min is not None else []
        self.total = len(starts) or self.total
        warm = min(self.users or self.total // 10, self.total - 1)
        drain = min(self.users or self.total // 10, (self.total - warm) // 2)
        self.ledger = Ledger(range(warm, self.total - drain), workload.weights)
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
            engine=with_host_tier(system.engine, profile, spec.host_tier),
            upkeep=WATCHFUL if workload.losses else CAREFREE,
            others=[
                (
                    other.with_kv_tokens(UNLIMITED_KV_TOKENS) if bound else other,
                    with_host_tier(system.engine, other, spec.host_tier),
                )
                for other in others
            ],
            late=cluster.late,
            shared=shared_tier_of(cluster, profile, spec.host_tier),
        )
        self._work = Work(self.world)
        self.clients = Clients(
            self.world,
            workload,
            profile,
            self.ledger,
            on_end=self._over,
        )
        self.arrivals: ClosedLoop | OpenLoop
        if spec.per_min is not None:
            awaited = workload.awaited() if isinstance(workload, Flood) else None
            self.arrivals = OpenLoop(self.agenda, self._begin, starts, awaited)
        else:
            self.arrivals = ClosedLoop(
                self.agenda, self._begin, users=self.users, total=self.total, spread_s=mean.seconds
            )
        self.losses = {int(loss.after_share * self.total): loss for loss in workload.losses}
        self._joins_at = int(cluster.late_share * self.total) if cluster.late else -1
        self.kv_tokens = profile.kv_tokens
        self.observer: Observer | None = None
        if spec.detail:
            self.observer = Observer(self.agenda, self.world, self.clients, profile, workload, self.ledger.measured)

    def _starts(self, workload: Workload, per_s: float) -> list[float]:
        """When conversations begin in the open loop: as the workload says, else at random."""
        if isinstance(workload, Flood):
            return workload.starts(per_s, self.total)
        return poisson(Random(f"{self.spec.seed}/arrivals"), per_s, self.total)

    def _begin(self, number: int) -> None:
        """Conversation `number` begins; with some of them a machine fails, with one late ones join."""
        loss = self.losses.get(number)
        if loss is not None:
            self.world.lose(loss.worker, loss.for_s)
        if number == self._joins_at:
            self.world.join()
        if number == self.ledger.measured.start:
            self._work.begin()
        self.clients.begin(number)
        if number == self.total - 1:
            self._work.end()

    def _over(self, number: int) -> None:
        self.arrivals.ended(number)

    def run(self) -> RunRecord:
        """To the end."""
        drained = self.agenda.run(self.spec.horizon_s)
        ledger = self.ledger
        unfinished = 0
        if not drained:
            unfinished = sum(self.made.workload.draw(n).turns for n in range(self.total)) - len(ledger.tasks)
        engines = [engine.core for engine in self.world.engines.values()]
        prefilled = sum(core.stats.prefilled_tokens for core in engines)
        return RunRecord(
            users=self.users,
            conversations=self.total,
            dropped_sessions=self.made.dropped_sessions,
            measured=tuple(sorted((t for t in ledger.tasks if t.number in ledger.measured), key=_order)),
            ttft_s=tuple(ledger.ttft_s),
            prompt_tokens=ledger.prompt_tokens,
            cached_tokens=ledger.cached_tokens,
            regenerated_tokens=max(0, prefilled - ledger.needed_tokens),
            loaded_back_tokens=self._loaded_back_tokens(),
            tasks_per_min=self._tasks_per_min(),
            failures=unfinished if not drained else ledger.failures,
            refusals=ledger.refusals,
            steps=ledger.steps,
            retractions=sum(core.stats.retractions for core in engines),
            unstable=isinstance(self.arrivals, OpenLoop) and grows(self.arrivals.in_system),
            ended_s=self.agenda.now_s,
            useful_kv_share=self._useful_kv_share(),
            service_gap_s=ledger.gap.worst_s if len(self.made.workload.weights) > 1 else None,
            detail=self._detail(),
            prefetches=self.clients.prefetcher.asked,
            busy_shares=self._work.busy_shares,
            done_s=self._work.done_s,
            moves=self._work.moves,
            moved_prefill_s=self._work.moved_prefill_s,
            moved_saved_s=self._work.moved_saved_s,
            begun_elsewhere=self._work.begun_elsewhere,
            shared_loaded_tokens=self._shared_loaded_tokens(),
        )

    def _useful_kv_share(self) -> float:
        """Over the whole run; of the KV bound it says nothing, its capacity has no end."""
        now_s = self.agenda.now_s
        pools = [engine.core.pool for engine in self.world.engines.values()]
        useful_page_s = sum(pool.in_use_page_s(now_s) + pool.reused_page_s for pool in pools)
        return useful_page_s / (now_s * sum(pool.capacity_pages for pool in pools)) if now_s > 0 else 0.0

    def _detail(self) -> Detail | None:
        observer = self.observer
        if observer is None:
            return None
        return Detail(
            workers=tuple(self.world.engines),
            tenants=observer.tenants,
            weights=tuple(self.made.workload.weights.values()),
            kv_tokens=self.kv_tokens,
            samples=tuple(observer.samples),
            shown=observer.shown,
            spans=tuple(observer.spans),
            moves=tuple(self._work.seen),
        )

    def _loaded_back_tokens(self) -> int:
        pools = [engine.core.pool for engine in self.world.engines.values()]
        return sum(pool.host.loaded_pages * pool.page_tokens for pool in pools if pool.host is not None)

    def _shared_loaded_tokens(self) -> int:
        pools = [engine.core.pool for engine in self.world.engines.values()]
        return sum(pool.shared.loaded_pages * pool.page_tokens for pool in pools if pool.shared is not None)

    def _tasks_per_min(self) -> float:
        """While all users were at work after their first task; over the whole run when that is too short."""
        starts = self.arrivals.started_s
        first, last = (starts[self.ledger.measured.start], starts[-1]) if len(starts) == self.total else (0.0, 0.0)
        done = sum(first < task.ended_s <= last for task in self.ledger.tasks)
        if done < 10:
            first, last, done = 0.0, self.agenda.now_s, len(self.ledger.tasks)
        return 60.0 * done / (last - first) if last > first else 0.0


def grows(in_system: list[int]) -> bool:
    """Whether a queue grows throughout: each quarter's mean above the last, and the end twice the second quarter."""
    size = len(in_system) // QUARTERS
    if size == 0:
        return False
    means = [sum(in_system[q * size : (q + 1) * size]) / size for q in range(QUARTERS)]
    return means == sorted(means) and means[3] > 2 * means[1]


def _order(task: TaskRecord) -> tuple[int, int]:
    return task.number, task.turn
