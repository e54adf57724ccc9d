"""The JSON of answers in the shape that SGLang gives Anthropic's Messages API: named events, content in blocks.

Called by the sinks, as the forms in `http_answers.py`.
"""

from typing import Final

import msgspec

from saga.engine.events import Finished
from saga.engine.http_answers import Fields
from saga.engine.http_ask import Ask
from saga.engine.tool_call import ToolCall

_STOP_REASONS: Final = {"stop": "end_turn", "length": "max_tokens", "tool_calls": "tool_use"}
_STOP: Final = b'event: message_stop\ndata: {"type":"message_stop"}\n\n'
_TEXT_STARTS: Final = (
    b"event: content_block_start\n"
    b'data: {"type":"content_block_start","index":0,"content_block":{"type":"text","text":""}}\n\n'
)
_DELTA: Final = b'event: content_block_delta\ndata: {"type":"content_block_delta","index":0,"delta":'


class MessagesForm:
    """How a message looks."""

    done = _STOP
    always_begins = True

    def __init__(self, ask: Ask, model: str) -> None:
        self._ask = ask
        self._base: Fields = {"id": f"msg_{ask.rid}", "type": "message", "role": "assistant"}
        self._model = model
        self._open = False

    def first_chunk(self, cached_tokens: int) -> bytes:
        """The message begins: all that is told of its prompt."""
        usage = self._input_usage(cached_tokens) | {"output_tokens": 0}
        message = self._base | {"content": [], "model": self._model, "usage": usage}
        return _event({"type": "message_start", "message": message})

    def text_chunk(self, text: bytes) -> bytes:
        """New text; ASCII without anything to escape."""
        start, self._open = b"" if self._open else _TEXT_STARTS, True
        return b"".join((start, _DELTA, b'{"type":"text_delta","text":"', text, b'"}}\n\n'))

    def call_chunk(self, call: ToolCall) -> bytes:
        """A tool call begins."""
        self._open = True
        return _event({"type": "content_block_start", "index": 0, "content_block": self._call(call) | {"input": {}}})

    def arguments_chunk(self, text: str) -> bytes:
        """New text of the call's arguments."""
        return b"".join((_DELTA, msgspec.json.encode({"type": "input_json_delta", "partial_json": text}), b"}\n\n"))

    def last_chunk(self, end: Finished) -> bytes:
        """Why it ended."""
        closing = _event({"type": "content_block_stop", "index": 0}) if self._open else b""
        delta = {"stop_reason": _STOP_REASONS.get(end.reason, "end_turn")}
        return closing + _event(
            {"type": "message_delta", "delta": delta, "usage": {"output_tokens": end.output_tokens}}
        )

    def usage_chunk(self, end: Finished) -> bytes:
        """Usage is part of other events here."""
        del end
        return b""

    def whole(self, end: Finished, text: bytes) -> bytes:
        """The answer of a request that does not stream."""
        call = self._ask.tool_call
        block: Fields = {"type": "text", "text": text.decode()}
        if call is not None and end.reason == "tool_calls":
            block = self._call(call) | {"input": msgspec.Raw(call.arguments.encode())}
        usage = self._input_usage(end.cached_tokens) | {"output_tokens": end.output_tokens}
        stop = {"stop_reason": _STOP_REASONS.get(end.reason, "end_turn"), "usage": usage}
        return msgspec.json.encode(self._base | {"content": [block], "model": self._model} | stop)

    def _call(self, call: ToolCall) -> Fields:
        return {"type": "tool_use", "id": f"call_{self._ask.rid}", "name": call.name}

    def _input_usage(self, cached_tokens: int) -> Fields:
        usage: Fields = {"input_tokens": self._ask.prompt_tokens - cached_tokens}
        return usage | {"cache_read_input_tokens": cached_tokens} if cached_tokens else usage


def _event(fields: Fields) -> bytes:
    return b"event: %b\ndata: %b\n\n" % (str(fields["type"]).encode(), msgspec.json.encode(fields))
