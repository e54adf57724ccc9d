"""Agent Fair Share as published (arXiv 2605.00528), in the place of saga's own fairness: all else is saga.

Every 100 ms each tenant's score is the sum, over its unfinished tasks, of work left over time to deadline; shares are
scores over their sum. No quota was published, so shares order: whoever waits for a place or a slot goes by its tenant's
share, highest first, as they came inside it. Deadline: submission and 1.5 x what the class takes. What becomes of an
overdue task is not in the paper; here as in the authors' code, which divides by a millionth of a second then.
Preemption of running work after 500 ms is left out: it would only let the highest share have its way sooner.
"""

from collections.abc import Iterator

from saga.admission.policy import Claims
from saga.admission.records import Step, Workflow
from saga.admission.seats import Ranked
from saga.contract.ids import RootId, TenantId
from saga.contract.messages import Tag
from saga.sim.systems.orders import TaskTimes

EPOCH_S = 0.1
LEAST_GAP_S = 1e-6


class PublishedShares:
    """Scores of tenants, for the steps of a run (as TagPolicy) and for its active set (`line`)."""

    def __init__(self) -> None:
        self._times = TaskTimes()
        self._tasks: dict[TenantId, dict[RootId, Workflow]] = {}
        self._shares: dict[TenantId, float] = {}
        self._next_epoch_s = 0.0

    def tag(self, workflow: Workflow, step: Step, virtual_start_s: float) -> Tag:  # noqa: ARG002 - another fairness
        self._refresh(step.named_s, workflow)
        return Tag(-self._shares.get(workflow.tenant, 0.0), step.since_s, step.step.step_id)

    def closed(self, workflow: Workflow) -> None:
        """As TagPolicy."""
        self._times.learn(workflow)
        self._tasks.get(workflow.tenant, {}).pop(workflow.root, None)

    def line(self, claims: Claims, now_s: float) -> Iterator[Ranked]:
        """Who waits for a place, highest share first."""
        waiting = [place for place in claims.outside if claims.workflows[place[1]].steps]
        for _, root in waiting:
            self._refresh(now_s, claims.workflows[root])
        return iter(sorted(waiting, key=lambda place: (-self._shares.get(self._tenant(claims, place), 0.0), place)))

    def score(self, tenant: TenantId, now_s: float) -> float:
        """Of its unfinished tasks, those in a tool call included."""
        return sum(
            task.remaining_engine_s / max(LEAST_GAP_S, self._times.deadline_s(task) - now_s)
            for task in self._tasks.get(tenant, {}).values()
        )

    def _refresh(self, now_s: float, seen: Workflow) -> None:
        self._tasks.setdefault(seen.tenant, {})[seen.root] = seen
        if now_s < self._next_epoch_s:
            return
        self._next_epoch_s = now_s + EPOCH_S
        scores = {tenant: self.score(tenant, now_s) for tenant in self._tasks}
        together = sum(scores.values()) or 1.0
        self._shares = {tenant: score / together for tenant, score in scores.items()}

    @staticmethod
    def _tenant(claims: Claims, place: Ranked) -> TenantId:
        return claims.workflows[place[1]].tenant


def by_age(claims: Claims, now_s: float) -> Iterator[Ranked]:  # noqa: ARG001 - age does not change
    """Whoever came first, whose it is is no matter: what saga did before it was fair between tenants."""
    return (place for place in claims.outside if claims.workflows[place[1]].steps)
