"""Spans as OTLP's protobuf, written by hand: a third of what the generated classes cost, which was more of a gateway's
time than all else that observes it (bench/observability_cost.py). Pure. Only what our spans have: strings, whole
numbers, fractions and tuples of strings as attributes; no events, no links.

The numbers are field numbers of opentelemetry-proto's trace.proto, resource.proto and common.proto.
"""

import struct
from collections.abc import Iterable, Mapping
from functools import lru_cache
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:  # whoever has spans has it
    from opentelemetry.sdk.trace import ReadableSpan

Value = str | int | float | tuple[str, ...]
_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5  # wire types
_HAS_IS_REMOTE, _IS_REMOTE = 0x100, 0x200  # of Span.flags
_KINDS: Final = {"INTERNAL": 1, "SERVER": 2, "CLIENT": 3}
_TIMES: Final = struct.Struct("<BQBQ")  # start and end with their tags
_DOUBLE: Final = struct.Struct("<Bd")
_FLAGS: Final = struct.Struct("<BBI")


def request(resource: Mapping[str, object], scope: str, spans: Iterable["ReadableSpan"]) -> bytes:
    """An ExportTraceServiceRequest of one resource and one scope."""
    body = _part(1, _part(1, scope.encode())) + b"".join([_part(2, _span(span)) for span in spans])
    return _part(1, _part(1, _attributes(1, resource)) + _part(2, body))


def _span(span: "ReadableSpan") -> bytes:
    context, parent = span.context, span.parent
    assert context is not None
    flags = _HAS_IS_REMOTE | (_IS_REMOTE if parent is not None and parent.is_remote else 0)
    parts = [
        b"\x0a\x10",
        context.trace_id.to_bytes(16, "big"),
        b"\x12\x08",
        context.span_id.to_bytes(8, "big"),
    ]
    if context.trace_state:
        parts.append(_part(3, context.trace_state.to_header().encode()))
    if parent is not None:
        parts += (b"\x22\x08", parent.span_id.to_bytes(8, "big"))
    parts += (
        _part(5, span.name.encode()),
        b"\x30" + _varint(_KINDS[span.kind.name]),
        _TIMES.pack(7 << 3 | _FIXED64, span.start_time or 0, 8 << 3 | _FIXED64, span.end_time or 0),
        _attributes(9, span.attributes or {}),
    )
    parts.append(
        b"\x7a\x00" if span.status.is_ok or span.status.is_unset else b"\x7a\x02\x18\x02"
    )  # Status, code ERROR
    parts.append(_FLAGS.pack((16 << 3 & 0x7F) | _FIXED32 | 0x80, 16 << 3 >> 7, flags))
    return b"".join(parts)


def _attributes(field: int, attributes: Mapping[str, object]) -> bytes:
    return b"".join([_part(field, _key(name) + _part(2, _any(value))) for name, value in attributes.items()])


@lru_cache(maxsize=256)  # names are ours
def _key(name: str) -> bytes:
    return _part(1, name.encode())


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
    if size < 0x80 and field < 16:  # most are
        return bytes((field << 3 | _BYTES, size)) + data
    return _varint(field << 3 | _BYTES) + _varint(size) + data


def _varint(number: int) -> bytes:
    if number < 0x80:
        return bytes((number,))
    out = bytearray()
    while number > 0x7F:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    out.append(number)
    return bytes(out)
