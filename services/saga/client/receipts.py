"""A step's receipt, as a gateway tells it to who sends `X-Saga-Explain: 1`."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Receipt:
    """Where one step ran, why it waited, and what of its prompt was cached."""

    step: str
    worker: str
    pool: str
    reason: str  # why this worker
    moved_from: str  # the session's worker before; empty: it did not move
    attempts: int
    wait_s: float
    wait_cause: str
    prompt_tokens: int
    output_tokens: int
    cached_tokens: int | None  # None: the engine does not say
    miss: str | None  # the cause that cost most; None: nothing that could be cached was missed
    missed_tokens: dict[str, int]  # by cause

    @classmethod
    def of(cls, told: Mapping[str, Any]) -> "Receipt":
        """From JSON: `X-Saga-Receipt`, the comment in a stream, or `GET /v1/saga/steps/ID`."""
        route, wait = told["route"], told["wait"]
        return cls(
            step=told["step"],
            worker=route["worker"],
            pool=route["pool"],
            reason=route["reason"],
            moved_from=route["moved_from"],
            attempts=route["attempts"],
            wait_s=wait["seconds"],
            wait_cause=wait["cause"],
            prompt_tokens=told["prompt_tokens"],
            output_tokens=told["output_tokens"],
            cached_tokens=told["cached_tokens"],
            miss=told["miss"],
            missed_tokens=dict(told["missed_tokens"]),
        )
