"""A core's life as bytes: how it was made, then every event with the effects that it answered.

Pure: who writes the bytes is `saga.runtime.recording`, who feeds them to a fresh core is `saga.sim.replayed`. A file
is a row of frames, each four bytes of length and MessagePack; a last frame that was cut short is as if never written.
Events are named by their class, so that only a reader needs to know which there are. Effects are compared, never
carried out again, so that nobody needs to know their classes.
"""

from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Final, Protocol

import msgspec

from saga.contract.errors import MessageError
from saga.contract.messages import Message, decode
from saga.contract.unreadable import UNREADABLE

FORMAT: Final = 1
LENGTH_BYTES: Final = 4
READ_BYTES: Final = 1 << 20  # at once: a damaged length may say 4 GiB

_encoder = msgspec.msgpack.Encoder()


class RecordError(ValueError):
    """These bytes are no recording that this version can read; the message says why."""


class Header(msgspec.Struct, frozen=True, kw_only=True):
    """The first frame. `making`: what the core was made from, a Struct of its service."""

    service: str
    name: str  # of the process: its id
    making: msgspec.Raw
    format: int = FORMAT


class Entry(msgspec.Struct, frozen=True, array_like=True):
    """One event, when it came on the core's clock, and the effects as encoded by `encode_effects`."""

    now_s: float
    kind: str  # the event's class
    event: msgspec.Raw
    effects: msgspec.Raw


class Source(Protocol):
    """Where bytes come from: an open file."""

    def read(self, size: int, /) -> bytes:
        """Up to so many bytes; fewer only at the end."""
        ...


def header_frame(service: str, name: str, making: msgspec.Struct) -> bytes:
    """The first frame of a recording."""
    payload = _encoder.encode(Header(service=service, name=name, making=msgspec.Raw(_encoder.encode(making))))
    return len(payload).to_bytes(LENGTH_BYTES, "big") + payload


def add_entry(buffer: bytearray, now_s: float, event: object, effects: Sequence[object]) -> None:
    """Append a frame to the buffer. Encoded at once, so that nothing that changes later can show in it."""
    at = len(buffer)
    buffer += b"\0" * LENGTH_BYTES
    _encoder.encode_into((now_s, type(event).__name__, event, _named(effects)), buffer, at + LENGTH_BYTES)
    buffer[at : at + LENGTH_BYTES] = (len(buffer) - at - LENGTH_BYTES).to_bytes(LENGTH_BYTES, "big")


def encode_effects(effects: Sequence[object]) -> bytes:
    """Effects as an Entry has them."""
    return _encoder.encode(_named(effects))


def decode_effects(effects: bytes) -> list[tuple[str, Any]]:
    """(class, fields) of each, messages as mappings. Raises RecordError for bytes that are none."""
    try:
        return msgspec.msgpack.decode(effects, type=list[tuple[str, Any]])
    except UNREADABLE as error:
        raise RecordError(f"effects of an event cannot be read: {error}") from error


def same_effects(recorded: bytes, again: bytes) -> bool:
    """Whether two lists of encoded effects say the same: bit by bit, but a whole number may be written as a float."""
    return recorded == again or decode_effects(recorded) == decode_effects(again)


def read_frames(source: Source) -> Iterator[bytes]:
    """The frames of a recording, the header's first."""
    while len(length := source.read(LENGTH_BYTES)) == LENGTH_BYTES:
        payload, size = bytearray(), int.from_bytes(length, "big")
        while len(payload) < size:
            part = source.read(min(READ_BYTES, size - len(payload)))
            if not part:
                return
            payload += part
        yield bytes(payload)


def read_header(frame: bytes) -> Header:
    """The header in the first frame. Raises RecordError."""
    try:
        header = msgspec.msgpack.decode(frame, type=Header)
    except UNREADABLE as error:
        raise RecordError(f"no recording: {error}") from None
    if header.format != FORMAT:
        raise RecordError(f"a recording of format {header.format}; this version reads {FORMAT}")
    return header


def read_entry(frame: bytes) -> Entry:
    """The entry in a later frame. Raises RecordError."""
    try:
        return msgspec.msgpack.decode(frame, type=Entry)
    except UNREADABLE as error:
        raise RecordError(f"damaged entry: {error}") from None


class Events:
    """The events of one core, by the names of their classes."""

    def __init__(self, kinds: Iterable[type[msgspec.Struct]]) -> None:
        self._kinds = {kind.__name__: kind for kind in kinds}

    def of(self, entry: Entry) -> Any:  # noqa: ANN401 - each core has its own events
        """The event of an entry. Raises RecordError for one that this core does not have."""
        kind = self._kinds.get(entry.kind)
        if kind is None:
            raise RecordError(f"unknown event {entry.kind}; known are {', '.join(sorted(self._kinds))}")
        try:
            if any(field.type is Message for field in msgspec.structs.fields(kind)):
                carried = msgspec.msgpack.decode(entry.event, type=_Carrier)
                return kind(decode(bytes(carried.message)))
            return msgspec.msgpack.decode(entry.event, type=kind)
        except (*UNREADABLE, MessageError) as error:
            raise RecordError(f"damaged {entry.kind}: {error}") from None


class _Carrier(msgspec.Struct):
    """Any event that carries a message from the bus: its class alone does not say which messages there are."""

    message: msgspec.Raw


def _named(effects: Sequence[object]) -> list[tuple[str, object]]:
    return [(type(effect).__name__, effect) for effect in effects]
