"""HTTP/1.1 answers as bytes: the head and the body's framing, cut anywhere. Pure.

Only what an engine sends back to a POST: no trailers are kept, no upgrade, no compression (we never ask for one).
Called by `http_connection.py`. Any malformed input raises ValueError.
"""

from typing import Final

import msgspec

HEAD_END: Final = b"\r\n\r\n"
MAX_HEAD_BYTES: Final = 64 * 1024
_MAX_SIZE_LINE_BYTES: Final = 1024


class Head(msgspec.Struct, frozen=True):
    """Status and framing of an answer."""

    status: int
    length: int  # of the body; CHUNKED or UNTIL_CLOSE
    keep: bool  # the connection may serve again


CHUNKED: Final = -1
UNTIL_CLOSE: Final = -2


def parse_head(data: bytes) -> Head:
    """The head of an answer, without the empty line."""
    status_line, *lines = data.split(b"\r\n")
    version, _, rest = status_line.partition(b" ")
    if not version.startswith(b"HTTP/1."):
        raise ValueError(f"no HTTP/1 answer: {status_line[:40]!r}")
    status = int(rest[:3])
    headers = {name.strip().lower(): value.strip() for name, _, value in (line.partition(b":") for line in lines)}
    connection = headers.get(b"connection", b"").lower()
    keep = connection != b"close" and (version != b"HTTP/1.0" or connection == b"keep-alive")
    if status < 200 or status in (204, 304):
        return Head(status, 0, keep)
    if b"chunked" in headers.get(b"transfer-encoding", b"").lower():
        return Head(status, CHUNKED, keep)
    if b"content-length" in headers:
        length = int(headers[b"content-length"])
        if length < 0:
            raise ValueError("negative content-length")
        return Head(status, length, keep)
    return Head(status, UNTIL_CLOSE, keep=False)


class Body:
    """Takes the framing off a body, piece by piece."""

    __slots__ = ("_left", "_rest", "chunked", "done")

    def __init__(self, length: int) -> None:
        self.chunked = length == CHUNKED
        self.done = length == 0
        self._left = 0 if self.chunked else length  # of the body, or of the chunk with its line end
        self._rest = b""  # beginning of a size line

    @property
    def ends_with_connection(self) -> bool:
        """Whether the end of the connection is the end of the body."""
        return self._left == UNTIL_CLOSE

    def feed(self, data: bytes) -> bytes:
        """The content in `data`. Sets `done`; bytes beyond the body raise ValueError: nobody asked for them."""
        if self.chunked:
            return self._chunks(data)
        if self._left == UNTIL_CLOSE:
            return data
        if len(data) > self._left:
            raise ValueError("more than content-length")
        self._left -= len(data)
        self.done = self._left == 0
        return data

    def _chunks(self, data: bytes) -> bytes:
        if not (self._left or self._rest):  # nearly always: one piece of a stream is one whole chunk
            start = data.find(b"\r\n") + 2
            size = _size(data[: start - 2]) if start > 2 else 0
            if size > 0 and len(data) == start + size + 2:
                return data[start:-2]
        if self._rest:
            data, self._rest = self._rest + data, b""
        found: list[bytes] = []
        at, end = 0, len(data)
        while at < end:
            if self._left:  # inside a chunk: content, then two bytes of line end
                content = min(self._left - 2, end - at)
                if content > 0:
                    found.append(data[at : at + content])
                step = min(self._left, end - at)
                at += step
                self._left -= step
                continue
            line_end = data.find(b"\r\n", at)
            if line_end < 0:
                self._keep(data[at:])
                break
            size = _size(data[at:line_end])
            if size == 0:
                self._last(data[at:], line_end - at)
                break
            self._left = size + 2
            at = line_end + 2
        return found[0] if len(found) == 1 else b"".join(found)

    def _last(self, data: bytes, line_end: int) -> None:
        """The chunk of size 0: trailers, if any, and an empty line."""
        end = data.find(HEAD_END, line_end)
        if end < 0:
            self._keep(data)
        elif end + len(HEAD_END) < len(data):
            raise ValueError("more than the last chunk")
        else:
            self.done = True

    def _keep(self, rest: bytes) -> None:
        if len(rest) > _MAX_SIZE_LINE_BYTES:
            raise ValueError("a chunk's size line is too long")
        self._rest = rest


def _size(line: bytes) -> int:
    """Size of a chunk, extensions left out."""
    size = int(line.partition(b";")[0] if b";" in line else line, 16)
    if size < 0:
        raise ValueError("negative chunk size")
    return size
