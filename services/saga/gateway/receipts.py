"""What a client is told of its step on request: where it ran, why it waited, what was cached and why not more. Pure.

Why tokens were missed is in `contract/misses.py`. `http_receipts.py` asks and tells.
"""

from typing import Final
from urllib.parse import quote

import msgspec

from saga.contract.misses import MissCause, Sent, Used

EXPLAIN: Final = "X-Saga-Explain"
ROUTE: Final = "X-Saga-Route"
WAIT: Final = "X-Saga-Wait"
RECEIPT: Final = "X-Saga-Receipt"


class Route(msgspec.Struct, frozen=True, kw_only=True):
    """Where it ran."""

    worker: str
    pool: str
    reason: str  # placement's
    moved_from: str  # empty: it did not move
    attempts: int

    @property
    def text(self) -> str:
        """As a header."""
        names = {"worker": self.worker, "pool": self.pool, "reason": self.reason, "moved_from": self.moved_from}
        return "; ".join([*(f"{name}={quote(value)}" for name, value in names.items()), f"attempts={self.attempts}"])


class Wait(msgspec.Struct, frozen=True):
    """From the request read to the first byte written to an engine."""

    seconds: float
    cause: str

    @property
    def text(self) -> str:
        """As a header."""
        return f"seconds={self.seconds:.6f}; cause={self.cause}"


class Receipt(msgspec.Struct, frozen=True, kw_only=True):
    """All of it."""

    step: str
    route: Route
    wait: Wait
    prompt_tokens: int
    output_tokens: int
    cached_tokens: int | None  # None: the engine does not say
    miss: MissCause | None  # that cost most; None: nothing is missed
    missed_tokens: dict[MissCause, int]  # by cause


def wanted(value: str | None) -> bool:
    """Whether a client asks for one."""
    return value is not None and value.strip().lower() not in ("", "0", "false", "no")


def receipt(
    *, step: str, route: Route, wait: Wait, used: Used, output_tokens: int, sent: Sent, missed: dict[MissCause, int]
) -> Receipt:
    """Put together."""
    worst = sorted(missed, key=missed.__getitem__, reverse=True)
    return Receipt(
        step=step,
        route=route,
        wait=wait,
        prompt_tokens=sent.prompt_tokens if used.prompt_tokens is None else used.prompt_tokens,
        output_tokens=output_tokens,
        cached_tokens=used.cached_tokens,
        miss=worst[0] if worst else None,
        missed_tokens=dict(missed),
    )
