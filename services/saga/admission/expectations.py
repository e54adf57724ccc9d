"""What workflows of a class take, learnt from those that are over: how long, and how much work.

Causal: a workflow is taken in when it is over, or seems to be: each session has answered without calling a tool, and
stays away for longer than forecast. Hardly any client says when it is done, and silence proves it only after an hour,
which is too long to know nothing for. Should it come back, what was taken in is corrected when it next falls silent.
Where a class has nothing to tell its tenant does, then all. Called by `roster.py`: deadlines of workflows that name
none, and work left; by `gaps.py` of those that seem to be over.
"""

from collections import OrderedDict

import msgspec

from saga.admission.records import Workflow
from saga.contract.ids import TenantId

SLO = 1.5  # a task is on time within so many times what its class takes
MEAN_WEIGHT = 0.05  # of one workflow in a moving mean, once there have been twenty
MOST_CLASSES = 10_000  # those that ended longest ago are forgotten first
UNKNOWN_WORK_S = 1.0  # while nobody has finished anything: any number above 0 lets tenants take turns

Key = tuple[TenantId, str] | tuple[TenantId] | tuple[()]


class Means(msgspec.Struct, gc=False):
    """Moving means over workflows."""

    seconds: float = 0.0  # submission to last answer
    work_s: float = 0.0  # modelled engine-seconds
    samples: int = 0

    def learn(self, seconds: float, work_s: float) -> None:
        """One more. The first ones weigh alike."""
        self.samples += 1
        weight = max(MEAN_WEIGHT, 1.0 / self.samples)
        self.seconds += weight * (seconds - self.seconds)
        self.work_s += weight * (work_s - self.work_s)

    def correct(self, seconds: float, work_s: float) -> None:
        """One of those learnt has turned out to take so much more. With its weight as if it were the last."""
        weight = max(MEAN_WEIGHT, 1.0 / max(1, self.samples))
        self.seconds += weight * seconds
        self.work_s += weight * work_s


class Expectations:
    """Means by class, by tenant and of all."""

    def __init__(self) -> None:
        self._means: OrderedDict[Key, Means] = OrderedDict()

    def learn(self, workflow: Workflow) -> None:
        """The workflow is over, or seems to be."""
        if workflow.served_s <= 0.0:
            return  # nothing of it ran
        seconds = max(0.0, workflow.last_sign_s - workflow.submitted_s)
        known = workflow.taken_in
        workflow.taken_in = seconds, workflow.served_s
        if known == workflow.taken_in:
            return
        for key in _keys(workflow):
            means = self._means.setdefault(key, Means())
            if known is None:
                means.learn(seconds, workflow.served_s)
            else:
                means.correct(seconds - known[0], workflow.served_s - known[1])
            self._means.move_to_end(key)
        while len(self._means) > MOST_CLASSES:
            self._means.popitem(last=False)

    def of(self, workflow: Workflow) -> Means:
        """What is to be expected of it; no samples: nothing is known."""
        for key in _keys(workflow):
            means = self._means.get(key)
            if means is not None:
                return means
        return Means()

    def deadline_s(self, workflow: Workflow) -> float:
        """After submission, for one that names none; 0: nothing is known."""
        return SLO * self.of(workflow).seconds

    def work_left_s(self, workflow: Workflow) -> float:
        """Modelled engine-seconds: what is left of the mean of its class.

        Not the graph's forecast: that is of a session, sums what may follow, and is off by more than ten times while
        little is learnt, which orders those who wait for a turn by whose forecasts are worst.
        """
        means = self.of(workflow)
        return max(0.0, means.work_s - workflow.served_s) if means.samples else UNKNOWN_WORK_S

    def seconds_left(self, workflow: Workflow, work_left_s: float) -> float:
        """The least time that this much work of it takes: one engine's, or its class's pace with its tool calls."""
        work_s = workflow.served_s + work_left_s
        share = work_left_s / work_s if work_s > 0.0 else 0.0
        return max(work_left_s, share * self.of(workflow).seconds)


def _keys(workflow: Workflow) -> tuple[Key, Key, Key]:
    return (workflow.tenant, workflow.agent_class), (workflow.tenant,), ()
