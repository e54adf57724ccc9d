"""The streams and answers of /v1/chat/completions and /v1/completions: chunks of JSON, then `[DONE]`. Pure.

Bytes pass unread but for the few events that `needs_care` finds: aborts, errors, usage that nobody asked for.
"""

import re
from typing import ClassVar, Final, cast, get_args

import msgspec

from saga.contract.messages import FinishReason
from saga.contract.unreadable import UNREADABLE
from saga.gateway import sse
from saga.gateway.api_errors import ApiError, from_engine, status_in
from saga.gateway.dialects.chunks import ANSWERS, Answer, Choice
from saga.gateway.dialects.dialect import Asked, Changes
from saga.gateway.transcript import Transcript

_WORDS: Final = frozenset(get_args(FinishReason))
_ID: Final = re.compile(rb'"id":\s*"([^"]*)"')
_CREATED: Final = re.compile(rb'"created":\s*(\d+)')
_options = msgspec.json.Decoder(dict[str, msgspec.Raw])
_json = msgspec.json.Decoder()


class CompletionStream:
    """What both completion APIs have in common."""

    object_name = ""  # of a chunk
    nothing_said: ClassVar[Changes] = {}  # a chunk's choice without text
    rid_field = "rid"
    salted = True
    tool_mark = b'"tool_calls"'
    first_events = 0
    owes_end = True

    def always(self, asked: Asked) -> Changes:
        """A stream ends with its usage, whatever else the client asked of stream_options."""
        if not asked.stream:
            return {}
        given = asked.raw.get("stream_options")
        options: dict[str, object] = {}
        if given is not None and bytes(given) != b"null":
            options.update(_options.decode(given))
        options["include_usage"] = True
        return {"stream_options": options}

    def ended(self, events: bytes) -> bool:
        """As Dialect."""
        return events.endswith(sse.DONE)

    def needs_care(self, events: bytes) -> bool:
        """As Dialect. Inside a JSON string quotes are escaped, so a marker with quotes cannot be text of the model."""
        return b'"choices":[]' in events or b'"abort"' in events or b'"error"' in events or b'"choices": []' in events

    def screened(self, events: bytes, asked: Asked, sent: Transcript, sent_tokens: int) -> tuple[bytes, str]:
        """As Dialect."""
        kept: list[bytes] = []
        for event in sse.each(events):
            data = sse.payload(event)
            try:
                chunk = ANSWERS.decode(data) if data else Answer()
            except UNREADABLE:
                kept.append(event)
                continue
            if chunk.finish_reason == "abort":
                return b"".join(kept), "it aborted the request"
            if bytes(chunk.error):
                error = from_engine(status_in(chunk.error), data)
                if error.status >= 500:
                    return b"".join(kept), error.message
                raise error
            if chunk.usage is None or chunk.choices:
                kept.append(event)
                continue
            if sent_tokens:
                data = _merged_usage(data, asked.prompt_tokens, sent_tokens)
                chunk = ANSWERS.decode(data)
            sent.usage = chunk.usage.plain() if chunk.usage else None
            if asked.wants_usage:
                kept.append(sse.event_of(data) if sent_tokens else event)
        return b"".join(kept), ""

    # --- what was said -----------------------------------------------------------------------------------------

    def read(self, data: bytes, sent: Transcript) -> None:
        """As Dialect."""
        self._note(ANSWERS.decode(data), sent)

    def read_whole(self, data: bytes, sent: Transcript) -> str:
        """As Dialect."""
        answer = ANSWERS.decode(data)
        if answer.finish_reason == "abort":
            return "it aborted the request"
        self._note(answer, sent)
        return ""

    def _note(self, chunk: Answer, sent: Transcript) -> None:
        if not sent.id:
            sent.id, sent.created = chunk.id, chunk.created
        if chunk.usage is not None:
            sent.usage = chunk.usage.plain()
        sent.tools += chunk.tools()
        for choice in chunk.choices:
            _note_choice(choice, sent)

    # --- going on ----------------------------------------------------------------------------------------------

    def splice(self, sent: Transcript, rid: str) -> "ChunkSplice":
        """As Dialect."""
        del rid  # learnt from the first chunk, which also tells the time
        return ChunkSplice(sent)

    def ending(self, asked: Asked, sent: Transcript, reason: str, output_tokens: int) -> bytes:
        """As Dialect: the finish reason if it is missing, usage if asked for, the end mark."""
        events = b""
        base = {"id": sent.id, "object": self.object_name, "created": sent.created, "model": asked.model}
        if sent.finish_reason is None:
            choice = {"index": 0, **self.nothing_said, "logprobs": None, "finish_reason": reason}
            events += sse.event_of(msgspec.json.encode(base | {"choices": [choice]}))
        if asked.wants_usage and sent.usage is None:
            usage = {
                "prompt_tokens": asked.prompt_tokens,
                "completion_tokens": output_tokens,
                "total_tokens": asked.prompt_tokens + output_tokens,
            }
            events += sse.event_of(msgspec.json.encode(base | {"choices": [], "usage": usage}))
        return events + sse.DONE

    # --- errors ------------------------------------------------------------------------------------------------

    def error(self, error: ApiError) -> bytes:
        """As Dialect."""
        return error.body()

    def error_event(self, error: ApiError) -> bytes:
        """As Dialect."""
        return sse.event_of(error.body()) + sse.DONE


def _note_choice(choice: Choice, sent: Transcript) -> None:
    if choice.finish_reason:
        reason = choice.finish_reason
        sent.finish_reason = cast(FinishReason, reason) if reason in _WORDS else "other"
    text = choice.text
    said = choice.delta or choice.message
    if said is not None:
        sent.role_sent |= said.role is not None
        sent.reasoned |= bool(said.reasoning_content)
        if said.tool_calls:
            sent.tools_begun = True
            sent.call_id = sent.call_id or said.tool_calls[0].id or ""
        text = said.content
    if text:
        sent.say(text)


class ChunkSplice:
    """As Splice: the first attempt's id and time, and no second role."""

    __slots__ = ("_created", "_first", "_id", "_replace", "_role_sent")

    def __init__(self, sent: Transcript) -> None:
        self._id = sent.id.encode()
        self._created = str(sent.created).encode()
        self._role_sent = sent.role_sent
        self._first = True
        self._replace: list[tuple[bytes, bytes]] = []

    def apply(self, events: bytes) -> bytes:
        """As Splice."""
        if self._first:
            events = self._learn(events)
        for old, new in self._replace:
            events = events.replace(old, new)
        return events

    def _learn(self, events: bytes) -> bytes:
        parts = sse.each(events)
        if not parts:
            return events
        self._first = False
        if self._id:
            for pattern, new in ((_ID, b'"id":"%b"' % self._id), (_CREATED, b'"created":%b' % self._created)):
                if found := pattern.search(parts[0]):
                    self._replace.append((found[0], new))
        if self._role_sent and _only_role(parts[0]):
            parts = parts[1:]
        return b"".join(parts)


def _only_role(event: bytes) -> bool:
    chunk = ANSWERS.decode(sse.payload(event) or b"{}")
    return bool(chunk.choices) and all(
        choice.delta is not None
        and choice.delta.role is not None
        and not choice.delta.content
        and not choice.delta.tool_calls
        and not choice.delta.reasoning_content
        and not choice.finish_reason
        for choice in chunk.choices
    )


def _merged_usage(data: bytes, prompt_tokens: int, sent_tokens: int) -> bytes:
    """A chunk with the usage of a continuing request, told as the usage of the whole answer."""
    chunk = _json.decode(data)
    usage = chunk.get("usage") if isinstance(chunk, dict) else None
    if not isinstance(usage, dict):
        return data
    output_tokens = (usage.get("completion_tokens") or 0) + sent_tokens
    usage |= {
        "prompt_tokens": prompt_tokens,
        "completion_tokens": output_tokens,
        "total_tokens": prompt_tokens + output_tokens,
    }
    details = usage.get("prompt_tokens_details")
    if isinstance(details, dict) and isinstance(details.get("cached_tokens"), int):
        details["cached_tokens"] = min(details["cached_tokens"], prompt_tokens)
    return msgspec.json.encode(chunk)
