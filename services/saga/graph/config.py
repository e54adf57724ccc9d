"""Settings of the graph service: SAGA_GRAPH_*, read once at the start."""

from typing import Final

import msgspec

from saga.runtime.config import DEFAULT_NATS_URL

PREFIX: Final = "SAGA_GRAPH_"


class GraphConfig(msgspec.Struct, frozen=True, kw_only=True):
    """One graph process."""

    id: str = ""  # empty: made up; differs between processes of a cell
    forecast: str = "saga"  # policy
    replay_s: float = 900.0  # of the step stream, read at the start
    nats_url: str = DEFAULT_NATS_URL
    cell: str = "main"

    def __post_init__(self) -> None:
        """Raises ValueError for what cannot work."""
        if self.replay_s < 0:
            raise ValueError(f"replay_s must not be negative, but is {self.replay_s}")
