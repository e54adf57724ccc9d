"""What a stream has told its client so far: raw and unread until someone asks. Pure.

Reading each chunk as it passes would cost more than relaying it. So raw events pile up, and are folded into text,
finish reason, usage and tool names in blocks, or when the stream ends or its engine dies.
"""

from collections.abc import Callable
from typing import Final, Protocol

import msgspec

from saga.contract.messages import FinishReason
from saga.contract.unreadable import UNREADABLE
from saga.gateway import sse
from saga.kv.tokens import TOKEN_BYTES

_FOLD_BYTES: Final = 64 * 1024
_LAST_EVENTS: Final = 4
_OPENING_CHARS: Final = 64


class Usage(msgspec.Struct, frozen=True, gc=False):
    """What an engine counted."""

    prompt_tokens: int  # cached ones included
    output_tokens: int
    cached_tokens: int
    counts_cached: bool = True  # false: nothing was said of them, which an engine also does when there are none


class Reader(Protocol):
    """An API's way to tell what happened; see `dialects/dialect.py`."""

    tool_mark: bytes
    first_events: int

    def read(self, data: bytes, sent: "Transcript") -> None:
        """Note what one event's JSON says. Raises msgspec.DecodeError."""
        ...


class Transcript:
    """The output of one step, over all its attempts."""

    __slots__ = (
        "_first_events",
        "_first_seen",
        "_gap",
        "_limit_bytes",
        "_raw",
        "_raw_bytes",
        "_reader",
        "_texts",
        "_words",
        "call_id",
        "created",
        "events",
        "finish_reason",
        "id",
        "opened",
        "opening",
        "overflowed",
        "reasoned",
        "role_sent",
        "text_bytes",
        "tools",
        "tools_begun",
        "usage",
    )

    def __init__(
        self,
        limit_bytes: int,
        reader: Reader,
        first_events: int = 0,
        words: Callable[[str], bytes] | None = None,
    ) -> None:
        """Keeps up to `limit_bytes` of text for a continuation. Of a finished stream `first_events` are read too.

        `words`: token bytes of text, by the model's tokenizer; None: it is not known, an event counts as a token.
        """
        self._limit_bytes = limit_bytes
        self._reader = reader
        self._first_events = max(first_events, reader.first_events)
        self._words = words
        self._first_seen = False
        self._gap = False  # not all events were read
        self._raw: list[bytes] = []
        self._raw_bytes = 0
        self._texts: list[str] = []
        self.text_bytes = 0
        self.events = 0  # as relayed: about one per token
        self.id = ""
        self.created = 0
        self.role_sent = False
        self.opened = False  # a part of the answer, though it may be empty
        self.reasoned = False
        self.tools_begun = False
        self.call_id = ""  # of the first call of a tool
        self.opening = ""  # of the text
        self.tools: tuple[str, ...] = ()
        self.finish_reason: FinishReason | None = None
        self.usage: Usage | None = None
        self.overflowed = False

    def add(self, events: bytes) -> None:
        """Complete events that are about to be sent to the client."""
        self.events += events.count(sse.END)
        self._raw.append(events)
        self._raw_bytes += len(events)
        if self._raw_bytes > _FOLD_BYTES:
            self.fold()

    def fold(self) -> None:
        """Read all that has piled up."""
        self._first_seen = self._first_seen or bool(self._raw)
        for event in sse.each(self._take()):
            self._read(event)

    def fold_end(self) -> None:
        """Read only what a finished stream is asked for: its last events, and all of them if it called tools."""
        raw = self._take()
        events = sse.each(raw)
        first = 0 if self._first_seen else self._first_events
        if self._reader.tool_mark not in raw and len(events) > first + _LAST_EVENTS:
            for event in events[:first]:
                self._read(event)
            self._gap = True
            events = events[-_LAST_EVENTS:]
        for event in events:
            self._read(event)

    @property
    def text(self) -> str:
        """All text sent. Fold first."""
        return "".join(self._texts)

    @property
    def text_tokens(self) -> int:
        """Tokens in it."""
        if self._words is None:
            return min(self.events, len(self.text))
        return len(self._words(self.text)) // TOKEN_BYTES

    @property
    def text_token_bytes(self) -> bytes | None:
        """Those tokens; None: nobody here knows them."""
        return None if self._words is None else self._words(self.text)

    @property
    def begun(self) -> bool:
        """Whether anything but the role was sent. Fold first."""
        return bool(self._texts or self.opened or self.reasoned or self.tools_begun or self.overflowed)

    def unreadable_because(self) -> str:
        """Why what was sent cannot be given to another engine to go on from; empty: it can. Fold first."""
        if self.tools_begun:
            return "a tool call had begun"
        if self.reasoned:
            return "reasoning had begun"
        return "too much was sent to keep" if self.overflowed else ""

    def _take(self) -> bytes:
        raw = b"".join(self._raw)
        self._raw.clear()
        self._raw_bytes = 0
        return raw

    def _read(self, event: bytes) -> None:
        data = sse.payload(event)
        if not data:
            return
        try:
            self._reader.read(data, self)
        except UNREADABLE:
            return  # relayed as it came; whatever it is, it is no text we could continue

    def say(self, text: str) -> None:
        """Text for the user."""
        if len(self.opening) < _OPENING_CHARS and not self._gap:
            self.opening += text
        self.text_bytes += len(text)
        if self.text_bytes > self._limit_bytes:
            self.overflowed = True
            self._texts.clear()
        else:
            self._texts.append(text)
