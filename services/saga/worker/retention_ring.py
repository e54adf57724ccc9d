"""The writing end of the channel to SAGA's plugin in SGLang: retention values in a ring of records in shared memory.

The format is the plugin's (`plugins/sglang/saga_sglang/ring.py`, which has no dependencies and so shares no code with
us); tests hold both ends together. Pure: who maps the memory is the shell's business. A writer never waits: what no
reader took in time is written over.
"""

import struct
import zlib
from math import isfinite
from typing import Final

from saga.contract.ids import SessionTag

_MAGIC: Final = b"SAGARET1"
_HEADER: Final = struct.Struct("=8sIId")
_HEADER_BYTES: Final = 64
_BEAT: Final = struct.Struct("=d")
_BEAT_AT: Final = 16
_TAG_BYTES: Final = 72
_RECORD: Final = struct.Struct(f"=QdII{_TAG_BYTES}s")
_BODY: Final = struct.Struct(f"=Qd{_TAG_BYTES}s")


class RetentionRing:
    """The ring of one engine. It goes on where the last writer stopped."""

    def __init__(self, buffer: memoryview) -> None:
        """Raises ValueError when this is no ring of our format."""
        if len(buffer) < _HEADER_BYTES:
            raise ValueError("too short for a channel of retention values")
        magic, records, record_bytes, _ = _HEADER.unpack_from(buffer)
        if magic != _MAGIC or record_bytes != _RECORD.size or len(buffer) != _HEADER_BYTES + records * _RECORD.size:
            raise ValueError("no channel of retention values, or of another version")
        self._buffer = buffer
        self._records = int(records)
        self._written = max(self._number_at(slot) for slot in range(self._records))

    def set(self, tag: SessionTag, value: float) -> bool:
        """Say what a tag is worth from now on. False, and nothing said, for what the format cannot carry."""
        raw = tag.encode()
        if len(raw) > _TAG_BYTES or not isfinite(value):
            return False
        number = self._written + 1
        padded = raw.ljust(_TAG_BYTES, b"\0")
        checksum = zlib.crc32(_BODY.pack(number, value, padded))
        at = _HEADER_BYTES + (number - 1) % self._records * _RECORD.size
        _RECORD.pack_into(self._buffer, at, number, value, checksum, len(raw), padded)
        self._written = number
        return True

    def beat(self, now_s: float) -> None:
        """We are alive; seconds of the machine's monotonic clock. 0: goodbye, what was said holds no longer."""
        _BEAT.pack_into(self._buffer, _BEAT_AT, now_s)

    def _number_at(self, slot: int) -> int:
        """Of the record in a slot; 0 for none, and for one that its writer did not finish."""
        number, value, checksum, _length, tag = _RECORD.unpack_from(self._buffer, _HEADER_BYTES + slot * _RECORD.size)
        return int(number) if number and zlib.crc32(_BODY.pack(number, value, tag)) == checksum else 0
