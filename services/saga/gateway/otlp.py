"""Spans as OTLP's protobuf, written by hand: a third of what the generated classes cost, which was more of a gateway's
time than all else that observes it (bench/observability_cost.py). Pure. Only what our spans have: strings, whole
numbers, fractions and tuples of strings as attributes; no events, no links.

The numbers are field numbers of opentelemetry-proto's trace.proto, resource.proto and common.proto.
"""

import struct
from collections.abc import Callable, Iterable, Mapping
from functools import lru_cache
from typing import TYPE_CHECKING, Final, Protocol

if TYPE_CHECKING:  # whoever has spans has it
    from opentelemetry.trace import SpanContext, SpanKind

Value = str | int | float | tuple[str, ...]
_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5  # wire types
_HAS_IS_REMOTE, _IS_REMOTE = 0x100, 0x200  # of Span.flags
_TIMES: Final = struct.Struct("<BQBQ")  # start and end with their tags
_DOUBLE: Final = struct.Struct("<Bd")
_FLAGS: Final = struct.Struct("<BBI")
_SHORT: Final = 0x80 - 4  # bytes of a key and a text, so that all lengths around them take one byte
_SMALL: Final = 1 << 12  # whole numbers that are encoded once
_HEADS: Final = [[bytes((field << 3 | _BYTES, size)) for size in range(0x80)] for field in range(16)]
_TEXT_HEADS: Final = [bytes((2 << 3 | _BYTES, size + 2, 1 << 3 | _BYTES, size)) for size in range(_SHORT)]


class Spanned(Protocol):
    """What is encoded of a span: `trace` is its trace's context, `span_id` its own."""

    name: str
    kind: "SpanKind"
    trace: "SpanContext"
    span_id: int
    parent: "SpanContext | None"
    since_ns: int
    until_ns: int
    well: bool

    @property
    def attributes(self) -> Callable[[], Mapping[str, object]]:
        """Asked for once."""
        ...


def request(resource: Mapping[str, object], scope: str, spans: Iterable["Spanned"]) -> bytes:
    """An ExportTraceServiceRequest of one resource and one scope."""
    body = _part(1, _part(1, scope.encode())) + b"".join([_part(2, _span(span)) for span in spans])
    return _part(1, _part(1, _attributes(1, resource)) + _part(2, body))


def _span(span: "Spanned") -> bytes:
    trace, parent = span.trace, span.parent
    flags = _HAS_IS_REMOTE | (_IS_REMOTE if parent is not None and parent.is_remote else 0)
    parts = [b"\x0a\x10", trace.trace_id.to_bytes(16, "big"), b"\x12\x08", span.span_id.to_bytes(8, "big")]
    if trace.trace_state:
        parts.append(_part(3, trace.trace_state.to_header().encode()))
    if parent is not None:
        parts += (b"\x22\x08", parent.span_id.to_bytes(8, "big"))
    parts += (
        _part(5, span.name.encode("utf-8", "replace")),
        b"\x30" + _varint(span.kind.value + 1),
        _TIMES.pack(7 << 3 | _FIXED64, span.since_ns, 8 << 3 | _FIXED64, span.until_ns),
        _attributes(9, span.attributes()),
        b"\x7a\x00" if span.well else b"\x7a\x02\x18\x02",  # Status, code ERROR
        _FLAGS.pack((16 << 3 & 0x7F) | _FIXED32 | 0x80, 16 << 3 >> 7, flags),
    )
    return b"".join(parts)


def _attributes(field: int, attributes: Mapping[str, object]) -> bytes:
    parts: list[bytes] = []
    for name, value in attributes.items():
        key = _key(name)
        if type(value) is str:  # most are; in one go, not a call for each layer
            data = value.encode("utf-8", "replace")
            if len(key) + len(data) < _SHORT:
                parts += (_HEADS[field][len(key) + 4 + len(data)], key, _TEXT_HEADS[len(data)], data)
                continue
            value_part = _part(2, _part(1, data))
        elif type(value) is int and 0 <= value < _SMALL:
            value_part = _whole(value)
        else:
            value_part = _part(2, _any(value))
        size = len(key) + len(value_part)
        parts += (_HEADS[field][size] if size < 0x80 else _head(field, size), key, value_part)
    return b"".join(parts)


@lru_cache(maxsize=256)  # names are ours
def _key(name: str) -> bytes:
    return _part(1, name.encode())


@lru_cache(maxsize=_SMALL)
def _whole(value: int) -> bytes:
    return _part(2, _any(value))


def _any(value: object) -> bytes:
    """An AnyValue."""
    if isinstance(value, str):
        return _part(1, value.encode("utf-8", "replace"))
    if isinstance(value, bool):
        return b"\x10\x01" if value else b"\x10\x00"
    if isinstance(value, int):
        return b"\x18" + _varint(value & 0xFFFF_FFFF_FFFF_FFFF)
    if isinstance(value, float):
        return _DOUBLE.pack(4 << 3 | _FIXED64, value)
    if isinstance(value, tuple):
        return _part(5, b"".join([_part(1, _any(one)) for one in value]))
    raise TypeError(f"an attribute cannot be a {type(value).__name__}")


def _part(field: int, data: bytes) -> bytes:
    """A field with a length."""
    size = len(data)
    return (_HEADS[field][size] if size < 0x80 else _head(field, size)) + data


def _head(field: int, size: int) -> bytes:
    return bytes((field << 3 | _BYTES,)) + _varint(size)


def _varint(number: int) -> bytes:
    if number < 0x80:
        return bytes((number,))
    out = bytearray()
    while number > 0x7F:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    out.append(number)
    return bytes(out)
