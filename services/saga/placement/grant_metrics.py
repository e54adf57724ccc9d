"""Metrics of grants: why each step started where it did, and how many left the worker of their session's last step.

Counted at the core's door, so of a leader only: what a standby would say is not said.
"""

from typing import Final

from saga.contract.messages import Grant
from saga.kernel.effects import Publish
from saga.runtime import metrics
from saga.runtime.recording import Handle

# Reasons are words of placement's policies, a closed set (docs/operations.md).
GRANTS: Final = metrics.counter("saga_placement_grants_total", "Steps started, by why on that worker", ["reason"])
MOVES: Final = metrics.counter(
    "saga_placement_moves_total", "Of those, not where their session's last step ran, by cause", ["cause"]
)
WORKER_GONE: Final = "worker_gone"  # nothing could start where it was
STOLEN: Final = "stolen"  # it waited there, and another took it: by load, or because that saves waiting
CHOSEN: Final = "chosen"  # it had no home any more, and was placed anew
STEALS: Final = frozenset({"stolen", "saves_wait"})  # reasons of `stealing.py`

for _cause in (WORKER_GONE, STOLEN, CHOSEN):
    MOVES.labels(_cause)


def counted(handle: Handle) -> Handle:
    """The same door; grants that go out are counted."""

    def counting(event: object, now_s: float) -> list[object]:
        effects = handle(event, now_s)
        for effect in effects:
            if isinstance(effect, Publish) and isinstance(effect.message, Grant):
                count(effect.message)
        return effects

    return counting


def count(grant: Grant) -> None:
    """One step starts."""
    GRANTS.labels(grant.reason).inc()
    if grant.ran_at and grant.ran_at != grant.worker_id:
        MOVES.labels(cause_of(grant)).inc()


def cause_of(grant: Grant) -> str:
    """Of a grant that moves its session."""
    if grant.left_gone:
        return WORKER_GONE
    return STOLEN if grant.reason in STEALS else CHOSEN
