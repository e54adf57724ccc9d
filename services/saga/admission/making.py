"""What an admission core is made from, and how: for the service that runs it and for whoever replays its recording."""

from typing import Final

import msgspec

from saga.admission.order import ORDERS
from saga.admission.policies import POLICIES
from saga.admission.state import AdmissionState, Loaded
from saga.contract.ids import TenantId
from saga.contract.subjects import Subjects
from saga.kernel.effects import Demoted, Promoted, Received, Reconnected, Tick

EVENTS: Final[tuple[type[msgspec.Struct], ...]] = (Received, Tick, Promoted, Demoted, Reconnected, Loaded)


class Making(msgspec.Struct, frozen=True, kw_only=True):
    """Everything that tells one admission core from another at its birth."""

    cell: str
    policy: str  # one of POLICIES
    order: str = "fair"  # one of ORDERS
    wall_offset_s: float
    max_waiting_steps: int
    max_wait_s: float
    weights: dict[str, float]  # by tenant


def make_core(making: Making) -> AdmissionState:
    """A core that has not heard anything yet."""
    state = AdmissionState(
        Subjects(making.cell),
        POLICIES[making.policy](),
        ORDERS[making.order](),
        wall_offset_s=making.wall_offset_s,
        max_waiting_steps=making.max_waiting_steps,
        max_wait_s=making.max_wait_s,
    )
    for tenant, weight in making.weights.items():
        state.book.fair.set_weight(TenantId(tenant), weight)
    return state
