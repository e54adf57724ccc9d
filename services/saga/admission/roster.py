"""Admission's books: workflows by age, pools and their KV, and who is active. Decides nothing, says nothing."""

from bisect import bisect_left, insort
from collections.abc import Iterator

from saga.admission.policy import Claimant
from saga.admission.records import Workflow
from saga.contract.ids import PoolId, RootId, WorkerId
from saga.contract.messages import CostModel, WorkerHello
from saga.kernel.steps import StepState


class Pool:
    """The workers of one model, and the workflows that run on them."""

    __slots__ = (
        "active",
        "by_age",
        "claims",
        "cost",
        "expected_tokens",
        "growths",
        "mean_output_tokens",
        "newcomer_tokens",
        "workers",
    )

    def __init__(self) -> None:
        self.workers: dict[WorkerId, WorkerHello] = {}  # those that serve
        self.cost = CostModel()
        self.mean_output_tokens = 256.0  # of its steps; a moving mean
        self.by_age: list[tuple[float, RootId]] = []  # claimants, oldest first
        self.claims: dict[RootId, int] = {}  # tokens, of each claimant
        self.growths: dict[RootId, int] = {}  # tokens beyond its claim, forecast, of each claimant
        self.expected_tokens = 0  # all claims and growths
        self.newcomer_tokens = 0.0  # claim and growth of a workflow after its first step; a moving mean
        self.active: set[RootId] = set()

    @property
    def kv_tokens(self) -> int:
        """KV capacity of the workers that serve."""
        return sum(hello.kv_tokens for hello in self.workers.values())

    @property
    def context_tokens(self) -> int:
        """The longest context that a worker of the pool takes."""
        return max((hello.context_tokens for hello in self.workers.values()), default=0)

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
        claim_tokens = workflow.claim_tokens(now_s)
        growth_tokens = workflow.growth_tokens()
        if not workflow.foretold:  # nobody knows this one yet: it will be like others
            growth_tokens = max(0, int(pool.newcomer_tokens) - claim_tokens)
        if known is None:
            insort(pool.by_age, workflow.age_key)
        else:
            pool.expected_tokens -= known + pool.growths[workflow.root]
        pool.claims[workflow.root] = claim_tokens
        pool.growths[workflow.root] = growth_tokens
        pool.expected_tokens += claim_tokens + growth_tokens

    def remove(self, workflow: Workflow) -> None:
        """The workflow is over."""
        del self.workflows[workflow.root]
        self._leave(self.pool(workflow.pool), workflow)

    def _leave(self, pool: Pool, workflow: Workflow) -> None:
        workflow.active = False
        pool.active.discard(workflow.root)
        known = pool.claims.pop(workflow.root, None)
        if known is not None:
            pool.expected_tokens -= known + pool.growths.pop(workflow.root)
            del pool.by_age[bisect_left(pool.by_age, workflow.age_key)]

    def claimants(self, pool: Pool) -> Iterator[Claimant]:
        """Who has a claim, oldest first."""
        active_after = len(pool.active)
        for _, root in pool.by_age:
            active = root in pool.active
            active_after -= active
            yield Claimant(
                root=root,
                claim_tokens=pool.claims[root],
                growth_tokens=pool.growths[root],
                active=active,
                active_after=active_after,
            )

    def check(self) -> None:
        """Assert what must hold between workflows and pools."""
        for pool in self.pools.values():
            assert pool.by_age == sorted(pool.by_age)
            assert {root for _, root in pool.by_age} == set(pool.claims)
            assert set(pool.growths) == set(pool.claims)
            assert pool.expected_tokens == sum(pool.claims.values()) + sum(pool.growths.values())
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
