"""/v1/responses, OpenAI's newer API: numbered events, and the whole response again in the last one. Pure.

SGLang 0.5.23 cannot go on with text here, so only an answer that has said nothing yet is started again elsewhere.
What a server keeps between requests (`previous_response_id`, `background`) is refused: it would be known to one engine.
"""

from typing import Final

import msgspec

from saga.gateway import sse
from saga.gateway.api_errors import ApiError
from saga.gateway.dialects.dialect import Api, Asked, Changes, RawBody, checked_count, positive
from saga.gateway.dialects.messages import BeginningOnce
from saga.gateway.dialects.openai_fields import agent_class
from saga.gateway.dialects.prompt import ChatPrompt
from saga.gateway.dialects.text import leading, opening_of
from saga.gateway.transcript import Transcript, Usage
from saga.kv.chat_forms import Content, Item, of_responses

_LAST: Final = (b"event: response.completed\n", b"event: response.incomplete\n", b"event: response.failed\n")
_BEGINNINGS: Final = (b"event: response.created\n", b"event: response.in_progress\n")
_CALLS: Final = ("function_call", "custom_tool_call")
_STORED: Final = "It would be kept by one engine alone: send the whole conversation in 'input'."


class Format(msgspec.Struct):
    """`text.format`: only whether it constrains the output."""

    type: str


class Text(msgspec.Struct):
    """`text`."""

    format: Format | None = None


class ResponsesFields(msgspec.Struct, kw_only=True):
    """What we read of a request."""

    model: str
    input: str | list[Item]
    instructions: str | None = None
    max_output_tokens: int | None = None
    stream: bool | None = None
    background: bool | None = None
    previous_response_id: str | None = None


class _Cached(msgspec.Struct):
    cached_tokens: int = 0


class _Usage(msgspec.Struct):
    input_tokens: int = 0
    output_tokens: int = 0
    input_tokens_details: _Cached | None = None


class _Part(msgspec.Struct):
    text: str | None = None


class _OutputItem(msgspec.Struct):
    type: str = ""
    call_id: str = ""
    name: str | None = None
    content: list[_Part] | None = None


class _Failure(msgspec.Struct):
    message: str = ""


class _Response(msgspec.Struct):
    id: str = ""
    status: str = ""
    output: list[_OutputItem] = []
    usage: _Usage | None = None
    error: _Failure | None = None


class _Event(msgspec.Struct):
    type: str = ""
    response: _Response | None = None
    item: _OutputItem | None = None
    delta: object = None
    message: str = ""


_fields = msgspec.json.Decoder(ResponsesFields)
_event = msgspec.json.Decoder(_Event)
_response = msgspec.json.Decoder(_Response)


class Responses:
    """As Dialect."""

    api: Api = "responses"
    path = "/v1/responses"
    prompt_field = "input"
    messages_field = "input"
    rid_field = "request_id"
    salted = True
    tool_mark = b"\x00"  # the last event names all tools
    first_events = 0
    continued = None
    owes_end = False  # the last event repeats all that was said

    def parse(self, raw: RawBody, body: bytes) -> Asked:
        """As Dialect."""
        fields = _fields.decode(body)
        for name, given in (("previous_response_id", fields.previous_response_id), ("background", fields.background)):
            if given:
                raise ApiError(400, f"'{name}' is not supported. {_STORED}", param=name, code="unsupported_parameter")
        items = fields.input if isinstance(fields.input, list) else [Item(role="user", content=fields.input)]
        checked_count("input", len(items))
        chat = of_responses(fields.instructions, items)
        return Asked(
            api="responses",
            raw=raw,
            model=fields.model,
            source=ChatPrompt(chat),
            max_tokens=positive("max_output_tokens", fields.max_output_tokens),
            stream=bool(fields.stream),
            agent_class=agent_class(leading(chat), raw),
            roles=tuple([_role(item) for item in items]),
            opening=opening_of(fields.instructions or _first_system(items)),
        )

    def always(self, asked: Asked) -> Changes:
        """As Dialect."""
        del asked
        return {}

    def ended(self, events: bytes) -> bool:
        """As Dialect. The name of an event cannot be text of the model, in which line ends are escaped."""
        return any(mark in events for mark in _LAST)

    def needs_care(self, events: bytes) -> bool:
        """As Dialect."""
        return b"event: response.failed\n" in events or b"event: error\n" in events or b'data: {"error"' in events

    def screened(self, events: bytes, asked: Asked, sent: Transcript, sent_tokens: int) -> tuple[bytes, str]:
        """As Dialect. SGLang fails a response only by its own fault, or because it was told to abort it."""
        del asked, sent, sent_tokens
        kept: list[bytes] = []
        for event in sse.each(events):
            if event.startswith(b"event: response.failed\n"):
                failed = _event.decode(sse.payload(event)).response
                why = failed.error.message if failed and failed.error else ""
                return b"".join(kept), why or "it failed the response"
            if event.startswith((b"event: error\n", b'data: {"error"')):
                return b"".join(kept), _event.decode(sse.payload(event)).message or "it reported an error"
            kept.append(event)
        return b"".join(kept), ""

    # --- what was said -----------------------------------------------------------------------------------------

    def read(self, data: bytes, sent: Transcript) -> None:
        """As Dialect."""
        event = _event.decode(data)
        if event.response is not None:
            sent.id = sent.id or event.response.id
            sent.role_sent = True
            if event.response.usage is not None:
                _note_end(event.response, sent)
        elif event.item is not None:
            sent.opened = True
            sent.tools_begun |= event.item.type in _CALLS
            sent.reasoned |= event.item.type == "reasoning"
        elif event.type == "response.output_text.delta" and isinstance(event.delta, str):
            sent.say(event.delta)

    def read_whole(self, data: bytes, sent: Transcript) -> str:
        """As Dialect."""
        answer = _response.decode(data)
        if answer.status == "failed":
            return (answer.error and answer.error.message) or "it failed the response"
        sent.id = answer.id
        _note_end(answer, sent)
        for item in answer.output:
            for part in item.content or ():
                if part.text:
                    sent.say(part.text)
        return ""

    # --- going on ----------------------------------------------------------------------------------------------

    def splice(self, sent: Transcript, rid: str) -> BeginningOnce:
        """As Dialect: the last event names the response again."""
        return BeginningOnce(_BEGINNINGS, (b'"id":"%b"' % rid.encode(), b'"id":"%b"' % sent.id.encode()))

    def ending(self, asked: Asked, sent: Transcript, reason: str, output_tokens: int) -> bytes:
        """Nothing: the event with the reason is the last one."""
        del asked, sent, reason, output_tokens
        return b""

    # --- errors ------------------------------------------------------------------------------------------------

    def error(self, error: ApiError) -> bytes:
        """As Dialect."""
        return error.body()

    def error_event(self, error: ApiError) -> bytes:
        """As Dialect. OpenAI's API has the fields in the event; its clients raise for what is under `error`."""
        told = {"type": "error", "code": error.code, "message": error.message, "param": error.param}
        return sse.event_of(msgspec.json.encode(told | {"error": error.fields()}), "error")


def _role(item: Item) -> str:
    if item.role is not None:
        return item.role
    return "tool" if item.type is not None and item.type.endswith("_output") else "assistant"


def _first_system(items: list[Item]) -> Content | None:
    first = items[0]
    return first.content if first.role in ("system", "developer") else None


def _note_end(answer: _Response, sent: Transcript) -> None:
    usage = answer.usage
    if usage is not None:
        details = usage.input_tokens_details
        cached_tokens = details.cached_tokens if details else 0
        sent.usage = Usage(usage.input_tokens, usage.output_tokens, cached_tokens, details is not None)
    sent.call_id = sent.call_id or next((item.call_id for item in answer.output if item.call_id), "")
    calls = tuple(item.name for item in answer.output if item.type in _CALLS and item.name)
    sent.tools += calls
    if answer.status == "incomplete":
        sent.finish_reason = "length"
    elif answer.status == "completed":
        sent.finish_reason = "tool_calls" if calls else "stop"
