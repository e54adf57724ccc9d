"""Admission's books: workflows by rank and in turn, pools and their KV, and who is active. Says nothing."""

from bisect import bisect_left, insort
from collections.abc import Callable, Iterator
from heapq import merge

from saga.admission.expectations import Expectations
from saga.admission.leeway import Cycle
from saga.admission.needs import NO_GROWTH, Tokens, minus, plus, room_tokens
from saga.admission.outputs import OutputLengths
from saga.admission.policy import Claimant
from saga.admission.ranks import Rank
from saga.admission.records import Session, Workflow
from saga.admission.seats import Ranked, Seats
from saga.admission.tenant_books import TenantBooks
from saga.admission.turns import WAIT_BOUND_S, Turns
from saga.admission.weights import Weights
from saga.contract.ids import NO_WORKER, PoolId, RootId, WorkerId
from saga.contract.messages import CostModel, StepReady, WorkerHello
from saga.kernel.steps import StepState

MOST_TOLD = 20  # tenants named in a metric
NEWCOMER_WEIGHT = 0.05  # of one workflow in the moving mean of what newcomers will need


class Pool:
    """The workers of one model, and the workflows that run on them."""

    __slots__ = (
        "active",
        "active_tokens",
        "context_tokens",
        "cost",
        "cycle",
        "inside",
        "kv_tokens",
        "largest_kv_tokens",
        "largest_room_tokens",
        "lost_s",
        "needs",
        "newcomer_engine_s",
        "newcomer_tokens",
        "outputs",
        "outside",
        "pool_id",
        "promised",
        "rank",
        "seats",
        "shared_tokens",
        "spent_s",
        "together_tokens",
        "turns",
        "workers",
        "workflows",
    )

    def __init__(self, pool_id: PoolId, workflows: dict[RootId, Workflow], turns: Turns) -> None:
        self.pool_id = pool_id
        self.workflows = workflows  # of all pools
        self.turns = turns  # of those outside
        self.workers: dict[WorkerId, WorkerHello] = {}  # those that serve
        self.kv_tokens = 0  # KV that those keep, in the larger of their tiers
        self.largest_kv_tokens = 0  # on the device of one of them
        self.largest_room_tokens = 0  # in the larger tier of one of them
        self.context_tokens = 0  # the longest context that one of them takes
        self.cost = CostModel()
        self.outputs = OutputLengths()
        self.cycle = Cycle()
        self.inside: list[Ranked] = []  # claimants that are active, in the order of their rank
        self.outside: list[Ranked] = []  # the others
        self.rank: dict[RootId, float] = {}  # of each claimant
        self.needs: dict[RootId, Tokens] = {}  # of each claimant
        self.together_tokens = NO_GROWTH  # needs of all claimants
        self.active_tokens = NO_GROWTH  # needs of the active ones
        self.newcomer_tokens: tuple[float, ...] = ()  # needs of a workflow after its first step; a moving mean
        self.newcomer_engine_s = 0.0  # forecast work of a workflow after its first step; a moving mean
        self.active: set[RootId] = set()
        self.seats = Seats()
        # To those that fit nowhere yet: nobody joins these first. None: sessions begin where their workflow is bound.
        self.promised: frozenset[WorkerId] | None = None
        self.shared_tokens = 0.0  # found in cache by a session that begins, a moving mean
        self.spent_s = 0.0  # by its engines on steps that have ended, so far; modelled
        self.lost_s = 0.0  # of that, on prefilling what sessions had there and had a claim to

    def serves(self, hello: WorkerHello) -> bool:
        """A worker serves. Whether this changes what the pool can do."""
        known = self.workers.get(hello.worker_id)
        self.workers[hello.worker_id] = hello
        self.cost = hello.cost
        if known is not None and _capacity(known) == _capacity(hello):
            return False
        self._count()
        self.seats.changed[hello.worker_id] = None
        if known is None:
            self._reseat(NO_WORKER)
        return True

    def gone(self, worker_id: WorkerId) -> bool:
        """A worker serves no more, and nobody is bound to it. Whether it did."""
        known = self.workers.pop(worker_id, None)
        if known is None:
            return False
        self._count()
        for _, root in self.seats.at(worker_id).members:
            self.workflows[root].bound = NO_WORKER
        self._reseat(worker_id)
        return True

    def seat(self, workflow: Workflow) -> None:
        """Let an active claimant sit where it is bound to, or else where most of its KV is."""
        bound = workflow.bound in self.workers
        worker_id = workflow.bound if bound else workflow.kv_home(self.workers)
        self.seats.put(workflow.root, worker_id, self.rank[workflow.root], self.needs[workflow.root])

    def _reseat(self, worker_id: WorkerId) -> None:
        for _, root in tuple(self.seats.at(worker_id).members):
            self.seat(self.workflows[root])

    def _count(self) -> None:
        rooms = [room_tokens(hello) for hello in self.workers.values()]
        self.kv_tokens, self.largest_room_tokens = sum(rooms), max(rooms, default=0)
        self.largest_kv_tokens = max((hello.kv_tokens for hello in self.workers.values()), default=0)
        self.context_tokens = max((hello.context_tokens for hello in self.workers.values()), default=0)

    def learn_shared(self, tokens: int) -> None:
        """A session has begun, and found so much in cache."""
        self.shared_tokens += NEWCOMER_WEIGHT * (tokens - self.shared_tokens)

    def learn_newcomer(self, session: Session) -> None:
        """A workflow's first forecast: what newcomers are to be expected to need."""
        needs = [max(0, session.context_tokens - session.shared_tokens) + change for change in session.growth_tokens]
        means = self.newcomer_tokens or needs
        if not self.newcomer_tokens:
            self.newcomer_engine_s = session.remaining_engine_s
        self.newcomer_tokens = tuple(m + NEWCOMER_WEIGHT * (n - m) for m, n in zip(means, needs, strict=True))
        self.newcomer_engine_s += NEWCOMER_WEIGHT * (session.remaining_engine_s - self.newcomer_engine_s)

    def ranked(self) -> Iterator[Claimant]:
        """All claimants in the order of their rank."""
        active_after = len(self.active)
        for _, root in merge(self.inside, self.outside):
            active = root in self.active
            active_after -= active
            yield Claimant(root=root, needs_tokens=self.needs[root], active=active, active_after=active_after)


def _capacity(hello: WorkerHello) -> tuple[int, int, int]:
    return hello.kv_tokens, room_tokens(hello), hello.context_tokens


class Roster:
    """All workflows, by root and by rank in their pool. `wait_bound_s`: of tenants with nobody inside."""

    def __init__(self, rank: Rank, wait_bound_s: float = WAIT_BOUND_S) -> None:
        self.workflows: dict[RootId, Workflow] = {}
        self.pools: dict[PoolId, Pool] = {}
        self.expectations = Expectations()
        self.weights = Weights(self._left)
        self.tenants = TenantBooks()
        self.told: Callable[[Workflow, str], None] | None = None  # who wants to know of who joins and leaves
        self.over: Callable[[Workflow], None] | None = None  # who wants to know of who is over
        self._rank = rank
        self._wait_bound_s = wait_bound_s

    def pool(self, pool_id: PoolId) -> Pool:
        """The pool's books, made when there are none."""
        pool = self.pools.get(pool_id)
        if pool is None:
            turns = Turns(self.workflows, self.weights, self.expectations.work_left_s, self._wait_bound_s)
            pool = self.pools[pool_id] = Pool(pool_id, self.workflows, turns)
        return pool

    def begin(self, ready: StepReady, submitted_s: float) -> Workflow:
        """A new workflow. Its deadline is fixed now: the client's, or by what its class takes."""
        workflow = Workflow(ready, submitted_s)
        workflow.deadline_s = workflow.deadline_s or self.expectations.deadline_s(workflow)
        self.add(workflow)
        return workflow

    def add(self, workflow: Workflow) -> None:
        """A workflow that is new here."""
        self.workflows[workflow.root] = workflow
        self.tenants.known(workflow, 1)
        self.weights.begun(workflow)
        self.pool(workflow.pool)

    def furthest_ahead_s(self) -> dict[str, float]:
        """Of tenants with a workflow in line, by how much each was charged more than the least of them in its pool.

        The furthest ones only: there may be many tenants.
        """
        ahead: dict[str, float] = {}
        for pool in tuple(self.pools.values()):
            for tenant, ahead_s in pool.turns.ahead_s(MOST_TOLD).items():
                ahead[tenant] = max(ahead_s, ahead.get(tenant, 0.0))
        furthest = sorted(ahead, key=lambda tenant: (-ahead[tenant], tenant))[:MOST_TOLD]
        return {tenant: ahead[tenant] for tenant in furthest}

    def _left(self, workflow: Workflow) -> tuple[float, float]:
        work_s = self.expectations.work_left_s(workflow)
        workers = max(1, len(self.pool(workflow.pool).workers))
        return work_s / workers, self.expectations.seconds_left(workflow, work_s)

    def claim(self, workflow: Workflow, now_s: float) -> None:
        """Count what the workflow needs now. A dormant one needs nothing: it is no claimant and not active. Nor is one
        that is over its tenant's quotas."""
        pool = self.pool(workflow.pool)
        self.weights.now_s = max(self.weights.now_s, now_s)
        pool.turns.at(now_s)
        if workflow.dormant(now_s):
            self._leave(pool, workflow)
            return
        if workflow.root not in pool.needs and not self.tenants.stands(workflow):
            return
        workflow.newcomer_shared = int(pool.shared_tokens)
        needs = workflow.needs_tokens(now_s)
        if not workflow.foretold and pool.newcomer_tokens:  # nobody knows this one yet: it will be like others
            workflow.remaining_engine_s = pool.newcomer_engine_s
            needs = (
                needs[0],
                *(max(n, int(mean)) for n, mean in zip(needs[1:], pool.newcomer_tokens[1:], strict=True)),
            )
        root = workflow.root
        known = pool.needs.get(root)
        if known is None:
            rank = pool.rank[root] = self._place(workflow)
            insort(pool.outside, (rank, root))
        else:
            self.rank(workflow)
            pool.together_tokens = minus(pool.together_tokens, known)
            if root in pool.active:
                pool.active_tokens = minus(pool.active_tokens, known)
        pool.needs[root] = needs
        pool.together_tokens = plus(pool.together_tokens, needs)
        if root in pool.active:
            pool.active_tokens = plus(pool.active_tokens, needs)
            pool.seat(workflow)
            pool.turns.expects(root, workflow.tenant)
            self._keep(pool, workflow)
        elif workflow.steps:
            pool.turns.waits((pool.rank[root], root), workflow.tenant)
        else:
            pool.turns.leaves((pool.rank[root], root), workflow.tenant)

    def _keep(self, pool: Pool, workflow: Workflow) -> None:
        """Tell its tenant's book what an active workflow keeps beside its steps."""
        steps_tokens = sum(step.claim_tokens - workflow.shared_tokens(step) for step in workflow.steps.values())
        self.tenants.keeps(workflow, pool.needs[workflow.root][0] - steps_tokens)

    def rank(self, workflow: Workflow) -> None:
        """What is known of the workflow has changed: so may its place among the claimants."""
        pool, root = self.pool(workflow.pool), workflow.root
        known = pool.rank.get(root)
        if known is None:
            return
        rank = self._place(workflow)
        active = root in pool.active
        if active:
            pool.turns.expects(root, workflow.tenant)
        if rank != known:
            pool.turns.leaves((known, root), workflow.tenant)
            if not active and workflow.steps:
                pool.turns.waits((rank, root), workflow.tenant)
            ranked = pool.inside if active else pool.outside
            del ranked[bisect_left(ranked, (known, root))]
            insort(ranked, (rank, root))
            pool.rank[root] = rank
            if active:
                pool.seat(workflow)

    def _place(self, workflow: Workflow) -> float:
        return self._rank.of(workflow, self.expectations.of(workflow))

    def activate(self, workflow: Workflow) -> None:
        """The workflow, a claimant, is in the set."""
        pool, root = self.pool(workflow.pool), workflow.root
        if root in pool.active:
            return
        workflow.active = True
        pool.active.add(root)
        place = (pool.rank[root], root)
        del pool.outside[bisect_left(pool.outside, place)]
        insort(pool.inside, place)
        pool.active_tokens = plus(pool.active_tokens, pool.needs[root])
        pool.turns.joins(place, workflow.tenant)
        pool.seat(workflow)
        self.tenants.joined(workflow)
        self._keep(pool, workflow)
        if self.told is not None:
            self.told(workflow, "joined")

    def moved(self, workflow: Workflow) -> None:
        """Its KV is elsewhere now: one that is bound is so to where most of it is."""
        pool = self.pool(workflow.pool)
        if workflow.root not in pool.active:
            return
        if workflow.bound:
            workflow.bound = workflow.kv_home(pool.workers) or workflow.bound
        pool.seat(workflow)

    def pause(self, workflow: Workflow) -> None:
        """The workflow is out of the set, and still a claimant."""
        pool, root = self.pool(workflow.pool), workflow.root
        if root not in pool.active:
            return
        if self.told is not None:
            self.told(workflow, "left")
        workflow.active = False
        workflow.bound = NO_WORKER
        pool.active.discard(root)
        place = (pool.rank[root], root)
        del pool.inside[bisect_left(pool.inside, place)]
        insort(pool.outside, place)
        pool.active_tokens = minus(pool.active_tokens, pool.needs[root])
        pool.seats.remove(root)
        pool.turns.left(root, workflow.tenant)
        if workflow.steps:
            pool.turns.waits(place, workflow.tenant)
        self.tenants.paused(workflow)

    def bench(self, workflow: Workflow) -> None:
        """The workflow is no claimant for now, since it is over its tenant's quotas."""
        self._leave(self.pool(workflow.pool), workflow)
        if workflow.steps:
            self.tenants.bench(workflow)

    def remove(self, workflow: Workflow) -> None:
        """The workflow is over."""
        self._leave(self.pool(workflow.pool), workflow)
        del self.workflows[workflow.root]
        self.weights.over(workflow)
        self.expectations.learn(workflow)
        self.tenants.known(workflow, -1)
        if self.over is not None:
            self.over(workflow)

    def _leave(self, pool: Pool, workflow: Workflow) -> None:
        self.pause(workflow)
        workflow.active = False
        known = pool.needs.pop(workflow.root, None)
        if known is not None:
            pool.together_tokens = minus(pool.together_tokens, known)
            place = (pool.rank.pop(workflow.root), workflow.root)
            del pool.outside[bisect_left(pool.outside, place)]
            pool.turns.leaves(place, workflow.tenant)
        self.tenants.left(workflow)

    def check(self) -> None:
        """Assert what must hold between workflows and pools."""
        for pool in self.pools.values():
            assert pool.inside == sorted(pool.inside)
            assert pool.outside == sorted(pool.outside)
            assert {root: rank for rank, root in (*pool.inside, *pool.outside)} == pool.rank
            assert set(pool.rank) == set(pool.needs)
            assert {root for _, root in pool.inside} == pool.active
            together, active = NO_GROWTH, NO_GROWTH
            for root, needs in pool.needs.items():
                together = plus(together, needs)
                active = plus(active, needs) if root in pool.active else active
            assert pool.together_tokens == together
            assert pool.active_tokens == active
            assert pool.active <= set(pool.needs), "who is active has a claim"
            assert pool.seats.roots == pool.active
            pool.seats.check(pool.needs, pool.rank)
            assert pool.turns.waiting == {root for _, root in pool.outside if self.workflows[root].steps}
            pool.turns.check()
            for root in pool.active:
                bound = self.workflows[root].bound
                assert bound not in pool.workers or bound == pool.seats.of(root), f"{root}: bound to {bound}"
        for root, workflow in self.workflows.items():
            assert workflow.active == (root in self.pools[workflow.pool].active)
            for session in workflow.sessions.values():
                live = sum(step.step.session == session.session for step in workflow.steps.values())
                assert session.live_steps == live, f"{root}: {session.session} counts {session.live_steps} of {live}"
            for step in workflow.steps.values():
                assert step.life.live, f"{step.step.step_id} is over and still here"
                waits = step.life.state is StepState.WAITING
                held = waits and self.tenants.of(workflow.tenant).holds(step.step.step_id)
                told = f"{root}: active is {workflow.active}, a step {step.life.state.value}"
                assert workflow.active != (waits and not held), told
        self.tenants.check(self.workflows, lambda w: w.root in self.pools[w.pool].needs)
