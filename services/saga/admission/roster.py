"""Admission's books: workflows by age, pools and their KV, and who is active. Decides nothing, says nothing."""

from bisect import bisect_left, insort
from collections.abc import Iterator

from saga.admission.records import Workflow
from saga.contract.ids import PoolId, RootId, WorkerId
from saga.contract.messages import CostModel, WorkerHello
from saga.kernel.steps import StepState


class Pool:
    """The workers of one model, and the workflows that run on them."""

    __slots__ = ("active", "by_age", "claims", "cost", "mean_output_tokens", "total_claim_tokens", "workers")

    def __init__(self) -> None:
        self.workers: dict[WorkerId, WorkerHello] = {}  # those that serve
        self.cost = CostModel()
        self.mean_output_tokens = 256.0  # of its steps; a moving mean
        self.by_age: list[tuple[float, RootId]] = []  # claimants, oldest first
        self.claims: dict[RootId, int] = {}  # tokens, of each claimant
        self.total_claim_tokens = 0
        self.active: set[RootId] = set()

    @property
    def kv_tokens(self) -> int:
        """KV capacity of the workers that serve."""
        return sum(hello.kv_tokens for hello in self.workers.values())

    @property
    def largest_kv_tokens(self) -> int:
        return max((hello.kv_tokens for hello in self.workers.values()), default=0)


class Roster:
    """All workflows, by root and by age in their pool."""

    def __init__(self) -> None:
        self.workflows: dict[RootId, Workflow] = {}
        self.pools: dict[PoolId, Pool] = {}

    def pool(self, pool_id: PoolId) -> Pool:
        """The pool's books, made when there are none."""
        pool = self.pools.get(pool_id)
        if pool is None:
            pool = self.pools[pool_id] = Pool()
        return pool

    def claim(self, workflow: Workflow, now_s: float) -> None:
        """Count what the workflow needs now. A dormant one needs nothing: it is no claimant and not active."""
        pool = self.pool(workflow.pool)
        known = pool.claims.get(workflow.root)
        if workflow.dormant(now_s):
            self._leave(pool, workflow)
            return
        tokens = workflow.claim_tokens(now_s)
        pool.claims[workflow.root] = tokens
        pool.total_claim_tokens += tokens - (known or 0)
        if known is None:
            insort(pool.by_age, workflow.age_key)

    def remove(self, workflow: Workflow) -> None:
        """The workflow is over."""
        del self.workflows[workflow.root]
        self._leave(self.pool(workflow.pool), workflow)

    def _leave(self, pool: Pool, workflow: Workflow) -> None:
        workflow.active = False
        pool.active.discard(workflow.root)
        known = pool.claims.pop(workflow.root, None)
        if known is not None:
            pool.total_claim_tokens -= known
            del pool.by_age[bisect_left(pool.by_age, workflow.age_key)]

    def oldest_first(self, pool: Pool) -> Iterator[tuple[Workflow, int]]:
        """Claimants and what they need, in tokens."""
        return ((self.workflows[root], pool.claims[root]) for _, root in pool.by_age)

    def check(self) -> None:
        """Assert what must hold between workflows and pools."""
        for pool in self.pools.values():
            assert pool.by_age == sorted(pool.by_age)
            assert {root for _, root in pool.by_age} == set(pool.claims)
            assert pool.total_claim_tokens == sum(pool.claims.values())
            assert pool.active <= set(pool.claims), "who is active has a claim"
        for root, workflow in self.workflows.items():
            assert workflow.active == (root in self.pools[workflow.pool].active)
            for session in workflow.sessions.values():
                live = sum(step.step.session == session.session for step in workflow.steps.values())
                assert session.live_steps == live, f"{root}: {session.session} counts {session.live_steps} of {live}"
            for step in workflow.steps.values():
                assert step.life.live, f"{step.step.step_id} is over and still here"
                held = step.life.state is StepState.WAITING
                assert workflow.active != held, f"{root}: active is {workflow.active}, a step {step.life.state.value}"
