"""The published rules and constants of SAGA (arXiv 2605.00528), as far as they can be read, on our own cores.

Where sources contradict each other, the reading taken is said at its place; `docs/evaluation.md` lists them. Published
and left out: prefetch (its free form knows the future) and live migration of KV (the engine offers none: what is
stolen re-prefills).
"""

from collections.abc import Sequence

from saga.admission.records import Step, Workflow
from saga.contract.ids import RootId, TenantId, WorkerId
from saga.contract.messages import Forecast, StepReady, Tag
from saga.kernel.effects import Decision
from saga.placement.policy import Candidate
from saga.sim.systems.orders import TaskTimes
from saga.worker.retention import Idle

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


class WaLru:
    """Workflow-aware LRU: evict the largest 0.3 idle time + 0.5 (1 - P_reuse) + 0.2 size, within a tool-aware TTL.

    Idle time is over the longest seen so far, size over the largest seen so far, at this worker; P_reuse is the chance
    of a next step times the share of its prompt that is cached. A session past its TTL goes before any that is not
    (the published GPU code; the published Python ignores the TTL here). Pressure m is read from the KV that is
    resident, idle sessions included.
    """

    tags = True
    RECENCY, REUSE, SIZE = 0.3, 0.5, 0.2
    SOFT, HARD = 0.7, 0.9
    CAP_S = 300.0

    def __init__(self) -> None:
        self._longest_s = 1e-3
        self._largest_tokens = 1
        self._last_s = 0.0
        self._recency = 0.0  # of now: time over the longest idle time, summed as both went on

    def keep_s(self, forecast: Forecast | None, idle: Idle) -> Decision[float]:
        """As RetentionPolicy: P95 of the tool's time, less under pressure, at most the cap."""
        if idle.final:
            return Decision(0.0, "final")
        if forecast is None:
            return Decision(self.CAP_S / idle.speed, "cap")
        pressure = min(1.0, max(0.0, (idle.used_share - self.SOFT) / (self.HARD - self.SOFT)))
        return Decision(min(forecast.gap_p95_s * (1.0 - 0.5 * pressure), self.CAP_S / idle.speed), "tool_ttl")

    def value(self, forecast: Forecast | None, idle: Idle) -> float | None:
        """As RetentionPolicy: the score, negated. What idle sessions lose with time they all lose alike, so that a
        later access is a higher value and nothing must be said again."""
        if forecast is None:
            return None
        self._largest_tokens = max(self._largest_tokens, idle.context_tokens)
        self._longest_s = max(self._longest_s, forecast.gap_p50_s)
        self._recency += max(0.0, idle.ended_s - self._last_s) / self._longest_s
        self._last_s = max(self._last_s, idle.ended_s)
        overlap = idle.context_tokens / (idle.context_tokens + max(1.0, forecast.new_tokens))
        reuse = min(1.0, forecast.returns * overlap)
        size = idle.context_tokens / self._largest_tokens
        return self.RECENCY * self._recency - self.REUSE * (1.0 - reuse) - self.SIZE * size


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
