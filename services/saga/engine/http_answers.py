"""The JSON of answers, in SGLang's OpenAI dialect: whole answers, stream chunks and usage.

Chunks are made from prebuilt bytes around the text, since one leaves for every token of every stream.
"""

import time
from typing import Final, Protocol

import msgspec

from saga.engine.events import Finished
from saga.engine.http_ask import Ask
from saga.engine.tool_call import ToolCall
from saga.kv.tokens import EOS_ID

Fields = dict[str, object]

_NULL_FINISH: Final = b',"logprobs":null,"finish_reason":null,"matched_stop":null}],"usage":null}\n\n'
DONE: Final = b"data: [DONE]\n\n"
WEIGHT_VERSION: Final = "default"


def quoted(text: str) -> bytes:
    """A JSON string."""
    return msgspec.json.encode(text)


def usage_of(end: Finished) -> Fields:
    """OpenAI's usage, with cached tokens always filled."""
    return {
        "prompt_tokens": end.prompt_tokens,
        "total_tokens": end.prompt_tokens + end.output_tokens,
        "completion_tokens": end.output_tokens,
        "prompt_tokens_details": {"cached_tokens": end.cached_tokens},
        "reasoning_tokens": 0,
    }


def matched_stop(end: Finished) -> int | None:
    """The token that ended the answer, if one did."""
    return EOS_ID if end.reason == "stop" else None


def call_id(rid: str) -> str:
    """Id of a request's one tool call; the same for the same request."""
    return f"call_{rid}"


class Form(Protocol):
    """How an answer looks in one API."""

    done: bytes  # the end mark of a stream
    always_begins: bool  # a stream, even one that says nothing

    def first_chunk(self, cached_tokens: int) -> bytes:
        """Before any token."""
        ...

    def text_chunk(self, text: bytes) -> bytes:
        """New text; ASCII without anything to escape."""
        ...

    def call_chunk(self, call: ToolCall) -> bytes:
        """A tool call begins."""
        ...

    def arguments_chunk(self, text: str) -> bytes:
        """New text of the call's arguments."""
        ...

    def last_chunk(self, end: Finished) -> bytes:
        """Why it ended."""
        ...

    def usage_chunk(self, end: Finished) -> bytes:
        """Usage alone, for `stream_options.include_usage`."""
        ...

    def whole(self, end: Finished, text: bytes) -> bytes:
        """The answer of a request that does not stream."""
        ...


class ChatForm:
    """How a chat completion looks."""

    object_name = "chat.completion"
    done = DONE
    always_begins = False

    def __init__(self, ask: Ask, model: str) -> None:
        self._ask = ask
        self._base: Fields = {"id": ask.rid, "object": self.object_name, "created": int(time.time()), "model": model}
        self._chunk_base: Fields = self._base | {"object": "chat.completion.chunk"}
        self._prefix = b"data: " + msgspec.json.encode(self._chunk_base)[:-1] + b',"choices":[{"index":0,"delta":'

    def first_chunk(self, cached_tokens: int) -> bytes:
        """The role, before any token."""
        del cached_tokens
        return self._prefix + b'{"role":"assistant","content":""}' + _NULL_FINISH

    def text_chunk(self, text: bytes) -> bytes:
        """New text; ASCII without anything to escape."""
        return b"".join((self._prefix, b'{"content":"', text, b'"}', _NULL_FINISH))

    def call_chunk(self, call: ToolCall) -> bytes:
        """A tool call begins."""
        function = {"name": call.name, "arguments": ""}
        delta = {"tool_calls": [{"index": 0, "id": call_id(self._ask.rid), "type": "function", "function": function}]}
        return self._prefix + msgspec.json.encode(delta) + _NULL_FINISH

    def arguments_chunk(self, text: str) -> bytes:
        """New text of the call's arguments."""
        return b"".join(
            (
                self._prefix,
                b'{"tool_calls":[{"index":0,"function":{"arguments":',
                quoted(text),
                b"}}]}",
                _NULL_FINISH,
            )
        )

    def last_chunk(self, end: Finished) -> bytes:
        """Why it ended."""
        return self._finish_chunk(end, {"delta": {}})

    def usage_chunk(self, end: Finished) -> bytes:
        """Usage alone, for `stream_options.include_usage`."""
        return _event(self._chunk_base | {"choices": [], "usage": usage_of(end)})

    def whole(self, end: Finished, text: bytes) -> bytes:
        """The answer of a request that does not stream."""
        call = self._ask.tool_call
        message: Fields = {"role": "assistant", "content": text.decode(), "reasoning_content": None, "tool_calls": None}
        if call is not None and end.reason == "tool_calls":
            function = {"name": call.name, "arguments": call.arguments}
            message["content"] = None
            message["tool_calls"] = [
                {"id": call_id(self._ask.rid), "index": 0, "type": "function", "function": function}
            ]
        return self._whole(end, {"message": message})

    def _finish_chunk(self, end: Finished, choice: Fields) -> bytes:
        return _event(self._chunk_base | {"choices": [self._choice(end, choice)], "usage": None})

    def _whole(self, end: Finished, choice: Fields) -> bytes:
        return msgspec.json.encode(
            self._base
            | {
                "choices": [self._choice(end, choice)],
                "usage": usage_of(end),
                "metadata": {"weight_version": WEIGHT_VERSION},
            }
        )

    @staticmethod
    def _choice(end: Finished, choice: Fields) -> Fields:
        why: Fields = {"logprobs": None, "finish_reason": end.reason, "matched_stop": matched_stop(end)}
        return {"index": 0} | choice | why


class CompletionForm(ChatForm):
    """How a text completion looks."""

    object_name = "text_completion"

    def __init__(self, ask: Ask, model: str) -> None:
        super().__init__(ask, model)
        self._chunk_base = self._base
        self._prefix = b"data: " + msgspec.json.encode(self._base)[:-1] + b',"choices":[{"index":0,"text":"'

    def first_chunk(self, cached_tokens: int) -> bytes:
        """Nothing before the first token."""
        del cached_tokens
        return b""

    def text_chunk(self, text: bytes) -> bytes:
        """New text."""
        return b"".join((self._prefix, text, b'"', _NULL_FINISH))

    def last_chunk(self, end: Finished) -> bytes:
        """Why it ended."""
        return self._finish_chunk(end, {"text": ""})

    def whole(self, end: Finished, text: bytes) -> bytes:
        """The answer of a request that does not stream."""
        return self._whole(end, {"text": text.decode()})


def generate_answer(end: Finished | None, ask: Ask, text: bytes, output_tokens: int) -> Fields:
    """The object that /generate answers with; without `end` it is one of its stream, whose text is cumulative."""
    meta: Fields = {
        "id": ask.rid,
        "finish_reason": None,
        "prompt_tokens": ask.prompt_tokens,
        "weight_version": WEIGHT_VERSION,
        "completion_tokens": output_tokens,
    }
    if end is not None:
        meta |= {
            "finish_reason": _generate_reason(end),
            "cached_tokens": end.cached_tokens,
            "cached_tokens_details": {"device": end.cached_tokens, "host": 0} if end.cached_tokens else None,
            "num_retractions": end.retractions,
            "queue_time": max(0.0, end.started_s - end.arrived_s),
            "first_token_latency": max(0.0, end.first_token_s - end.arrived_s),
            "e2e_latency": end.finished_s - end.arrived_s,
            "dp_rank": 0,
        }
    return {"text": text.decode(), "meta_info": meta}


def _generate_reason(end: Finished) -> Fields:
    if end.reason == "length":
        return {"type": "length", "length": end.output_tokens}
    if end.reason == "abort":
        return {"type": "abort", "message": "Aborted"}
    return {"type": "stop", "matched": EOS_ID}


def _event(fields: Fields) -> bytes:
    return b"data: " + msgspec.json.encode(fields) + b"\n\n"
