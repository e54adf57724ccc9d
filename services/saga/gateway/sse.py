"""Server-sent events, scanned as cheaply as the relay needs it. Pure.

An event of these APIs is `data: {json}` and an empty line, in some with a line `event: name` before it. Bytes pass
through unparsed; a dialect looks only at events that carry a marker.
"""

from typing import Final

DONE: Final = b"data: [DONE]\n\n"
END: Final = b"\n\n"
_PREFIX: Final = b"data:"
_NAME: Final = b"event:"
_LATER: Final = b"\ndata:"


def split_whole(data: bytes) -> tuple[bytes, bytes]:
    """(events that are complete, the beginning of the next)."""
    if data.endswith(END):
        return data, b""
    cut = data.rfind(END) + len(END)
    return (data[:cut], data[cut:]) if cut >= len(END) else (b"", data)


def each(events: bytes) -> list[bytes]:
    """Complete events, one by one, as they came."""
    return [part + END for part in events.split(END) if part]


def payload(event: bytes) -> bytes:
    """The JSON of one event; empty for comments and the end mark."""
    event = event.strip()
    if not event.startswith(_PREFIX):
        at = event.find(_LATER) if event.startswith(_NAME) else -1
        if at < 0:
            return b""
        event = event[at + 1 :]
    data = event[len(_PREFIX) :].strip()
    return b"" if data == b"[DONE]" else data


def event_of(data: bytes, name: str = "") -> bytes:
    """JSON as an event."""
    return b"event: %b\ndata: %b\n\n" % (name.encode(), data) if name else b"data: " + data + END


def comment(text: str) -> bytes:
    """A line that clients ignore and proxies count as life."""
    return f": {text}\n\n".encode()
