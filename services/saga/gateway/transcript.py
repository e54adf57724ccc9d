"""What a stream has told its client so far: raw and unread until someone asks. Pure.

Reading each chunk as it passes would cost more than relaying it. So raw events pile up, and are folded into text,
finish reason, usage and tool names in blocks, or when the stream ends or its engine dies.
"""

from typing import Final

import msgspec

from saga.gateway import sse
from saga.gateway.answers import ANSWERS, Answer, Choice, Usage
from saga.kv.tokens import TOKEN_BYTES, encode_text

_FOLD_BYTES: Final = 64 * 1024
_LAST_EVENTS: Final = 4


class Transcript:
    """The output of one step, over all its attempts."""

    __slots__ = (
        "_limit_bytes",
        "_raw",
        "_raw_bytes",
        "_texts",
        "created",
        "events",
        "finish_reason",
        "id",
        "overflowed",
        "reasoned",
        "role_sent",
        "text_bytes",
        "tools",
        "tools_begun",
        "usage",
    )

    def __init__(self, limit_bytes: int) -> None:
        """Keeps up to `limit_bytes` of text for a continuation."""
        self._limit_bytes = limit_bytes
        self._raw: list[bytes] = []
        self._raw_bytes = 0
        self._texts: list[str] = []
        self.text_bytes = 0
        self.events = 0  # as relayed: about one per token
        self.id = ""
        self.created = 0
        self.role_sent = False
        self.reasoned = False
        self.tools_begun = False
        self.tools: tuple[str, ...] = ()
        self.finish_reason: str | None = None
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
        for event in sse.each(self._take()):
            self._read(event)

    def fold_end(self) -> None:
        """Read only what a finished stream is asked for: its last events, and all of them if it called tools."""
        raw = self._take()
        events = sse.each(raw)
        for event in events if b'"tool_calls"' in raw else events[-_LAST_EVENTS:]:
            self._read(event)

    @property
    def text(self) -> str:
        """All text sent. Fold first."""
        return "".join(self._texts)

    @property
    def text_tokens(self) -> int:
        """Tokens in it, by the built-in tokenizer."""
        return len(encode_text(self.text)) // TOKEN_BYTES

    @property
    def begun(self) -> bool:
        """Whether anything but the role was sent. Fold first."""
        return bool(self._texts or self.reasoned or self.tools_begun or self.overflowed)

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
            chunk = ANSWERS.decode(data)
        except msgspec.DecodeError:
            return  # relayed as it came; whatever it is, it is no text we could continue
        self.read_chunk(chunk)

    def read_chunk(self, chunk: Answer) -> None:
        """Take one chunk into account."""
        if not self.id:
            self.id, self.created = chunk.id, chunk.created
        if chunk.usage is not None:
            self.usage = chunk.usage
        self.tools += chunk.tools()
        for choice in chunk.choices:
            self._choice(choice)

    def _choice(self, choice: Choice) -> None:
        self.finish_reason = choice.finish_reason or self.finish_reason
        text = choice.text
        if choice.delta is not None:
            self.role_sent |= choice.delta.role is not None
            self.reasoned |= bool(choice.delta.reasoning_content)
            self.tools_begun |= bool(choice.delta.tool_calls)
            text = choice.delta.content
        if not text:
            return
        self.text_bytes += len(text)
        if self.text_bytes > self._limit_bytes:
            self.overflowed = True
            self._texts.clear()
        else:
            self._texts.append(text)
