"""Frames that were sent, so that a page that lost its connection for a moment gets what it missed. Bounded; pure.

An id is `<boot>-<number>`: the boot tells this console's life from an earlier one, whose frames nobody has any more.
"""

import re
from collections import deque
from typing import Final

import msgspec

from saga.console.wire import Frame

KEPT: Final = 64  # about 12 s
KEPT_BYTES: Final = 8 * 1024 * 1024
_ID: Final = re.compile(r"([0-9a-f]{8})-([0-9]{1,15})")
_encoder = msgspec.json.Encoder()


class BadEventIdError(ValueError):
    """These characters are no event id of any console. The text says what one looks like."""


class FrameLog:
    """The newest frames as server-sent events, in bytes."""

    def __init__(self, boot: str) -> None:
        """`boot`: eight hexadecimal digits that no other life of a console has."""
        self.boot = boot
        self.number = 0
        self._kept: deque[tuple[int, bytes]] = deque()
        self._bytes = 0

    def add(self, frame: Frame) -> None:
        """The next frame."""
        self.number += 1
        event = event_of(self.boot, self.number, frame)
        self._kept.append((self.number, event))
        self._bytes += len(event)
        while len(self._kept) > KEPT or (self._bytes > KEPT_BYTES and len(self._kept) > 1):
            self._bytes -= len(self._kept.popleft()[1])

    def after(self, number: int) -> list[bytes] | None:
        """The events after this one; None when some of them are no longer kept, or it is none of ours."""
        if number > self.number or number < self.number - len(self._kept):
            return None
        return [event for kept, event in self._kept if kept > number]

    def number_of(self, event_id: str) -> int | None:
        """Which event a page has seen last; None: one of an earlier life. Raises BadEventIdError."""
        found = _ID.fullmatch(event_id)
        if found is None:
            raise BadEventIdError(
                f"Last-Event-ID {event_id[:40]!r} is none of a console: they are <8 hexadecimal digits>-<number>."
            )
        return int(found[2]) if found[1] == self.boot else None


def event_of(boot: str, number: int, frame: Frame) -> bytes:
    """One server-sent event; JSON has no line breaks."""
    kind = b"whole" if frame.whole else b"change"
    return b"id: %s-%d\nevent: %s\ndata: %s\n\n" % (boot.encode(), number, kind, _encoder.encode(frame))
