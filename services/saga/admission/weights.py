"""Weights of tenants: what each is guaranteed, and by how much urgency raises it.

Urgency is the published sum over a tenant's unfinished tasks of work left over time to deadline, here per engine of
their pool: the share of the pool that it would take to be on time. It raises a weight to twice the guaranteed one at
most. Deadlines cannot buy more: an overdue task counts nothing, nor does one that would be late at twice the tenant's
share, with those that are due before it or overdue; and a task needs at least the time that its own work and its own
tool calls take, whatever deadline it names. So a flood is not urgent for being large. Called by `fairness.py` and
`turns.py`.
"""

from bisect import bisect_right, insort
from collections.abc import Callable
from itertools import islice

from saga.admission.records import Workflow
from saga.contract.ids import RootId, TenantId

MOST_RAISED = 1.0  # by urgency, of the guaranteed weight
REFRESH_S = 1.0  # a tenant's urgency is worked out anew after this, when it is next charged
NEAREST = 64  # of a tenant's deadlines looked at: later ones add little, and left out they only lower the weight

Due = tuple[float, RootId]
Left = Callable[[Workflow], tuple[float, float]]


def _nothing_left(_: Workflow) -> tuple[float, float]:
    return 0.0, 0.0


class Weights:
    """Guaranteed and present weights, and the deadlines that they follow."""

    def __init__(self, left: Left = _nothing_left) -> None:
        """`left`: of a workflow, the share of its pool's engine-seconds that are still to come, and the seconds that
        it needs for them at least."""
        self.now_s = 0.0  # as last told
        self._left = left
        self._guaranteed: dict[TenantId, float] = {}
        self._raised: dict[TenantId, tuple[float, float]] = {}  # by which share, and when that was worked out
        self._due: dict[TenantId, list[Due]] = {}
        self._workflows: dict[RootId, tuple[float, Workflow]] = {}
        self._together = 0.0  # guaranteed to those with deadlines

    def guarantee(self, tenant: TenantId, weight: float) -> None:
        """What the tenant has without urgency. Positive and finite."""
        if not 0.0 < weight < float("inf"):
            raise ValueError(f"weight of tenant {tenant} must be positive, not {weight}")
        if tenant in self._due:
            self._together += weight - self.guaranteed(tenant)
        self._guaranteed[tenant] = weight

    def guaranteed(self, tenant: TenantId) -> float:
        """1, if nobody said otherwise."""
        return self._guaranteed.get(tenant, 1.0)

    def of(self, tenant: TenantId) -> float:
        """The present weight: from the guaranteed one to twice that."""
        guaranteed = self._guaranteed.get(tenant, 1.0)
        if tenant not in self._due:
            return guaranteed
        raised, at_s = self._raised.get(tenant, (0.0, float("-inf")))
        if self.now_s - at_s >= REFRESH_S:
            raised = min(MOST_RAISED, self.urgency(tenant))
            self._raised[tenant] = raised, self.now_s
        return guaranteed * (1.0 + raised)

    def urgency(self, tenant: TenantId) -> float:
        """Worked out now, of the tasks that are due next."""
        due = self._due.get(tenant, [])
        first = bisect_right(due, (self.now_s, RootId("\U0010ffff")))
        total, before = 0.0, self._overdue_work(due[:first])
        most = (1.0 + MOST_RAISED) * self.guaranteed(tenant) / max(self._together, 1e-9)  # of the pool
        for deadline_s, root in islice(due, first, first + NEAREST):
            work, least_s = self._left(self._workflows[root][1])
            time_s = max(deadline_s - self.now_s, least_s, 1e-9)
            if before + work <= min(1.0, most) * time_s:
                before += work
                total += work / time_s
        return total

    def _overdue_work(self, due: list[Due]) -> float:
        """Work left of what is late already. It is older, so it goes first, and delays what could still be on time: who
        has a backlog of overdue tasks has nothing that a larger share would rescue."""
        latest = due[-NEAREST:]
        work = sum(self._left(self._workflows[root][1])[0] for _, root in latest)
        return work * len(due) / len(latest) if latest else 0.0

    def begun(self, workflow: Workflow) -> None:
        """A workflow with a deadline, which from now on does not change. One without has no urgency."""
        if workflow.deadline_s <= 0.0 or workflow.root in self._workflows:
            return
        deadline_s = workflow.submitted_s + workflow.deadline_s
        self._workflows[workflow.root] = deadline_s, workflow
        if workflow.tenant not in self._due:
            self._due[workflow.tenant] = []
            self._together += self.guaranteed(workflow.tenant)
        insort(self._due[workflow.tenant], (deadline_s, workflow.root))

    def over(self, workflow: Workflow) -> None:
        """Forget it."""
        known = self._workflows.pop(workflow.root, None)
        if known is None:
            return
        due = self._due[workflow.tenant]
        del due[bisect_right(due, (known[0], workflow.root)) - 1]
        if not due:
            del self._due[workflow.tenant]
            self._together -= self.guaranteed(workflow.tenant)
            self._raised.pop(workflow.tenant, None)
