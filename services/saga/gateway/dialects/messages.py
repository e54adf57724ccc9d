"""/v1/messages, Anthropic's API: named events, content in blocks, errors with a type of their own. Pure.

SGLang 0.5.23 turns such a request into a chat without `continue_final_message`, so text that was sent cannot be gone on
with exactly: then the client is told to ask again.
"""

from typing import Final

import msgspec

from saga.contract.messages import FinishReason
from saga.contract.unreadable import UNREADABLE
from saga.gateway import sse
from saga.gateway.api_errors import ApiError, from_engine
from saga.gateway.dialects.dialect import (
    Api,
    Asked,
    Changes,
    RawBody,
    checked_count,
    positive,
)
from saga.gateway.dialects.openai_fields import agent_class
from saga.gateway.dialects.prompt import ChatPrompt
from saga.gateway.dialects.text import leading, opening_of
from saga.gateway.transcript import Transcript, Usage
from saga.kv.chat_forms import Content, Message, of_messages

_ERROR_TYPES: Final = {
    400: "invalid_request_error",
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    413: "request_too_large",
    429: "rate_limit_error",
    503: "overloaded_error",
}
_STATUS_OF_TYPE: Final = {kind: status for status, kind in _ERROR_TYPES.items()} | {"api_error": 500}
_WORDS: Final[dict[str, FinishReason]] = {
    "end_turn": "stop",
    "stop_sequence": "stop",
    "max_tokens": "length",
    "tool_use": "tool_calls",
}
_STOP_WORDS: Final = {"length": "max_tokens", "stop": "end_turn"}


class MessagesFields(msgspec.Struct, kw_only=True):
    """What we read of a request."""

    model: str
    max_tokens: int
    messages: list[Message]
    system: Content | None = None
    stream: bool | None = None


class _Usage(msgspec.Struct):
    input_tokens: int | None = None
    output_tokens: int | None = None
    cache_read_input_tokens: int | None = None
    cache_creation_input_tokens: int | None = None


class _Part(msgspec.Struct):
    type: str = ""
    id: str = ""
    text: str | None = None
    name: str | None = None
    stop_reason: str | None = None


class _Answer(msgspec.Struct):
    """An event, or a whole message."""

    type: str = ""
    id: str = ""
    message: "_Answer | None" = None
    content_block: _Part | None = None
    delta: _Part | None = None
    content: list[_Part] = []
    stop_reason: str | None = None
    usage: _Usage | None = None
    error: msgspec.Raw = msgspec.Raw()


class _Error(msgspec.Struct):
    type: str = ""


_fields = msgspec.json.Decoder(MessagesFields)
_answer = msgspec.json.Decoder(_Answer)


class Messages:
    """As Dialect."""

    api: Api = "messages"
    path = "/v1/messages"
    prompt_field = "messages"
    messages_field = "messages"
    rid_field = "rid"
    salted = False  # SGLang's model of this request has no cache_salt
    tool_mark = b'"tool_use"'
    first_events = 2
    continued = None
    owes_end = True

    def parse(self, raw: RawBody, body: bytes) -> Asked:
        """As Dialect."""
        return _asked(raw, _fields.decode(body))

    def always(self, asked: Asked) -> Changes:
        """As Dialect."""
        del asked
        return {}

    def ended(self, events: bytes) -> bool:
        """As Dialect."""
        return b"event: message_stop\n" in events[-96:]

    def needs_care(self, events: bytes) -> bool:
        """As Dialect. The name of an event cannot be text of the model, in which line ends are escaped."""
        return b"event: error\n" in events

    def screened(self, events: bytes, asked: Asked, sent: Transcript, sent_tokens: int) -> tuple[bytes, str]:
        """As Dialect."""
        del asked, sent, sent_tokens
        kept: list[bytes] = []
        for event in sse.each(events):
            if not event.startswith(b"event: error\n"):
                kept.append(event)
                continue
            data = sse.payload(event)
            status = _STATUS_OF_TYPE.get(_kind(data), 500)
            error = from_engine(status, data)
            if status >= 500:
                return b"".join(kept), error.message
            raise error
        return b"".join(kept), ""

    # --- what was said -----------------------------------------------------------------------------------------

    def read(self, data: bytes, sent: Transcript) -> None:
        """As Dialect."""
        event = _answer.decode(data)
        if event.message is not None:
            sent.id = sent.id or event.message.id
            sent.role_sent = True
            _note_usage(event.message.usage, sent)
        _note_usage(event.usage, sent)
        sent.opened |= event.content_block is not None
        for part in (event.content_block, event.delta):
            if part is not None:
                _note(part, sent)

    def read_whole(self, data: bytes, sent: Transcript) -> str:
        """As Dialect."""
        answer = _answer.decode(data)
        sent.id = answer.id
        _note_usage(answer.usage, sent)
        for part in answer.content:
            _note(part, sent)
        if answer.stop_reason:
            sent.finish_reason = _WORDS.get(answer.stop_reason, "other")
        return ""

    # --- going on ----------------------------------------------------------------------------------------------

    def splice(self, sent: Transcript, rid: str) -> "BeginningOnce":
        """As Dialect: only `message_start` names the message."""
        del sent, rid
        return BeginningOnce((b"event: message_start\n",))

    def ending(self, asked: Asked, sent: Transcript, reason: str, output_tokens: int) -> bytes:
        """As Dialect."""
        del asked
        events = b""
        if sent.finish_reason is None:
            stop = {"type": "content_block_stop", "index": int(sent.reasoned)}
            usage = {"output_tokens": output_tokens}
            delta = {"stop_reason": _STOP_WORDS.get(reason, "end_turn"), "stop_sequence": None}
            events += _event(stop) + _event({"type": "message_delta", "delta": delta, "usage": usage})
        return events + _event({"type": "message_stop"})

    # --- errors ------------------------------------------------------------------------------------------------

    def error(self, error: ApiError) -> bytes:
        """As Dialect."""
        return msgspec.json.encode(_error_fields(error))

    def error_event(self, error: ApiError) -> bytes:
        """As Dialect."""
        return _event(_error_fields(error))


class BeginningOnce:
    """As Splice: the events that begin an answer, which the client has got, are left out."""

    __slots__ = ("_beginnings", "_begun", "_replace")

    def __init__(self, beginnings: tuple[bytes, ...], replace: tuple[bytes, bytes] | None = None) -> None:
        """`beginnings`: first lines of such events; `replace`: in what follows."""
        self._beginnings = beginnings
        self._replace = replace
        self._begun = False

    def apply(self, events: bytes) -> bytes:
        """As Splice."""
        if not self._begun:
            parts = sse.each(events)
            events = b"".join([part for part in parts if not part.startswith(self._beginnings)])
            self._begun = bool(events)
        return events.replace(*self._replace) if self._replace else events


def _asked(raw: RawBody, fields: MessagesFields) -> Asked:
    checked_count("messages", len(fields.messages))
    chat = of_messages(fields.system, fields.messages)
    return Asked(
        api="messages",
        raw=raw,
        model=fields.model,
        source=ChatPrompt(chat),
        max_tokens=positive("max_tokens", fields.max_tokens),
        stream=bool(fields.stream),
        agent_class=agent_class(leading(chat), raw),
        roles=tuple([message.role for message in fields.messages]),
        opening=opening_of(fields.system),
    )


def _note(part: _Part, sent: Transcript) -> None:
    if part.stop_reason:
        sent.finish_reason = _WORDS.get(part.stop_reason, "other")
    if part.type == "tool_use":
        sent.tools_begun = True
        sent.call_id = sent.call_id or part.id
        sent.tools += (part.name,) if part.name else ()
    elif part.type in ("thinking", "thinking_delta", "redacted_thinking"):
        sent.reasoned = True
    elif part.text:
        sent.say(part.text)


def _note_usage(usage: _Usage | None, sent: Transcript) -> None:
    """The beginning tells of the prompt, without what was cached; the end of the output, in some servers of both."""
    if usage is None:
        return
    before = sent.usage or Usage(0, 0, 0, counts_cached=False)
    counts = before.counts_cached or usage.cache_read_input_tokens is not None
    cached_tokens = before.cached_tokens if usage.cache_read_input_tokens is None else usage.cache_read_input_tokens
    prompt_tokens = before.prompt_tokens
    if usage.input_tokens is not None:
        prompt_tokens = usage.input_tokens + cached_tokens + (usage.cache_creation_input_tokens or 0)
    output_tokens = before.output_tokens if usage.output_tokens is None else usage.output_tokens
    sent.usage = Usage(prompt_tokens, output_tokens, cached_tokens, counts)


def _kind(data: bytes) -> str:
    try:
        return msgspec.json.decode(_answer.decode(data).error, type=_Error).type
    except UNREADABLE:
        return ""


def _error_fields(error: ApiError) -> dict[str, object]:
    kind = _ERROR_TYPES.get(error.status) or ("invalid_request_error" if error.status < 500 else "api_error")
    if error.kind == "retryable_error":
        kind = "overloaded_error"
    # `code` and `param` are ours: Anthropic's clients pass them on in the error's body.
    told = {"type": kind, "message": error.message, "param": error.param, "code": error.code}
    return {"type": "error", "error": {name: value for name, value in told.items() if value is not None}}


def _event(fields: dict[str, object]) -> bytes:
    return sse.event_of(msgspec.json.encode(fields), str(fields["type"]))
