"""/v1/chat/completions. Pure."""

from typing import ClassVar

import msgspec

from saga.gateway.dialects.completion_stream import CompletionStream
from saga.gateway.dialects.dialect import Api, Asked, Changes, Continued, RawBody, checked_count, positive, raw_list
from saga.gateway.dialects.openai_fields import SharedFields, agent_class, asked_of
from saga.gateway.dialects.prompt import ChatPrompt
from saga.gateway.dialects.text import opening_of
from saga.gateway.transcript import Transcript
from saga.kv import chat_forms, tokens


class ToolFunction(msgspec.Struct):
    """A tool's function: only its name."""

    name: str


class Tool(msgspec.Struct):
    """One entry of `tools`."""

    function: ToolFunction


class Part(msgspec.Struct):
    """One part of a message's content."""

    type: str
    text: str | None = None


class ChatMessage(msgspec.Struct):
    """One chat message: what the built-in template knows of it."""

    role: str
    content: str | list[Part] | None = None

    def as_mapping(self) -> dict[str, object]:
        """For `render_chat`."""
        if not isinstance(self.content, list):
            return {"role": self.role, "content": self.content}
        return {"role": self.role, "content": [{"type": part.type, "text": part.text} for part in self.content]}

    @property
    def readable(self) -> bool:
        """Whether it is all text."""
        return not isinstance(self.content, list) or all(
            part.text is not None and part.type in chat_forms.TEXT_PARTS for part in self.content
        )


class ChatFields(SharedFields, kw_only=True):
    """What we read of a request."""

    messages: list[ChatMessage]
    max_completion_tokens: int | None = None
    tools: list[Tool] | None = None
    logprobs: bool | None = None
    continue_final_message: bool | None = None


_chat = msgspec.json.Decoder(ChatFields)
_mappings = msgspec.json.Decoder(list[dict[str, object]])
_objects = msgspec.json.Decoder(RawBody)
_json = msgspec.json.Decoder()


class Chat(CompletionStream):
    """As Dialect."""

    api: Api = "chat"
    path = "/v1/chat/completions"
    prompt_field = "messages"
    messages_field = "messages"
    object_name = "chat.completion.chunk"
    nothing_said: ClassVar[Changes] = {"delta": {}}

    def parse(self, raw: RawBody, body: bytes) -> Asked:
        """As Dialect."""
        fields = _chat.decode(body)
        messages = fields.messages
        checked_count("messages", len(messages))
        continues = bool(fields.continue_final_message) and messages[-1].role == "assistant"
        if all([message.readable for message in messages]):  # noqa: C419 - a list is faster
            mappings = [message.as_mapping() for message in messages]
        else:
            mappings = chat_forms.readable(_mappings.decode(raw["messages"]))
        max_name = "max_tokens" if fields.max_completion_tokens is None else "max_completion_tokens"
        max_tokens = fields.max_tokens if fields.max_completion_tokens is None else fields.max_completion_tokens
        system = []
        for message in messages:
            if message.role not in ("system", "developer"):
                break
            system.append(message.content)
        return asked_of(
            "chat",
            raw,
            fields,
            prompt_field="messages",
            source=ChatPrompt(mappings, continues=continues),
            max_tokens=positive(max_name, max_tokens),
            fixed="logprobs" if fields.logprobs else "",
            agent_class=agent_class(system, raw),
            continues_message=continues,
            roles=tuple([message.role for message in messages]),
            opening=_opening(system),
        )

    @property
    def continued(self) -> Continued:
        """As Dialect."""
        return _continued


def _continued(asked: Asked, sent: Transcript) -> Changes:
    """The messages with the text that was sent, left open, and fewer tokens to go."""
    changed = fewer_tokens(asked, sent)
    messages = raw_list.decode(asked.raw["messages"])
    if asked.continues_message:
        *before, last = messages  # the client's own beginning of this answer, which must stay one message
        content = tokens.message_text(_json.decode(last).get("content"))
        changed["messages"] = [*before, _objects.decode(last) | {"content": content + sent.text}]
    else:
        changed["messages"] = [*messages, {"role": "assistant", "content": sent.text}]
    changed["continue_final_message"] = True
    changed["add_generation_prompt"] = False
    return changed


def fewer_tokens(asked: Asked, sent: Transcript) -> Changes:
    """Limits of a request that continues an answer."""
    sent_tokens = sent.text_tokens
    changed: Changes = {}
    if asked.max_tokens is not None:
        changed["max_tokens"] = max(1, asked.max_tokens - sent_tokens)
        changed["max_completion_tokens"] = None
    if asked.min_tokens:
        changed["min_tokens"] = max(0, asked.min_tokens - sent_tokens)
    return changed


def _opening(system: list[str | list[Part] | None]) -> str:
    first = system[0] if system else None
    if isinstance(first, list):
        first = first[0].text if first else None
    return opening_of(first)
