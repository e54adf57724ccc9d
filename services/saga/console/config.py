"""Settings of a console: SAGA_CONSOLE_*, read once at the start."""

from typing import Annotated, Final

import msgspec

from saga.runtime.config import DEFAULT_NATS_URL

PREFIX: Final = "SAGA_CONSOLE_"

Positive = Annotated[int, msgspec.Meta(ge=1)]


class ConsoleSettings(msgspec.Struct, frozen=True, kw_only=True):
    """What one console is told."""

    nats_url: str = DEFAULT_NATS_URL
    cell: str = "main"
    host: str = "127.0.0.1"  # there is no password: whoever reaches it sees the names of all tenants' workflows
    port: Annotated[int, msgspec.Meta(ge=0, le=65535)] = 8090  # 0: any free one, which the log names
    hosts: tuple[str, ...] = ("localhost", "127.0.0.1", "[::1]")  # names under which browsers may ask; *: any
    frames_per_s: Annotated[float, msgspec.Meta(gt=0, le=20)] = 5.0  # at most so many changes a second are sent
    max_viewers: Positive = 32  # pages that look at once
    max_workflows: Positive = 2_000  # shown; above it the longest silent one is left out
    replay_s: Annotated[float, msgspec.Meta(ge=0, le=3_600)] = 300.0  # of the step stream, read at the start
