"""What operators say of workers: a row of JetStream KV for each that is to be empty, written by `saga drain`.

Each worker agent watches for its own and says in its heartbeats what it found; whoever places steps hears it there.
"""

import re
from typing import Final

import msgspec

from saga.contract.ids import WorkerId

DRAINS_BUCKET: Final = "drains"  # a row each worker that is to be empty, under its id
_WORKER_ID: Final = re.compile(r"[A-Za-z0-9_-]{1,64}")


class DrainRow(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """For people: that the row is there is what counts."""

    said_at: float = 0.0  # wall time


def check_worker(name: str) -> WorkerId:
    """The name, if a worker may be called so. Raises ValueError that says what is allowed."""
    if not _WORKER_ID.fullmatch(name):
        raise ValueError(f"worker id {name[:64]!r} must be 1 to 64 letters, digits, _ or -")
    return WorkerId(name)


def write_drain(row: DrainRow) -> bytes:
    """The row as JSON."""
    return msgspec.json.encode(row)
