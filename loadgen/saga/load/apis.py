"""The APIs that a replay can speak: what a step is sent as, and what each event of its answer says.

Prompts are one text; the APIs with messages get it as turns (`turns.py`). Called by client and replay.
"""

from collections.abc import Sequence
from typing import Any, Final, Literal, get_args

import msgspec
from msgspec import Struct

Api = Literal["completions", "chat", "messages", "responses"]
Role = Literal["system", "user", "assistant"]
APIS: Final[tuple[Api, ...]] = get_args(Api)
PATHS: Final[dict[Api, str]] = {
    "completions": "/v1/completions",
    "chat": "/v1/chat/completions",
    "messages": "/v1/messages",
    "responses": "/v1/responses",
}
ANTHROPIC_VERSION: Final = "2023-06-01"
_ENDS: Final = ("message_stop", "response.completed", "response.incomplete", "response.failed")
# One character for each token of the built-in template, so that lengths of texts are numbers of tokens.
_OPEN, _CLOSE = "\x01", "\x02"


class Turn(Struct, frozen=True):
    """One message."""

    role: Role
    text: str


class Said(Struct):
    """What one event adds. `ended`: no more comes. Tokens are -1 where it does not tell."""

    text: str = ""
    ended: bool = False
    error: str = ""
    prompt_tokens: int = -1
    completion_tokens: int = -1
    cached_tokens: int = -1


class _Cached(Struct):
    cached_tokens: int | None = None


class _Usage(Struct):
    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    prompt_tokens_details: _Cached | None = None
    input_tokens: int | None = None
    output_tokens: int | None = None
    input_tokens_details: _Cached | None = None
    cache_read_input_tokens: int | None = None
    cache_creation_input_tokens: int | None = None


class _Text(Struct):
    text: str | None = None
    content: str | None = None


class _Choice(Struct):
    text: str | None = None
    delta: _Text | None = None


class _Holder(Struct):
    usage: _Usage | None = None
    status: str = ""
    error: msgspec.Raw = msgspec.Raw()


class _Event(Struct):
    type: str = ""
    choices: list[_Choice] = []
    delta: _Text | str | None = None
    message: _Holder | str | None = None
    response: _Holder | None = None
    usage: _Usage | None = None
    error: msgspec.Raw = msgspec.Raw()


_decode = msgspec.json.Decoder(_Event).decode


def body_of(api: Api, model: str, turns: Sequence[Turn], max_tokens: int, *, ignore_eos: bool) -> dict[str, Any]:
    """The request. `ignore_eos`: an engine's own field, which the two completion APIs of SGLang and vLLM take."""
    body: dict[str, Any] = {"model": model}
    system = turns[0].text if turns and turns[0].role == "system" else ""
    messages = [{"role": turn.role, "content": turn.text} for turn in turns]
    if api == "completions":
        body |= {"prompt": "".join([turn.text for turn in turns]), "max_tokens": max_tokens}
    elif api == "chat":
        body |= {"messages": messages, "max_tokens": max_tokens}
    elif api == "messages":
        body |= {"messages": messages[1:] if system else messages, "max_tokens": max_tokens}
        body |= {"system": system} if system else {}
    else:
        body |= {"input": messages[1:] if system else messages, "max_output_tokens": max_tokens, "store": False}
        body |= {"instructions": system} if system else {}
    body["stream"] = True
    if api in ("completions", "chat"):
        body |= {"ignore_eos": True} if ignore_eos else {}
        body["stream_options"] = {"include_usage": True}
    return body


def sequence_of(api: Api, turns: Sequence[Turn]) -> str:
    """What the engine's cache sees of a request, a character a token: the text, in the built-in template's marks."""
    if api == "completions":
        return "".join([turn.text for turn in turns])
    said = [f"{_OPEN}{turn.role}\n{turn.text}{_CLOSE}\n" for turn in turns]
    return "".join([*said, f"{_OPEN}assistant\n"])


def read_event(payload: bytes) -> Said:
    """Of any of the APIs. Raises msgspec.MsgspecError for what is no event."""
    if payload == b"[DONE]":
        return Said(ended=True)
    event = _decode(payload)
    said = Said(ended=event.type in _ENDS)
    for choice in event.choices:
        said.text += choice.text or (choice.delta.content or "" if choice.delta else "")
    if isinstance(event.delta, str):
        said.text += event.delta if event.type == "response.output_text.delta" else ""
    elif event.delta is not None:
        said.text += event.delta.text or ""
    holders = [event.response, event.message if isinstance(event.message, _Holder) else None]
    for usage in (event.usage, *[holder.usage for holder in holders if holder]):
        if usage is not None:
            _count(usage, said)
    for error in (event.error, *[holder.error for holder in holders if holder and holder.status == "failed"]):
        if bytes(error) not in (b"", b"null"):
            said.error = bytes(error)[:300].decode(errors="replace")
    return said


def _count(usage: _Usage, said: Said) -> None:
    for details in (usage.prompt_tokens_details, usage.input_tokens_details):
        if details is not None and details.cached_tokens is not None:
            said.cached_tokens = details.cached_tokens
    apart = 0  # Anthropic's API leaves what was cached out of its input tokens
    if usage.cache_read_input_tokens is not None:
        said.cached_tokens = usage.cache_read_input_tokens
        apart = usage.cache_read_input_tokens + (usage.cache_creation_input_tokens or 0)
    if usage.prompt_tokens is not None:
        said.prompt_tokens = usage.prompt_tokens
    elif usage.input_tokens is not None:
        said.prompt_tokens = usage.input_tokens + apart
    output_tokens = usage.output_tokens if usage.completion_tokens is None else usage.completion_tokens
    if output_tokens is not None:
        said.completion_tokens = output_tokens
