"""Asks a gateway whether it is ready and which models it has.

A few lines of HTTP, so that the supervisor loads no HTTP library.
"""

import asyncio
import contextlib
from urllib.parse import urlsplit

import msgspec

ANSWER_WITHIN_S = 2.0
HTTP_OK = 200


class PoolFacts(msgspec.Struct, frozen=True):
    """What a SAGA gateway says of the engines behind a model."""

    workers: int = 0


class Model(msgspec.Struct, frozen=True):
    """A model as `/v1/models` lists it."""

    id: str
    saga: PoolFacts = PoolFacts()


class _Models(msgspec.Struct, frozen=True):
    data: list[Model]


async def ready_answer(gateway_url: str) -> str:
    """Empty when `/readyz` says 200; else what it said, or why it said nothing."""
    try:
        status, body = await _get(gateway_url, "/readyz")
    except OSError:
        return f"nothing answers at {gateway_url}"
    return "" if status == HTTP_OK else f"{gateway_url}/readyz says {status} {' '.join(body.split())}"


async def workers(gateway_url: str) -> int:
    """How many have joined, as `/readyz` says; no API key is needed for it."""
    with contextlib.suppress(OSError, msgspec.DecodeError):
        _status, body = await _get(gateway_url, "/readyz")
        return msgspec.json.decode(body, type=PoolFacts).workers
    return 0


async def models(gateway_url: str) -> list[Model]:
    """The models that can be asked for; none if the gateway does not say."""
    with contextlib.suppress(OSError, msgspec.DecodeError):
        _status, body = await _get(gateway_url, "/v1/models")
        return msgspec.json.decode(body, type=_Models).data
    return []


async def status_of(url: str, path: str) -> int:
    """HTTP status of a GET; 0 for an answer that is no HTTP. Raises OSError, also when it takes too long."""
    return (await _get(url, path))[0]


async def text_of(url: str, path: str) -> str:
    """Body of a GET, whatever its status. Raises OSError, also when it takes too long."""
    return (await _get(url, path))[1]


async def _get(url: str, path: str) -> tuple[int, str]:
    """Status (0: none) and body. Raises OSError, also when it takes too long."""
    place = urlsplit(url)
    async with asyncio.timeout(ANSWER_WITHIN_S):
        reader, writer = await asyncio.open_connection(place.hostname, place.port)
        try:
            writer.write(f"GET {path} HTTP/1.0\r\nHost: {place.netloc}\r\n\r\n".encode())
            head, _, body = (await reader.read()).decode(errors="replace").partition("\r\n\r\n")
        finally:
            writer.close()
            with contextlib.suppress(OSError):
                await writer.wait_closed()
    parts = head.split(" ", 2)
    return (int(parts[1]) if len(parts) > 1 and parts[1].isdigit() else 0), body
