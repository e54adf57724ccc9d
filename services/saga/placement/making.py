"""What a placement core is made from, and how: for the service that runs it and for whoever replays its recording."""

from typing import Final

import msgspec

from saga.contract.subjects import Subjects
from saga.kernel.effects import Demoted, Promoted, Received, Reconnected, Tick
from saga.placement.policy import POLICIES
from saga.placement.preemption import WhenItPays
from saga.placement.state import PlacementState
from saga.placement.stealing import stealing_named

EVENTS: Final[tuple[type[msgspec.Struct], ...]] = (Received, Tick, Promoted, Demoted, Reconnected)


class Making(msgspec.Struct, frozen=True, kw_only=True):
    """Everything that tells one placement core from another at its birth."""

    cell: str
    holder_id: str
    policy: str  # one of POLICIES
    lookahead_steps: int
    supersede: bool = False  # whether sessions get fresh tags
    preempt: bool = False
    stealing: str = "off"  # one of STEALING
    born_s: float  # on the core's clock


def make_core(making: Making) -> PlacementState:
    """A core that has not heard anything yet."""
    return PlacementState(
        making.holder_id,
        Subjects(making.cell),
        POLICIES[making.policy](),
        stealing_named(making.stealing, making.holder_id),
        preemption=WhenItPays() if making.preempt else None,
        lookahead=making.lookahead_steps,
        supersede=making.supersede,
        now_s=making.born_s,
        stories=True,
    )
