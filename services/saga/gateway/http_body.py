"""A request's body as it comes in: plain, within a limit. Raises ApiError."""

from collections.abc import Callable

from aiohttp import web

from saga.gateway.api_errors import body_too_large, compressed_body, unreadable_body


async def read_body(request: web.Request, limit_bytes: int, grew: Callable[[int], None] | None = None) -> bytes:
    """All of it. `grew` is told of each piece, by its length, and may raise."""
    if (request.content_length or 0) > limit_bytes:
        raise body_too_large(limit_bytes)
    if request.headers.get("Content-Encoding", "identity").lower() != "identity":
        raise compressed_body()
    parts: list[bytes] = []
    length = 0
    try:
        while data := await request.content.readany():
            length += len(data)
            if grew is not None:
                grew(len(data))
            if length > limit_bytes:
                raise body_too_large(limit_bytes)
            parts.append(data)
    except web.RequestPayloadError as error:
        raise unreadable_body(str(error)) from None
    return parts[0] if len(parts) == 1 else b"".join(parts)
