"""What a gateway's core is made from, and how: for the service that runs it and for whoever replays its recording."""

from typing import Final, get_args

import msgspec

from saga.contract.ids import GatewayId
from saga.contract.subjects import Subjects
from saga.gateway.events import GatewayEvent
from saga.gateway.state import GatewayState
from saga.kernel.effects import Received, Tick

EVENTS: Final[tuple[type[msgspec.Struct], ...]] = (*get_args(GatewayEvent), Received, Tick)


class Making(msgspec.Struct, frozen=True, kw_only=True):
    """Everything that tells one gateway's core from another at its birth."""

    cell: str
    gateway_id: GatewayId


def make_core(making: Making) -> GatewayState:
    """A core that has not heard anything yet."""
    return GatewayState(making.gateway_id, Subjects(making.cell))
