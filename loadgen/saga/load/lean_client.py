"""A streaming HTTP/1.1 client that costs almost nothing, for benchmarks whose client shares the cores it measures.

It understands only what our gateway sends: keep-alive, and chunked bodies of which it looks at the headers and the
last few bytes. Not for replays (client): it keeps no text and retries nothing. Called by bench/control_plane.py.
"""

import asyncio
import time
from collections import deque
from typing import cast
from urllib.parse import urlsplit

from msgspec import Struct

_TAIL_BYTES = 1024
_END_OF_BODY = b"0\r\n\r\n"


class LeanAnswer(Struct):
    """What one request came to. Times are monotonic seconds, -1: it never happened; `tail` is the end of the body."""

    sent_s: float
    status: int = 0
    first_s: float = -1.0
    last_s: float = -1.0
    control_ms: float = -1.0
    waited: str = ""
    tail: bytes = b""

    @property
    def complete(self) -> bool:
        """Whether the whole stream came, to its `[DONE]`."""
        return self.status == 200 and b"data: [DONE]" in self.tail


class _Connection(asyncio.Protocol):
    def __init__(self) -> None:
        self._head = bytearray()
        self._answer: LeanAnswer | None = None
        self._done: asyncio.Future[None] | None = None
        self._left = -1
        self.transport: asyncio.WriteTransport | None = None

    def send(self, request: bytes) -> tuple[LeanAnswer, "asyncio.Future[None]"]:
        """Write a request; the future is set when its answer has come, or fails with ConnectionError."""
        if self.transport is None:
            raise ConnectionError("the connection was closed")
        self._done = asyncio.get_running_loop().create_future()
        self._answer = LeanAnswer(time.monotonic())
        self._head.clear()
        self.transport.write(request)
        return self._answer, self._done

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.WriteTransport", transport)  # uvloop's is another class

    def connection_lost(self, exc: Exception | None) -> None:
        self.transport = None
        if self._done is not None and not self._done.done():
            self._done.set_exception(exc or ConnectionError("the gateway closed the connection within an answer"))

    def data_received(self, data: bytes) -> None:
        answer = self._answer
        if answer is None or self._done is None:
            return
        if not answer.status:
            self._head += data
            end = self._head.find(b"\r\n\r\n")
            if end < 0:
                return
            self._left = _read_head(bytes(self._head[:end]), answer)
            data = bytes(self._head[end + 4 :])
        if data and answer.first_s < 0:
            answer.first_s = time.monotonic()
        answer.tail = (answer.tail + data)[-_TAIL_BYTES:]
        if self._left >= 0:
            self._left -= len(data)
            over = self._left <= 0
        else:
            over = answer.tail.endswith(_END_OF_BODY)
        if over and not self._done.done():
            answer.last_s = time.monotonic()
            self._answer = None
            self._done.set_result(None)


class LeanClient:
    """A pool of connections to one gateway; each takes one request at a time."""

    def __init__(self, base_url: str) -> None:
        parts = urlsplit(base_url)
        self._host, self._port = parts.hostname or "127.0.0.1", parts.port or 80
        self._free: deque[_Connection] = deque()

    async def post(self, path: str, headers: dict[str, str], body: bytes) -> LeanAnswer:
        """One request, answered in full. Raises ConnectionError when the answer is cut short."""
        while self._free and self._free[-1].transport is None:
            self._free.pop()
        if self._free:
            connection = self._free.pop()
        else:
            _, connection = await asyncio.get_running_loop().create_connection(_Connection, self._host, self._port)
        lines = [f"POST {path} HTTP/1.1", f"Host: {self._host}:{self._port}", "Content-Type: application/json"]
        lines += [f"{name}: {value}" for name, value in headers.items()]
        lines += [f"Content-Length: {len(body)}", "", ""]
        answer, done = connection.send("\r\n".join(lines).encode() + body)
        try:
            await done
        except asyncio.CancelledError:
            if connection.transport is not None:
                connection.transport.abort()
            raise
        self._free.append(connection)
        return answer

    def close(self) -> None:
        """Close the idle connections."""
        while self._free:
            connection = self._free.pop()
            if connection.transport is not None:
                connection.transport.close()


def _read_head(head: bytes, answer: LeanAnswer) -> int:
    """Fill in status and our headers; returns the length of the body, -1 for a chunked one."""
    lines = head.split(b"\r\n")
    answer.status = int(lines[0].split(b" ", 2)[1])
    left = -1
    for line in lines[1:]:
        name, _, value = line.partition(b":")
        match name.lower():
            case b"content-length":
                left = int(value)
            case b"x-saga-control-ms":
                answer.control_ms = float(value)
            case b"x-saga-waited":
                answer.waited = value.strip().decode()
    return left
