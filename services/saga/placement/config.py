"""Settings of placement, read once from SAGA_PLACEMENT_* by `__main__`."""

from typing import Final, Literal

import msgspec

from saga.runtime.config import DEFAULT_NATS_URL

PREFIX: Final = "SAGA_PLACEMENT_"


class PlacementSettings(msgspec.Struct, frozen=True, kw_only=True):
    """What one placement process is told. Leader and standbys must be told the same."""

    nats_url: str = DEFAULT_NATS_URL
    cell: str = "main"
    id: str = ""  # unique in the cell; empty: random
    policy: str = "saga"  # where a step without a home starts, see saga.placement.policy
    lookahead_steps: int = 1  # given to an engine beyond what it can start now, to hide the round trip
    preempt: Literal["on", "off"] = "off"  # running steps, by engine priorities, see placement.preemption
    supersede: Literal["on", "off"] = "on"  # fresh session tags once old ones pin dead KV, see placement.supersession
    stealing: Literal["off", "paper", "saga"] = "saga"  # which waiting step starts elsewhere, see placement.stealing

    def __post_init__(self) -> None:
        """Raises ValueError naming the setting."""
        if self.lookahead_steps < 0:
            raise ValueError(f"{PREFIX}LOOKAHEAD_STEPS must not be negative")
