"""What a graph core is made from, and how: for the service that runs it and for whoever replays its recording."""

from typing import Final

import msgspec

from saga.contract.subjects import Subjects
from saga.graph.forecast import policy_named
from saga.graph.state import GraphState, Loaded, Owned, Replayed, Settle
from saga.kernel.effects import Received, Tick

EVENTS: Final[tuple[type[msgspec.Struct], ...]] = (Received, Tick, Replayed, Loaded, Owned, Settle)


class Making(msgspec.Struct, frozen=True, kw_only=True):
    """Everything that tells one graph core from another at its birth."""

    cell: str
    forecast: str  # policy


def make_core(making: Making) -> GraphState:
    """A core that has not heard anything yet. Raises StartError for a policy that does not exist."""
    return GraphState(Subjects(making.cell), policy_named(making.forecast))
