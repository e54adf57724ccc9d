"""Asks a gateway whether it is ready. A few lines of HTTP, so that the supervisor loads no HTTP library."""

import asyncio
import contextlib
from urllib.parse import urlsplit

ANSWER_WITHIN_S = 2.0
_HTTP_OK = "200"


async def ready_answer(gateway_url: str) -> str:
    """Empty when `/readyz` says 200; else what it said, or why it said nothing."""
    place = urlsplit(gateway_url)
    try:
        async with asyncio.timeout(ANSWER_WITHIN_S):
            reader, writer = await asyncio.open_connection(place.hostname, place.port)
            try:
                writer.write(f"GET /readyz HTTP/1.0\r\nHost: {place.netloc}\r\n\r\n".encode())
                head, _, body = (await reader.read()).decode(errors="replace").partition("\r\n\r\n")
            finally:
                writer.close()
                with contextlib.suppress(OSError):
                    await writer.wait_closed()
    except (OSError, TimeoutError):
        return f"nothing answers at {gateway_url}"
    status = head.split(" ", 2)
    if len(status) > 1 and status[1] == _HTTP_OK:
        return ""
    return f"{gateway_url}/readyz says {' '.join(body.split()) or head.splitlines()[0] if head else 'nothing'}"
