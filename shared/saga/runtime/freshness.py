"""How old news of engines' KV caches is when a core takes it in: one histogram, observed at the core's door.

From the wall time of the engine's own word to ours, so clocks of two machines that differ show in it.
"""

from saga.contract.messages import ResidencyDelta
from saga.kernel.effects import Received
from saga.runtime import metrics
from saga.runtime.clock import Clock
from saga.runtime.recording import Handle

STALENESS = metrics.histogram(
    "saga_placement_residency_staleness_seconds", "From an engine's word of a change of its cache to the index"
)


def watched(handle: Handle, clock: Clock) -> Handle:
    """The same door; what passes is timed."""

    def timed(event: object, now_s: float) -> list[object]:
        effects = handle(event, now_s)
        delta = event.message if isinstance(event, Received) else None
        if isinstance(delta, ResidencyDelta) and delta.published_at:
            STALENESS.observe(max(0.0, clock.wall_s() - delta.published_at))
        return effects

    return timed
