"""In what order steps start, other than saga's own rule. Ranks of workflows serve the active set and tags alike.

None knows how long a task will be: what is expected of it is the mean of its class, or what the graph forecasts.
"""

from collections.abc import Callable
from math import log2

from saga.admission.expectations import Means
from saga.admission.records import Step, Workflow
from saga.contract.ids import TenantId
from saga.contract.messages import Tag

SLO = 1.5  # a task is on time within so many times what is expected of its class
MEAN_WEIGHT = 0.05  # of one task in the moving mean of its class

AgentClass = tuple[TenantId, str]


class TaskTimes:
    """Mean completion time of each agent class, learnt from workflows that are over."""

    def __init__(self) -> None:
        self._mean_s: dict[AgentClass, float] = {}
        self._any_s = 0.0  # of all classes, for one that nobody has finished yet

    def learn(self, workflow: Workflow) -> None:
        """The workflow is over."""
        took_s = workflow.last_sign_s - workflow.submitted_s
        key = (workflow.tenant, workflow.agent_class)
        mean_s = self._mean_s.setdefault(key, took_s)
        self._mean_s[key] = mean_s + MEAN_WEIGHT * (took_s - mean_s)
        self._any_s = (self._any_s or took_s) + MEAN_WEIGHT * (took_s - (self._any_s or took_s))

    def deadline_s(self, workflow: Workflow) -> float:
        """When the workflow should be over: submission and 1.5 x what its class takes. Before anything is learnt, all
        deadlines are due at submission: first come, first served."""
        expected_s = self._mean_s.get((workflow.tenant, workflow.agent_class), self._any_s)
        return workflow.submitted_s + SLO * expected_s


class By:
    """A rank of workflows, for the active set, that looks at nothing else."""

    def __init__(self, value: Callable[[Workflow], float]) -> None:
        self._value = value

    def of(self, workflow: Workflow, expected: Means) -> float:  # noqa: ARG002 - as it says
        """As Rank."""
        return self._value(workflow)


class ByRank:
    """Steps in the order of a rank of their workflows. `learn`: told of workflows that are over."""

    def __init__(self, rank: Callable[[Workflow], float], learn: Callable[[Workflow], None] = lambda _: None) -> None:
        self._rank = rank
        self._learn = learn

    def tag(self, workflow: Workflow, step: Step, virtual_start_s: float) -> Tag:  # noqa: ARG002 - the rank alone
        return Tag(self._rank(workflow), workflow.submitted_s, step.step.step_id)

    def closed(self, workflow: Workflow) -> None:
        """As TagPolicy."""
        self._learn(workflow)


class LeastAttainedSteps:
    """Program-level least attained service: the fewer engine-seconds a workflow has had, the sooner its next step.

    In levels that double, first come first served inside one, so that workflows alike do not take turns at every step.
    """

    def __init__(self, first_level_s: float) -> None:
        """`first_level_s`: modelled engine-seconds that the highest level spans."""
        self._first_level_s = first_level_s

    def tag(self, workflow: Workflow, step: Step, virtual_start_s: float) -> Tag:  # noqa: ARG002 - one queue for all
        level = int(log2(1.0 + workflow.served_s / self._first_level_s))
        return Tag(float(level), step.since_s, step.step.step_id)

    def closed(self, workflow: Workflow) -> None:
        """Nothing to learn."""
