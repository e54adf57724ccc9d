"""Server-sent events, scanned as cheaply as the relay needs it. Pure.

An event of these APIs is `data: {json}` and an empty line. Bytes pass through unparsed; only events that carry a marker
are looked at. Inside a JSON string quotes are escaped, so a marker with quotes cannot be text of the model.
"""

from typing import Final

DONE: Final = b"data: [DONE]\n\n"
END: Final = b"\n\n"
_PREFIX: Final = b"data:"


def split_whole(data: bytes) -> tuple[bytes, bytes]:
    """(events that are complete, the beginning of the next)."""
    if data.endswith(END):
        return data, b""
    cut = data.rfind(END) + len(END)
    return (data[:cut], data[cut:]) if cut >= len(END) else (b"", data)


def needs_care(events: bytes) -> bool:
    """Whether any of these may be an abort, an error or usage alone: what not every client gets as it is."""
    return b'"choices":[]' in events or b'"abort"' in events or b'"error"' in events or b'"choices": []' in events


def each(events: bytes) -> list[bytes]:
    """Complete events, one by one, as they came."""
    return [part + END for part in events.split(END) if part]


def payload(event: bytes) -> bytes:
    """The JSON of one event; empty for comments and the end mark."""
    event = event.strip()
    if not event.startswith(_PREFIX):
        return b""
    data = event[len(_PREFIX) :].strip()
    return b"" if data == b"[DONE]" else data


def event_of(data: bytes) -> bytes:
    """JSON as an event."""
    return b"data: " + data + END


def comment(text: str) -> bytes:
    """A line that clients ignore and proxies count as life."""
    return f": {text}\n\n".encode()
