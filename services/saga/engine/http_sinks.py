"""Where tokens go on the HTTP side: into a stream of server-sent events, or into one answer at the end.

A stream writes its chunks straight to the transport, in HTTP chunk framing, from the engine's wake-up: no task is woken
per token. A client too slow to keep up is cut off rather than buffered for ever.
"""

import asyncio
import codecs
from collections.abc import Callable
from typing import Final

import msgspec

from saga.engine.events import Finished
from saga.engine.http_answers import DONE, Form, generate_answer
from saga.engine.http_ask import Ask
from saga.engine.output import LiveOutput

MAX_UNSENT_BYTES: Final = 8 << 20


class Wire:
    """The body of one streaming HTTP response."""

    def __init__(self, transport: asyncio.Transport, *, chunked: bool) -> None:
        self._transport = transport
        self._chunked = chunked

    def send(self, data: bytes) -> bool:
        """Write; False when the client has gone, or was cut off for being too slow."""
        if self._transport.is_closing():
            return False
        if self._transport.get_write_buffer_size() > MAX_UNSENT_BYTES:
            self._transport.abort()
            return False
        self._transport.write(b"%x\r\n%b\r\n" % (len(data), data) if self._chunked else data)
        return True


class Collected:
    """Waits for the end of a request that does not stream."""

    def __init__(self) -> None:
        self.done: asyncio.Future[Finished] = asyncio.get_running_loop().create_future()

    def progressed(self, output: LiveOutput, output_tokens: int) -> None:
        """Nothing to do before the end."""

    def finished(self, output: LiveOutput, end: Finished) -> None:
        """Wake the handler."""
        del output
        if not self.done.done():
            self.done.set_result(end)


class Streamed(Collected):
    """An answer as server-sent events, one per token and wake-up."""

    def __init__(self, wire: Wire, ask: Ask, form: Form, cached: Callable[[str], int | None]) -> None:
        """`cached`: how much of a prompt was in the cache, by rid; None for a request that is over."""
        super().__init__()
        self._wire = wire
        self._ask = ask
        self._form = form
        self._cached = cached
        self._sent_tokens = 0
        self._chunk: Callable[[bytes], bytes] = form.text_chunk
        if ask.tool_call is not None:
            self._chunk = _CallChunks(ask, form)

    def progressed(self, output: LiveOutput, output_tokens: int) -> None:
        """Send what is new."""
        if self._sent_tokens == 0:
            cached_tokens = self._cached(self._ask.rid)
            if cached_tokens is None:
                return  # it ends at this very moment, and `finished` says all
            first = self._form.first_chunk(cached_tokens)
            self._wire.send(first + self._chunk(output.text(0, output_tokens)))
        elif chunk := self._chunk(output.text(self._sent_tokens, output_tokens)):
            self._wire.send(chunk)
        self._sent_tokens = output_tokens

    def finished(self, output: LiveOutput, end: Finished) -> None:
        """Send what is missing, why it ended, usage if asked for, and the end mark."""
        parts: list[bytes] = []
        if self._sent_tokens == 0 and (end.output_tokens or self._form.always_begins):
            parts.append(self._form.first_chunk(end.cached_tokens))
        if end.output_tokens > self._sent_tokens:
            parts.append(self._chunk(output.text(self._sent_tokens, end.output_tokens)))
        parts.append(self._form.last_chunk(end))
        if self._ask.include_usage:
            parts.append(self._form.usage_chunk(end))
        self._wire.send(b"".join([*parts, self._form.done]))
        super().finished(output, end)


class StreamedGenerate(Collected):
    """/generate as server-sent events, each with all text so far, as SGLang sends it."""

    def __init__(self, wire: Wire, ask: Ask) -> None:
        super().__init__()
        self._wire = wire
        self._ask = ask

    def progressed(self, output: LiveOutput, output_tokens: int) -> None:
        """Send the text so far."""
        self._send(None, output, output_tokens)

    def finished(self, output: LiveOutput, end: Finished) -> None:
        """Send the whole answer and the end mark."""
        self._send(end, output, end.output_tokens)
        self._wire.send(DONE)
        super().finished(output, end)

    def _send(self, end: Finished | None, output: LiveOutput, output_tokens: int) -> None:
        answer = generate_answer(end, self._ask, output.text(0, output_tokens), output_tokens)
        self._wire.send(b"data: " + msgspec.json.encode(answer) + b"\n\n")


class _CallChunks:
    """Cuts the chunks of a tool call out of the tokens said: its arguments, without what stands around them."""

    def __init__(self, ask: Ask, form: Form) -> None:
        assert ask.tool_call is not None
        self._call = ask.tool_call
        self._form = form
        self._begins = len(self._call.head.encode())
        self._ends = self._begins + len(self._call.arguments.encode())
        self._said = 0
        self._decoder = codecs.getincrementaldecoder("utf-8")()

    def __call__(self, said: bytes) -> bytes:
        start, self._said = self._said, self._said + len(said)
        arguments = self._decoder.decode(said[max(0, self._begins - start) : max(0, self._ends - start)])
        chunk = self._form.call_chunk(self._call) if start == 0 else b""
        return chunk + self._form.arguments_chunk(arguments) if arguments else chunk
