"""What an agent's core is made from, and how: for the service that runs it and for whoever replays its recording."""

from random import Random
from typing import Final, get_args

import msgspec

from saga.contract.ids import WorkerId
from saga.contract.subjects import Subjects
from saga.worker.events import WorkerEvent
from saga.worker.prefetch import prefetch_named
from saga.worker.retention import policy_named
from saga.worker.state import WorkerState

EVENTS: Final[tuple[type[msgspec.Struct], ...]] = get_args(WorkerEvent)


class Making(msgspec.Struct, frozen=True, kw_only=True):
    """Everything that tells one agent's core from another at its birth."""

    cell: str
    worker_id: WorkerId
    engine_url: str
    retention: str  # policy
    tag_ttl_s: float
    tag_cap_s: float
    lease_ttl_s: float
    resync_jitter_s: float
    seed: str  # of that jitter
    prefetch: str = "off"  # policy


def make_core(making: Making) -> WorkerState:
    """A core that has not heard anything yet. Raises StartError for a policy that does not exist."""
    return WorkerState(
        making.worker_id,
        making.engine_url,
        Subjects(making.cell),
        policy_named(making.retention, making.tag_ttl_s, making.tag_cap_s),
        Random(making.seed),
        lease_ttl_s=making.lease_ttl_s,
        resync_jitter_s=making.resync_jitter_s,
        prefetch=prefetch_named(making.prefetch),
    )
