"""The published rules and constants of SAGA (arXiv 2605.00528), as far as they can be read, on our own cores.

Where sources contradict each other, the reading taken is said at its place; `docs/evaluation.md` lists them. Published
and left out: prefetch (its free form knows the future) and live migration of KV (the engine offers none: what is
stolen re-prefills). Its retention is the worker agents' policy `paper`.
"""

from collections.abc import Sequence

from saga.admission.records import Step, Workflow
from saga.contract.ids import RootId, TenantId, WorkerId
from saga.contract.messages import StepReady, Tag
from saga.kernel.effects import Decision
from saga.placement.candidate import Candidate
from saga.sim.systems.orders import TaskTimes

BATCH = 32  # requests that keep an engine busy: the published documents speak of about so many


class ThetaAffinity:
    """Home while its load is below theta, else the least loaded worker, which becomes the home.

    Load: half utilization, half memory, a hundredth for each waiting request. Utilization is read as running requests
    over a full batch, memory as the KV that running requests hold; the published code never writes the one and
    averages the other over its lifetime.
    """

    engine_queues = False
    stays_home = False

    def __init__(self, theta: float = 0.8) -> None:
        self._theta = theta

    def choose(self, step: StepReady, candidates: Sequence[Candidate]) -> Decision[WorkerId]:  # noqa: ARG002 - the step has no say
        home = next((c for c in candidates if c.is_home), None)
        if home is not None and load(home) < self._theta:
            return Decision(home.worker_id, "home")
        best = min(candidates, key=lambda c: (load(c), c.homed_sessions, c.worker_id))
        return Decision(best.worker_id, "home" if best is home else "least_loaded")


def load(c: Candidate) -> float:
    """Of a worker: about 1 when it can take no more."""
    return 0.5 * min(1.0, c.leases / BATCH) + 0.5 * c.leased_tokens / c.kv_tokens + 0.01 * c.queued_steps


class AgentFairShare:
    """Urgency of tenants: work left over time to deadline, summed over a tenant's unfinished tasks, every 100 ms.

    Shares order the steps that wait, as the published "hybrid" queue does: sessions that have a cache before those that
    start, the most urgent tenant first, as they came inside it; no quota was published. Whether the cache is still
    there is not known here. Work left is what the graph forecasts; an overdue task counts with the least slack.
    """

    EPOCH_S = 0.1
    LEAST_SLACK_S = 1.0

    def __init__(self) -> None:
        self._times = TaskTimes()
        self._tasks: dict[TenantId, dict[RootId, Workflow]] = {}
        self._shares: dict[TenantId, float] = {}
        self._next_epoch_s = 0.0

    def tag(self, workflow: Workflow, step: Step, virtual_start_s: float) -> Tag:  # noqa: ARG002 - another fairness
        self._tasks.setdefault(workflow.tenant, {})[workflow.root] = workflow
        now_s = step.named_s
        if now_s >= self._next_epoch_s:
            self._next_epoch_s = now_s + self.EPOCH_S
            urgency = {tenant: self._urgency(tasks, now_s) for tenant, tasks in self._tasks.items()}
            together = sum(urgency.values()) or 1.0
            self._shares = {tenant: value / together for tenant, value in urgency.items()}
        starts = 0.0 if workflow.sessions[step.step.session].home else 1.0
        return Tag(starts - 0.5 * self._shares.get(workflow.tenant, 0.0), step.since_s, step.step.step_id)

    def _urgency(self, tasks: dict[RootId, Workflow], now_s: float) -> float:
        return sum(
            task.remaining_engine_s / max(self.LEAST_SLACK_S, self._times.deadline_s(task) - now_s)
            for task in tasks.values()
        )

    def closed(self, workflow: Workflow) -> None:
        """As TagPolicy."""
        self._times.learn(workflow)
        self._tasks.get(workflow.tenant, {}).pop(workflow.root, None)
