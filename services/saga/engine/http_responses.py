"""The JSON of answers in the shape that SGLang gives OpenAI's Responses API: numbered events, output in items.

Called by the sinks, as the forms in `http_answers.py`.
"""

import time
from typing import Final

import msgspec

from saga.engine.events import Finished
from saga.engine.http_answers import Fields
from saga.engine.http_ask import Ask
from saga.engine.http_bodies import ResponsesBody
from saga.engine.tool_call import ToolCall

_STATUS: Final = {"length": "incomplete", "abort": "failed"}


class ResponsesForm:
    """How a response looks."""

    done = b""
    always_begins = True

    def __init__(self, ask: Ask, model: str, body: ResponsesBody) -> None:
        self._ask = ask
        self._model = model
        self._body = body
        self._created = int(time.time())
        self._sequence = 0
        self._said = bytearray()
        self._call: ToolCall | None = None
        self._arguments: list[str] = []
        self._delta = b""  # of text, up to its sequence number

    def first_chunk(self, cached_tokens: int) -> bytes:
        """The response begins; its usage is told at the end."""
        del cached_tokens
        response = self._response("in_progress", [], None)
        return b"".join(
            self._event({"type": name, "response": response}) for name in ("response.created", "response.in_progress")
        )

    def text_chunk(self, text: bytes) -> bytes:
        """New text; ASCII without anything to escape."""
        start = b"" if self._said else self._text_starts()
        self._said += text
        self._sequence += 1
        tail = b',"sequence_number":%d}\n\n' % (self._sequence - 1)
        return b"".join((start, self._delta, b'"delta":"', text, b'"', tail))

    def call_chunk(self, call: ToolCall) -> bytes:
        """A tool call begins."""
        self._call = call
        item = self._call_item(call, "", "in_progress")
        return self._event({"type": "response.output_item.added", "output_index": 0, "item": item})

    def arguments_chunk(self, text: str) -> bytes:
        """New text of the call's arguments."""
        self._arguments.append(text)
        name = "response.function_call_arguments.delta"
        return self._event({"type": name, "item_id": self._id("fc"), "output_index": 0, "delta": text})

    def last_chunk(self, end: Finished) -> bytes:
        """All that was said once more, why it ended and the usage."""
        output: list[Fields] = []
        closing = b""
        if self._call is not None:
            item = self._call_item(self._call, "".join(self._arguments), self._call_status(end))
            output.append(item)
            done = {"type": "response.function_call_arguments.done", "item_id": self._id("fc"), "output_index": 0}
            closing = self._event(done | {"arguments": item["arguments"], "name": self._call.name})
        elif self._said:
            text = self._said.decode()
            output.append(self._message(text))
            place: Fields = {"item_id": self._id("msg"), "output_index": 0, "content_index": 0}
            said = {"type": "response.output_text.done", "text": text, "logprobs": []}
            part = {"type": "response.content_part.done", "part": _text_part(text)}
            closing = self._event(said | place) + self._event(part | place)
        if output:
            closing += self._event({"type": "response.output_item.done", "output_index": 0, "item": output[0]})
        status = _STATUS.get(end.reason, "completed")
        return closing + self._event({"type": f"response.{status}", "response": self._response(status, output, end)})

    def usage_chunk(self, end: Finished) -> bytes:
        """Usage is part of the last event here."""
        del end
        return b""

    def whole(self, end: Finished, text: bytes) -> bytes:
        """The answer of a request that does not stream."""
        call = self._ask.tool_call
        output = [self._message(text.decode())] if text else []
        if call is not None and end.reason == "tool_calls":
            output = [self._call_item(call, call.arguments, "completed")]
        return msgspec.json.encode(self._response(_STATUS.get(end.reason, "completed"), output, end))

    # --- parts -------------------------------------------------------------------------------------------------

    def _event(self, fields: Fields) -> bytes:
        fields = fields | {"sequence_number": self._sequence}
        self._sequence += 1
        return b"event: %b\ndata: %b\n\n" % (str(fields["type"]).encode(), msgspec.json.encode(fields))

    def _text_starts(self) -> bytes:
        place: Fields = {"item_id": self._id("msg"), "output_index": 0, "content_index": 0}
        delta = msgspec.json.encode({"type": "response.output_text.delta", **place, "logprobs": []})
        self._delta = b"event: response.output_text.delta\ndata: " + delta[:-1] + b","
        item = self._message("") | {"content": [], "status": "in_progress"}
        return self._event({"type": "response.output_item.added", "output_index": 0, "item": item}) + self._event(
            {"type": "response.content_part.added", **place, "part": _text_part("")}
        )

    def _id(self, kind: str) -> str:
        return f"{kind}_{self._ask.rid}"

    def _message(self, text: str) -> Fields:
        return {
            "id": self._id("msg"),
            "content": [_text_part(text)],
            "role": "assistant",
            "status": "completed",
            "type": "message",
            "phase": "final_answer",
        }

    def _call_item(self, call: ToolCall, arguments: str, status: str) -> Fields:
        return {
            "arguments": arguments,
            "call_id": f"call_{self._ask.rid}",
            "name": call.name,
            "type": "function_call",
            "id": self._id("fc"),
            "status": status,
        }

    @staticmethod
    def _call_status(end: Finished) -> str:
        return "completed" if end.reason == "tool_calls" else "incomplete"

    def _response(self, status: str, output: list[Fields], end: Finished | None) -> Fields:
        body = self._body
        return {
            "id": self._ask.rid,
            "object": "response",
            "created_at": self._created,
            "model": self._model,
            "output": output,
            "status": status,
            "usage": None if end is None else _usage(end),
            "parallel_tool_calls": body.parallel_tool_calls is not False,
            "tool_choice": body.tool_choice or "auto",
            "tools": body.tools or [],
            "error": {"code": "server_error", "message": "Aborted"} if status == "failed" else None,
            "incomplete_details": {"reason": "max_output_tokens"} if status == "incomplete" else None,
            "instructions": body.instructions,
            "max_output_tokens": body.max_output_tokens,
            "previous_response_id": None,
            "reasoning": {"effort": None, "summary": None},
            "store": body.store,
            "temperature": body.temperature,
            "text": {"format": {"type": "text"}},
            "top_p": body.top_p,
            "truncation": body.truncation,
            "user": body.user,
            "metadata": body.metadata or {},
        }


def _text_part(text: str) -> Fields:
    return {"type": "output_text", "text": text, "annotations": [], "logprobs": None}


def _usage(end: Finished) -> Fields:
    return {
        "input_tokens": end.prompt_tokens,
        "input_tokens_details": {"cached_tokens": end.cached_tokens, "cache_write_tokens": 0},
        "output_tokens": end.output_tokens,
        "output_tokens_details": {"reasoning_tokens": 0},
        "total_tokens": end.prompt_tokens + end.output_tokens,
    }
