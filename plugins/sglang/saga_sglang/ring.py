"""The channel's format and its reading end: retention values in a ring of records in shared memory.

One writer (the worker agent beside this server, `saga.worker.retention_ring`), any number of readers, no locks: each
record carries its own number and a checksum, so that a torn, lost or foreign record is seen as such and waited for.
Made and mapped by `channel`, read by `policy`. Nothing here blocks or grows without bound.
"""

import struct
import zlib
from math import isfinite
from typing import Final

MAGIC: Final = b"SAGARET1"
HEADER: Final = struct.Struct("=8sIId")  # magic, records, bytes of each, the writer's last beat in monotonic seconds
HEADER_BYTES: Final = 64
BEAT: Final = struct.Struct("=d")
BEAT_AT: Final = 16
TAG_BYTES: Final = 72  # a longer tag is not told
RECORD: Final = struct.Struct(f"=QdII{TAG_BYTES}s")  # number from 1 on, value, checksum, bytes of the tag, the tag
BODY: Final = struct.Struct(f"=Qd{TAG_BYTES}s")  # what the checksum is of
RECORDS: Final = 8_192
MAX_VALUES: Final = 65_536  # beyond this the value told longest ago is forgotten


def ring_bytes(records: int = RECORDS) -> int:
    """Size of the whole file."""
    return HEADER_BYTES + records * RECORD.size


def empty(records: int = RECORDS) -> bytes:
    """A ring in which nothing has been said."""
    head = HEADER.pack(MAGIC, records, RECORD.size, 0.0)
    return head + bytes(ring_bytes(records) - len(head))


def records_of(buffer: memoryview) -> int:
    """How many records the ring has. Raises ValueError for anything that is no ring of this format."""
    if len(buffer) < HEADER_BYTES:
        raise ValueError("too short for a channel of retention values")
    magic, records, record_bytes, _ = HEADER.unpack_from(buffer)
    if magic != MAGIC or record_bytes != RECORD.size or records < 1 or len(buffer) != ring_bytes(records):
        raise ValueError("no channel of retention values, or of another version")
    return int(records)


class RingReader:
    """What the agent said, as far as it was read. `values`: session tag to value, at most MAX_VALUES."""

    def __init__(self, buffer: memoryview, max_values: int = MAX_VALUES) -> None:
        """Reads what is there. Raises ValueError when it is no ring."""
        self.values: dict[str, float] = {}
        self._buffer = buffer
        self._records = records_of(buffer)
        self._max_values = max_values
        self._next = 1
        self._all()

    def beat_s(self) -> float:
        """When the writer was last alive, in monotonic seconds of this machine; 0: never, or it said goodbye."""
        beat_s: float = BEAT.unpack_from(self._buffer, BEAT_AT)[0]
        return beat_s

    def read(self) -> None:
        """Take in what is new: at most one ring."""
        for _ in range(self._records):
            number, value, checksum, length, tag = self._record((self._next - 1) % self._records)
            if number < self._next:
                return
            if number > self._next:  # written over before it was read
                self._all()
                return
            if not _whole(number, value, checksum, tag):
                return  # being written: later
            self._take(tag[:length], value)
            self._next += 1

    def _all(self) -> None:
        """Whatever can be read of the whole ring, in the order it was said."""
        found = [self._record(slot) for slot in range(self._records)]
        whole = [record for record in found if record[0] and _whole(record[0], record[1], record[2], record[4])]
        for number, value, _checksum, length, tag in sorted(whole):
            if number >= self._next:
                self._take(tag[:length], value)
                self._next = number + 1

    def _record(self, slot: int) -> tuple[int, float, int, int, bytes]:
        record: tuple[int, float, int, int, bytes]
        record = RECORD.unpack_from(self._buffer, HEADER_BYTES + slot * RECORD.size)
        return record

    def _take(self, tag: bytes, value: float) -> None:
        name = tag.decode("utf-8", "replace")
        if not isfinite(value):
            return
        self.values.pop(name, None)  # so that the order of the dict is that of the telling
        self.values[name] = value
        if len(self.values) > self._max_values:
            del self.values[next(iter(self.values))]


def _whole(number: int, value: float, checksum: int, tag: bytes) -> bool:
    return zlib.crc32(BODY.pack(number, value, tag)) == checksum
