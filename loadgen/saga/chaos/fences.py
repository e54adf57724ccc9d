"""What the bus tells of fences: grants of leaders that have been replaced, and whether anybody acted on two.

A paused leader that comes back may still grant until it hears of its successor. That is harmless as long as each
attempt of a step is taken under one lease only.
"""

from saga.contract.ids import LeaseId, StepId
from saga.contract.messages import Grant, LeaseTaken
from saga.contract.subjects import Subjects
from saga.runtime.bus import Bus, Incoming


class FenceLog:
    """Heard so far. Some may be missed while NATS is away."""

    def __init__(self) -> None:
        self.late_grants = 0  # with a lower fence than an earlier one
        self.taken_twice: set[tuple[StepId, int]] = set()
        self._highest = 0
        self._taken: dict[tuple[StepId, int], LeaseId] = {}

    async def listen(self, bus: Bus, cell: str) -> None:
        """From now on, as long as the bus lives."""
        subjects = Subjects(cell)
        for subject in (subjects.every_gateway(), subjects.every_lease()):
            await bus.subscribe(subject, self._hear)
        await bus.barrier()

    def hear_grant(self, grant: Grant) -> None:
        """A leader gives out a lease."""
        self.late_grants += grant.fence < self._highest
        self._highest = max(self._highest, grant.fence)

    def hear_taken(self, taken: LeaseTaken) -> None:
        """A gateway runs a step under it."""
        attempt = (taken.step_id, taken.attempt)
        if self._taken.setdefault(attempt, taken.lease_id) != taken.lease_id:
            self.taken_twice.add(attempt)

    def _hear(self, incoming: Incoming) -> None:
        match incoming.message:
            case Grant() as grant:
                self.hear_grant(grant)
            case LeaseTaken() as taken:
                self.hear_taken(taken)
