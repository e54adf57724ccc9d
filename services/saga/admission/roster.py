"""Admission's books: workflows by age, pools and their KV, and who is active. Decides nothing, says nothing."""

from bisect import bisect_left, insort
from collections.abc import Iterator

from saga.admission.needs import NO_GROWTH, Tokens, minus, plus
from saga.admission.policy import Claimant
from saga.admission.records import Session, Workflow
from saga.contract.ids import PoolId, RootId, WorkerId
from saga.contract.messages import CostModel, WorkerHello
from saga.kernel.steps import StepState

NEWCOMER_WEIGHT = 0.05  # of one workflow in the moving mean of what newcomers will need


class Pool:
    """The workers of one model, and the workflows that run on them."""

    __slots__ = (
        "active",
        "by_age",
        "cost",
        "mean_output_tokens",
        "needs",
        "newcomer_tokens",
        "together_tokens",
        "workers",
    )

    def __init__(self) -> None:
        self.workers: dict[WorkerId, WorkerHello] = {}  # those that serve
        self.cost = CostModel()
        self.mean_output_tokens = 256.0  # of its steps; a moving mean
        self.by_age: list[tuple[float, RootId]] = []  # claimants, oldest first
        self.needs: dict[RootId, Tokens] = {}  # of each claimant
        self.together_tokens = NO_GROWTH  # needs of all claimants
        self.newcomer_tokens: tuple[float, ...] = ()  # needs of a workflow after its first step; a moving mean
        self.active: set[RootId] = set()

    @property
    def kv_tokens(self) -> int:
        """KV capacity of the workers that serve."""
        return sum(hello.kv_tokens for hello in self.workers.values())

    def learn_newcomer(self, session: Session) -> None:
        """A workflow's first forecast: what newcomers are to be expected to need."""
        needs = [session.context_tokens + change for change in session.growth_tokens]
        means = self.newcomer_tokens or needs
        self.newcomer_tokens = tuple(m + NEWCOMER_WEIGHT * (n - m) for m, n in zip(means, needs, strict=True))

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
        if workflow.dormant(now_s):
            self._leave(pool, workflow)
            return
        needs = workflow.needs_tokens(now_s)
        if not workflow.foretold and pool.newcomer_tokens:  # nobody knows this one yet: it will be like others
            needs = (
                needs[0],
                *(max(n, int(mean)) for n, mean in zip(needs[1:], pool.newcomer_tokens[1:], strict=True)),
            )
        known = pool.needs.get(workflow.root)
        if known is None:
            insort(pool.by_age, workflow.age_key)
        else:
            pool.together_tokens = minus(pool.together_tokens, known)
        pool.needs[workflow.root] = needs
        pool.together_tokens = plus(pool.together_tokens, needs)

    def remove(self, workflow: Workflow) -> None:
        """The workflow is over."""
        del self.workflows[workflow.root]
        self._leave(self.pool(workflow.pool), workflow)

    def _leave(self, pool: Pool, workflow: Workflow) -> None:
        workflow.active = False
        pool.active.discard(workflow.root)
        known = pool.needs.pop(workflow.root, None)
        if known is not None:
            pool.together_tokens = minus(pool.together_tokens, known)
            del pool.by_age[bisect_left(pool.by_age, workflow.age_key)]

    def claimants(self, pool: Pool) -> Iterator[Claimant]:
        """Who has a claim, oldest first."""
        active_after = len(pool.active)
        for _, root in pool.by_age:
            active = root in pool.active
            active_after -= active
            yield Claimant(
                root=root,
                needs_tokens=pool.needs[root],
                active=active,
                active_after=active_after,
            )

    def check(self) -> None:
        """Assert what must hold between workflows and pools."""
        for pool in self.pools.values():
            assert pool.by_age == sorted(pool.by_age)
            assert {root for _, root in pool.by_age} == set(pool.needs)
            together = NO_GROWTH
            for needs in pool.needs.values():
                together = plus(together, needs)
            assert pool.together_tokens == together
            assert pool.active <= set(pool.needs), "who is active has a claim"
        for root, workflow in self.workflows.items():
            assert workflow.active == (root in self.pools[workflow.pool].active)
            for session in workflow.sessions.values():
                live = sum(step.step.session == session.session for step in workflow.steps.values())
                assert session.live_steps == live, f"{root}: {session.session} counts {session.live_steps} of {live}"
            for step in workflow.steps.values():
                assert step.life.live, f"{step.step.step_id} is over and still here"
                held = step.life.state is StepState.WAITING
                assert workflow.active != held, f"{root}: active is {workflow.active}, a step {step.life.state.value}"
