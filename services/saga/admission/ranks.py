"""In what order the workflows of one tenant come, inside and outside the active set: the choice behind a Protocol, by
name.

Who is first joins first and is paused last. Between tenants turns decide (`turns.py`), between the steps of those who
are inside tags do (`order.py`). A rank changes only when something is learnt of its workflow, never with time alone, so
that a line need not be sorted anew: aging is a time of submission in the sum, not a clock.
To add one: a class with `of`, a line in RANKS, a test that reads like a sentence. docs/evaluation.md has figures.
"""

from math import log2
from typing import Protocol

from saga.admission.expectations import Means
from saga.admission.records import Workflow

FIRST_LEVEL_S = 1.0  # modelled engine-seconds that the highest level of attained service spans
LEVEL_APART_S = 1e9  # more than the age of any workflow
AGING = 1.0  # seconds of age that make up for a second of expected time left


class Rank(Protocol):
    """Chooses the place of a workflow."""

    def of(self, workflow: Workflow, expected: Means) -> float:
        """Lowest first. `expected`: what workflows like it take, by those that are over; no samples: unknown."""
        ...


class ByAge:
    """The oldest first: nobody waits for one who came later."""

    def of(self, workflow: Workflow, expected: Means) -> float:  # noqa: ARG002 - age alone
        return workflow.submitted_s


class LeastAttained:
    """Who has had least engine time first, in levels that double, the oldest first inside one: without knowing sizes,
    the short ones get through. In levels, so that workflows alike do not take turns at every step."""

    def of(self, workflow: Workflow, expected: Means) -> float:  # noqa: ARG002 - what it had is known
        level = int(log2(1.0 + workflow.served_s / FIRST_LEVEL_S))
        return level * LEVEL_APART_S + workflow.submitted_s


class LeastSlack:
    """Who can least afford to wait: the earliest moment from which on it would be late. One without a deadline is due
    at once, so that those come by age."""

    def of(self, workflow: Workflow, expected: Means) -> float:
        return workflow.submitted_s + workflow.deadline_s - seconds_left(workflow, expected)


class LeastWorkLeft:
    """Who is expected to be through soonest first, as the graph forecasts it; a second of age makes up for a second of
    that, so that nobody waits for those who came later by more than what is left of it."""

    def of(self, workflow: Workflow, expected: Means) -> float:
        return AGING * workflow.submitted_s + seconds_left(workflow, expected)


def seconds_left(workflow: Workflow, expected: Means) -> float:
    """What its forecast work takes at the pace of its class, queues and tool calls included; where nobody has finished
    yet, the work alone."""
    pace = expected.seconds / expected.work_s if expected.work_s > 0.0 else 1.0
    return workflow.remaining_engine_s * max(1.0, pace)


RANKS: dict[str, type[Rank]] = {
    "age": ByAge,
    "attained": LeastAttained,
    "slack": LeastSlack,
    "work-left": LeastWorkLeft,
}
