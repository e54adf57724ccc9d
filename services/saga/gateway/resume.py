"""How an answer goes on after its engine died: the request that continues it, and its stream made one with the first.

Pure. Nothing but the role sent: the original request again. Plain text: the prompt with the text that was sent, fewer
tokens to go. Anything else cannot be continued, and the client is told to ask again.
"""

import re
from typing import Final

import msgspec

from saga.gateway import sse
from saga.gateway.answers import ANSWERS
from saga.gateway.openai import Api, Asked
from saga.gateway.transcript import Transcript
from saga.kv.tokens import decode_ids, encode_text, message_text

_raws = msgspec.json.Decoder(list[msgspec.Raw])
_objects = msgspec.json.Decoder(dict[str, msgspec.Raw])
_json = msgspec.json.Decoder()
_ID: Final = re.compile(rb'"id":\s*"([^"]*)"')
_CREATED: Final = re.compile(rb'"created":\s*(\d+)')
_OBJECT: Final[dict[Api, str]] = {"chat": "chat.completion.chunk", "completions": "text_completion"}


def why_not(asked: Asked, sent: Transcript) -> str:
    """Why the answer cannot go on; empty: it can."""
    if not sent.begun:
        return ""
    return asked.fixed_because or sent.unreadable_because()


def changes(asked: Asked, sent: Transcript) -> dict[str, object]:
    """The fields in which the continuing request differs from the original; none when nothing was sent."""
    if not sent.begun:
        return {}
    tokens = sent.text_tokens
    changed: dict[str, object] = {}
    if asked.max_tokens is not None:
        changed["max_tokens"] = max(1, asked.max_tokens - tokens)
        changed["max_completion_tokens"] = None
    if asked.min_tokens:
        changed["min_tokens"] = max(0, asked.min_tokens - tokens)
    if asked.api == "completions":
        changed["prompt"] = _longer_prompt(asked, sent.text)
        return changed
    changed["messages"] = _with_partial(asked, sent.text)
    changed["continue_final_message"] = True
    changed["add_generation_prompt"] = False
    return changed


def complete(asked: Asked, sent: Transcript) -> bool:
    """Whether the engine died after its last token: then only the end of the stream is missing."""
    if asked.choices > 1:
        return False
    full = asked.max_tokens is not None and sent.begun and not sent.overflowed and sent.text_tokens >= asked.max_tokens
    return sent.finish_reason is not None or full


def _longer_prompt(asked: Asked, text: str) -> object:
    prompt = _json.decode(asked.raw["prompt"])
    if isinstance(prompt, list):
        if isinstance(prompt[0], str):
            return prompt[0] + text
        return decode_ids(asked.token_bytes + encode_text(text))
    return prompt + text


def _with_partial(asked: Asked, text: str) -> list[object]:
    messages = _raws.decode(asked.raw["messages"])
    if not asked.continues_message:
        return [*messages, {"role": "assistant", "content": text}]
    *before, last = messages  # the client's own beginning of this answer, which must stay one message
    return [*before, _objects.decode(last) | {"content": message_text(_json.decode(last).get("content")) + text}]


class Splice:
    """Makes the stream of a later attempt look like the rest of the first one."""

    __slots__ = ("_created", "_first", "_id", "_replace", "_role_sent")

    def __init__(self, sent: Transcript) -> None:
        self._id = sent.id.encode()
        self._created = str(sent.created).encode()
        self._role_sent = sent.role_sent
        self._first = True
        self._replace: list[tuple[bytes, bytes]] = []

    def apply(self, events: bytes) -> bytes:
        """Complete events, with the first attempt's id and time, and without a second role."""
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


def merged_usage(data: bytes, prompt_tokens: int, sent_tokens: int) -> bytes:
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


def ending(asked: Asked, sent: Transcript, reason: str, output_tokens: int) -> bytes:
    """The end that a dead engine still owed: the finish reason if it is missing, usage if asked for, the end mark."""
    events = b""
    base = {"id": sent.id, "object": _OBJECT[asked.api], "created": sent.created, "model": asked.model}
    if sent.finish_reason is None:
        said: dict[str, object] = {"delta": {}} if asked.api == "chat" else {"text": ""}
        choice = {"index": 0, **said, "logprobs": None, "finish_reason": reason}
        events += sse.event_of(msgspec.json.encode(base | {"choices": [choice]}))
    if asked.wants_usage and sent.usage is None:
        usage = {
            "prompt_tokens": asked.prompt_tokens,
            "completion_tokens": output_tokens,
            "total_tokens": asked.prompt_tokens + output_tokens,
        }
        events += sse.event_of(msgspec.json.encode(base | {"choices": [], "usage": usage}))
    return events + sse.DONE
