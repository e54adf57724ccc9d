"""In what order the steps of active workflows start: the choice behind a Protocol, by name.

The fair queue is charged whatever the order, so that what each tenant got is known; a policy turns the step's place in
it, or anything else that admission knows of the workflow, into the tag that placement's queues are sorted by. It acts
where steps wait there: with a placement policy that leaves queueing to the engines, tags say nothing.
To add one: a class with `tag`, a line in ORDERS, a test that reads like a sentence.
"""

from typing import Protocol

from saga.admission.records import Step, Workflow
from saga.contract.messages import Tag


class TagPolicy(Protocol):
    """Chooses the tag of a step."""

    def tag(self, workflow: Workflow, step: Step, virtual_start_s: float) -> Tag:
        """The tag, lowest first. `virtual_start_s`: where start-time fair queueing over tenants puts the step."""
        ...

    def closed(self, workflow: Workflow) -> None:
        """The workflow is over; `last_sign_s` says since when. For policies that learn from it."""
        ...


class FairStart:
    """The default: start-time fair queueing over tenants, by age inside a tenant."""

    def tag(self, workflow: Workflow, step: Step, virtual_start_s: float) -> Tag:
        return Tag(virtual_start_s, workflow.submitted_s, step.step.step_id)

    def closed(self, workflow: Workflow) -> None:
        """Nothing to learn."""


class ProgramFcfs:
    """By the workflow's submission, whoever's it is: no step of a younger workflow passes one of an older."""

    def tag(self, workflow: Workflow, step: Step, virtual_start_s: float) -> Tag:  # noqa: ARG002 - age alone
        return Tag(0.0, workflow.submitted_s, step.step.step_id)

    def closed(self, workflow: Workflow) -> None:
        """Nothing to learn."""


ORDERS: dict[str, type[TagPolicy]] = {"fair": FairStart, "program-fcfs": ProgramFcfs}
