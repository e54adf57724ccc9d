"""Metrics of tasks (root workflows): how long each took, and whether it was on time, by tenant and agent class.

Told by the roster of each workflow that is over; only a leader's word counts, since only it hears of every step. How
many names become labels is bounded: clients choose theirs. Changes nothing in the core.
"""

from typing import Final, Literal

from saga.admission.records import Workflow
from saga.admission.state import AdmissionState
from saga.runtime import metrics

MOST_TENANTS: Final = 16  # that get series of their own, by who came first; all later ones are OTHER
MOST_CLASSES: Final = 8  # of each of these, as well
OTHER: Final = "other"
UNKNOWN: Final = "unknown"  # the class of a workflow whose prompt has no head
TASK_BUCKETS: Final = (1.0, 2.5, 5.0, 10.0, 20.0, 40.0, 80.0, 160.0, 320.0, 640.0, 1_280.0, 3_600.0)
LABELS: Final = ("tenant", "agent_class")

SECONDS: Final = metrics.histogram(
    "saga_task_seconds", "Of tasks that are over: submission to the last sign of life", LABELS, TASK_BUCKETS
)
TASKS: Final = metrics.counter("saga_tasks_total", "Tasks that are over, by what became of them", [*LABELS, "outcome"])

Outcome = Literal["on_time", "late", "no_deadline", "nothing_ran", "taken_over"]


class Names:
    """Which names become labels: the first that come, so that a series never changes its meaning."""

    def __init__(self, most_tenants: int = MOST_TENANTS, most_classes: int = MOST_CLASSES) -> None:
        self._most_tenants = most_tenants
        self._most_classes = most_classes
        self._classes: dict[str, set[str]] = {}

    def of(self, tenant: str, agent_class: str) -> tuple[str, str]:
        """Labels of tenant and class; OTHER for those that came too late."""
        known = self._classes.get(tenant)
        if known is None:
            if len(self._classes) >= self._most_tenants:
                return OTHER, OTHER
            known = self._classes[tenant] = set()
        if agent_class not in known:
            if len(known) >= self._most_classes:
                return tenant, OTHER
            known.add(agent_class)
        return tenant, agent_class or UNKNOWN


class TaskMetrics:
    """Counts the tasks of one admission."""

    def __init__(self, state: AdmissionState) -> None:
        self._state = state
        self._names = Names()
        for outcome in ("on_time", "late"):  # so that shares of these are 0 and not absent before the first task
            TASKS.labels(OTHER, OTHER, outcome)
        SECONDS.labels(OTHER, OTHER)
        state.roster.over = self.over
        overheads = state.book.overheads
        metrics.counts(
            "saga_prompt_tokens_total",
            "Of prompts of finished steps: found cached, prefilled first (new), prefilled again (regenerated)",
            "prefill",
            lambda: overheads.prompt_tokens,
        )
        metrics.counts(
            "saga_regenerated_tokens_total",
            "Of prompts of finished steps: prefilled again, by why they were gone",
            "cause",
            lambda: overheads.regenerated_tokens,
        )

    def over(self, workflow: Workflow) -> None:
        """One has left the books."""
        if not self._state.leading:
            return
        labels = self._names.of(workflow.tenant, workflow.agent_class)
        outcome = outcome_of(workflow)
        TASKS.labels(*labels, outcome).inc()
        if outcome not in ("nothing_ran", "taken_over"):
            SECONDS.labels(*labels).observe(taken_s(workflow))


def taken_s(workflow: Workflow) -> float:
    """From submission to its last sign of life."""
    return max(0.0, workflow.last_sign_s - workflow.submitted_s)


def outcome_of(workflow: Workflow) -> Outcome:
    """What became of it. Its deadline: the client's, or what `expectations.py` held for usual when it began."""
    if workflow.served_s <= 0.0:
        return "nothing_ran"
    if workflow.unseen:
        return "taken_over"
    if workflow.deadline_s <= 0.0:
        return "no_deadline"
    return "on_time" if taken_s(workflow) <= workflow.deadline_s else "late"
