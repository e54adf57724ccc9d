"""A request's body as it comes in: plain, within a limit of bytes and of time. Raises ApiError."""

import asyncio
from collections.abc import Callable
from typing import Final

from aiohttp import web

from saga.gateway.api_errors import bodies_full, body_too_large, body_too_slow, compressed_body, unreadable_body

BODY_WITHIN_S: Final = 60.0  # from its head to its end: one that trickles holds its share of the budget meanwhile


class BodyBudget:
    """Bytes of all bodies that are here and not yet at an engine."""

    def __init__(self, limit_bytes: int) -> None:
        self._limit_bytes = limit_bytes
        self.held_bytes = 0

    def grew(self, by_bytes: int) -> None:
        """More of a body is here; give it back by `left` even if this raises. Raises ApiError 503."""
        self.held_bytes += by_bytes
        if self.held_bytes > self._limit_bytes:
            raise bodies_full(self._limit_bytes)

    def left(self, by_bytes: int) -> None:
        """A body is at its engine, or of no use."""
        self.held_bytes -= by_bytes


class HeldBody:
    """One body's share of the budget."""

    __slots__ = ("_budget", "_bytes")

    def __init__(self, budget: BodyBudget) -> None:
        self._budget = budget
        self._bytes = 0

    def grew(self, by_bytes: int) -> None:
        """As BodyBudget."""
        self._bytes += by_bytes
        self._budget.grew(by_bytes)

    def left(self) -> None:
        """As BodyBudget; again is nothing."""
        self._budget.left(self._bytes)
        self._bytes = 0


async def read_body(
    request: web.Request, limit_bytes: int, grew: Callable[[int], None] | None = None, within_s: float = BODY_WITHIN_S
) -> bytes:
    """All of it. `grew` is told of each piece, by its length, and may raise."""
    if (request.content_length or 0) > limit_bytes:
        raise body_too_large(limit_bytes)
    if request.headers.get("Content-Encoding", "identity").lower() != "identity":
        raise compressed_body()
    parts: list[bytes] = []
    length = 0
    try:
        async with asyncio.timeout(within_s):
            while data := await request.content.readany():
                length += len(data)
                if grew is not None:
                    grew(len(data))
                if length > limit_bytes:
                    raise body_too_large(limit_bytes)
                parts.append(data)
    except TimeoutError:
        raise body_too_slow(within_s) from None
    except web.RequestPayloadError as error:
        raise unreadable_body(str(error)) from None
    return parts[0] if len(parts) == 1 else b"".join(parts)
