"""The journal of open session tags, as lines: what a restarted agent must close or take over.

Pure; the file is the shell's. Each line is `+` and a TagRecord as JSON, or `-` and a tag that is gone. The last word on
a tag counts; a line cut short by a crash is ignored. Losing the journal costs no step, only KV that stays pinned until
it is the oldest.
"""

from typing import Final

import msgspec

from saga.contract.unreadable import UNREADABLE
from saga.worker.tags import TagRecord

COMPACT_LINES: Final = 2_000  # lines beyond twice the open tags before the journal is written anew

_encoder = msgspec.json.Encoder()
_decoder = msgspec.json.Decoder(TagRecord)


def encode_record(record: TagRecord) -> bytes:
    """A record as the journal keeps it, without line end."""
    return _encoder.encode(record)


class Journal:
    """What the journal says now, and how long it has become."""

    def __init__(self, written: bytes = b"") -> None:
        """`written`: what the last run left."""
        self._records: dict[str, bytes] = {}
        self._lines = 0
        for line in written.split(b"\n")[:-1]:
            self._read(line)

    def records(self) -> list[TagRecord]:
        """The tags that were open."""
        return [_decoder.decode(value) for value in self._records.values()]

    def opened(self, tag: str, record: bytes) -> bytes:
        """The line to append for a tag that is open, or open otherwise than before."""
        self._records[tag] = record
        self._lines += 1
        return b"+" + record + b"\n"

    def gone(self, tag: str) -> bytes:
        """The line to append for a tag that is closed."""
        self._records.pop(tag, None)
        self._lines += 1
        return b"-" + tag.encode() + b"\n"

    @property
    def overgrown(self) -> bool:
        """Whether it should be written anew."""
        return self._lines > 2 * len(self._records) + COMPACT_LINES

    def anew(self) -> bytes:
        """All of it, without what is gone. Write it beside the old one and rename."""
        self._lines = len(self._records)
        return b"".join(b"+" + record + b"\n" for record in self._records.values())

    def _read(self, line: bytes) -> None:
        self._lines += 1
        try:
            if line.startswith(b"+"):
                self._records[_decoder.decode(line[1:]).tag] = line[1:]
            elif line.startswith(b"-"):
                self._records.pop(line[1:].decode(), None)
        except UNREADABLE:
            return
