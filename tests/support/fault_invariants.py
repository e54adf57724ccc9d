"""What must hold after every event, whoever handled it; told as sentences, so that a broken one can be read.

Cores assert their own books (`check`). Here is what no core can see alone: who had heard of which leader, and of which
end, when it spoke.
"""

from collections import Counter
from typing import Any

from fault_process import Process

from saga.contract.messages import (
    Accepted,
    Grant,
    LeaderHello,
    LeaseReturned,
    Refused,
    ResendSteps,
    StepAdmitted,
    StepCancelled,
    StepFinished,
    StepRefused,
)
from saga.gateway.events import Run
from saga.kernel.effects import Demoted, Promoted, Publish, Received

MOST_EVENTS = 20_000  # of one run; 9,000 are usual
FROM_ADMISSION = (Accepted, Refused, StepRefused, StepAdmitted)


class _Known:
    """What one process has been told."""

    __slots__ = ("fences", "leads", "led", "over")

    def __init__(self) -> None:
        self.fences = {"admission": 0, "placement": 0}
        self.over: set[str] = set()
        self.leads = False
        self.led = 0


class Invariants:
    """`after` is called with every event of every process. `violations`: what was broken."""

    def __init__(self) -> None:
        self.violations: list[str] = []
        self.events = Counter[str]()
        self.seen = {"word of an older leader": 0, "step's end told again": 0}
        self._known: dict[Process, _Known] = {}

    def after(self, process: Process, event: Any, effects: list[Any]) -> None:
        """The process has handled this event with these effects, which have not happened yet."""
        known = self._known.get(process)
        if known is None:
            known = self._known[process] = _Known()
        self.events[type(event).__name__] += 1
        if self.events.total() > MOST_EVENTS:
            raise AssertionError(f"a storm: {MOST_EVENTS} events, among them {self.events.most_common(3)}")
        if isinstance(event, Received):
            stale = self._heard(known, event.message)
            if stale and isinstance(event.message, StepAdmitted):
                self._not_taken(process, event.message)
        elif isinstance(event, Promoted):
            known.leads, known.led = True, event.fence
        elif isinstance(event, Demoted):
            known.leads = False
        for effect in effects:
            if isinstance(effect, Publish):
                self._said(process, known, effect.message)
            elif isinstance(effect, Run):
                self._runs(process, known, effect.grant)

    def _heard(self, known: _Known, message: Any) -> bool:
        """Whether it comes from a leader that has been replaced, as this process knows."""
        said: dict[str, int] = {}
        match message:
            case LeaderHello() | ResendSteps():
                said[message.service] = message.fence
            case Grant():
                said["placement"] = message.fence
                said["admission"] = message.admission_fence
            case StepFinished() | StepCancelled() | LeaseReturned(reason="client_gone"):
                self.seen["step's end told again"] += message.step_id in known.over
                known.over.add(message.step_id)
            case _ if isinstance(message, FROM_ADMISSION):
                said["admission"] = message.fence
        stale = any(fence < known.fences[service] for service, fence in said.items())
        if not stale:
            known.fences |= said
        self.seen["word of an older leader"] += stale
        return stale

    def _said(self, process: Process, known: _Known, message: Any) -> None:
        if isinstance(message, Grant):
            self._leads(process, known, "placement", message.fence)
            if message.step_id in known.over:
                self._broken(process, f"grants step {message.step_id}, of which it knows that it is over")
        elif isinstance(message, StepAdmitted):
            self._leads(process, known, "admission", message.fence)
            if message.step.step_id in known.over:
                self._broken(process, f"admits step {message.step.step_id}, of which it knows that it is over")
        elif isinstance(message, LeaderHello) and message.fence < known.fences[message.service]:
            self._broken(process, f"leads with fence {message.fence}, and has seen {known.fences[message.service]}")

    def _not_taken(self, process: Process, admitted: StepAdmitted) -> None:
        step_id = admitted.step.step_id
        step = process.core.board.steps.get(step_id)
        if step is not None and step.admitted is admitted:
            self._broken(process, f"lets step {step_id} wait on the word of an older admission")

    def _leads(self, process: Process, known: _Known, service: str, fence: int) -> None:
        if not known.leads or fence != known.led:
            self._broken(process, f"speaks with fence {fence}; its term's is {known.led if known.leads else 'over'}")
        if known.fences[service] > fence:
            self._broken(process, f"speaks with fence {fence}, and has seen {known.fences[service]} of {service}")

    def _runs(self, process: Process, known: _Known, grant: Grant) -> None:
        if grant.fence < known.fences["placement"]:
            self._broken(process, f"runs a grant of an older placement, {grant.fence} < {known.fences['placement']}")
        if grant.admission_fence < known.fences["admission"]:
            told = f"{grant.admission_fence} < {known.fences['admission']}"
            self._broken(process, f"runs a grant by an older admission, {told}")

    def _broken(self, process: Process, told: str) -> None:
        self.violations.append(f"{process.name} {told}")
