"""What we read of an OpenAI request, typed; everything else passes through as raw JSON. Pure.

`parse` turns a body into an `Asked`; `http_step.py` calls it, for large bodies in a thread.
"""

import hashlib
from typing import Final, Literal

import msgspec

from saga.gateway.api_errors import ApiError, bad_json, invalid_value
from saga.kv import tokens

Api = Literal["chat", "completions"]
PATHS: Final[dict[Api, str]] = {"chat": "/v1/chat/completions", "completions": "/v1/completions"}
PROMPT_FIELD: Final[dict[Api, str]] = {"chat": "messages", "completions": "prompt"}
COMPLETION_DEFAULT_TOKENS: Final = 16  # of /v1/completions without max_tokens, in OpenAI's API as in SGLang

RawBody = dict[str, msgspec.Raw]


class StreamOptions(msgspec.Struct):
    """`stream_options`."""

    include_usage: bool | None = None


class ResponseFormat(msgspec.Struct):
    """`response_format`: only whether it constrains the output."""

    type: str


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


class _Shared(msgspec.Struct, kw_only=True):
    model: str
    max_tokens: int | None = None
    min_tokens: int | None = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    n: int | None = None
    response_format: ResponseFormat | None = None
    regex: str | None = None
    ebnf: str | None = None
    session_id: str | None = None
    prompt_cache_key: str | None = None


class ChatFields(_Shared, kw_only=True):
    """What we read of a chat request."""

    messages: list[ChatMessage]
    max_completion_tokens: int | None = None
    tools: list[Tool] | None = None
    logprobs: bool | None = None
    continue_final_message: bool | None = None


class CompletionFields(_Shared, kw_only=True):
    """What we read of a completion request."""

    prompt: str | list[str | int]
    logprobs: int | None = None
    best_of: int | None = None
    echo: bool | None = None
    suffix: str | None = None
    json_schema: str | None = None


class Asked(msgspec.Struct, frozen=True, kw_only=True):
    """A request, understood."""

    api: Api
    raw: RawBody
    model: str
    token_bytes: bytes  # of the prompt, 4 bytes a token
    max_tokens: int | None  # None: as many as fit
    min_tokens: int
    choices: int  # n
    stream: bool
    wants_usage: bool
    agent_class: str  # digest of system prompt and tools; empty for completions
    fixed_because: str  # why a begun answer cannot be continued elsewhere; empty: it can
    continues_message: bool  # the client's own continue_final_message on an assistant message
    session_id: str
    prompt_cache_key: str

    @property
    def prompt_tokens(self) -> int:
        """Length of the prompt."""
        return len(self.token_bytes) // tokens.TOKEN_BYTES


_raw = msgspec.json.Decoder(RawBody)
_chat = msgspec.json.Decoder(ChatFields)
_completion = msgspec.json.Decoder(CompletionFields)


def parse(api: Api, body: bytes) -> Asked:
    """The request in `body`. Raises ApiError that names the field and what to change."""
    try:
        raw = _raw.decode(body)
        return (
            _chat_asked(raw, _chat.decode(body)) if api == "chat" else _completion_asked(raw, _completion.decode(body))
        )
    except msgspec.DecodeError as error:
        raise bad_json(error) from None
    except UnicodeDecodeError:
        raise ApiError(400, "The body is not valid UTF-8. Send JSON in UTF-8.", code="invalid_json") from None
    except RecursionError:
        raise ApiError(400, "The body is nested too deeply. Send flatter JSON.", code="invalid_json") from None


def _chat_asked(raw: RawBody, fields: ChatFields) -> Asked:
    if not fields.messages:
        raise invalid_value("messages", "'messages' is empty: send at least one message.")
    continues = bool(fields.continue_final_message) and fields.messages[-1].role == "assistant"
    try:
        text = tokens.render_chat(
            [message.as_mapping() for message in fields.messages], continue_final_message=continues
        )
    except ValueError as error:
        raise invalid_value("messages", f"Unsupported message: {error}.") from None
    max_name = "max_tokens" if fields.max_completion_tokens is None else "max_completion_tokens"
    max_tokens = fields.max_tokens if fields.max_completion_tokens is None else fields.max_completion_tokens
    return _asked(
        "chat",
        raw,
        fields,
        token_bytes=tokens.encode_text(text),
        max_tokens=_positive(max_name, max_tokens),
        agent_class=_agent_class(fields.messages, raw),
        logprobs=bool(fields.logprobs),
        continues_message=continues,
    )


def _completion_asked(raw: RawBody, fields: CompletionFields) -> Asked:
    max_tokens = COMPLETION_DEFAULT_TOKENS if fields.max_tokens is None else fields.max_tokens
    asked = _asked(
        "completions",
        raw,
        fields,
        token_bytes=_prompt_tokens(fields.prompt),
        max_tokens=_positive("max_tokens", max_tokens),
        agent_class="",
        logprobs=fields.logprobs is not None,
        continues_message=False,
    )
    fixed = "echo" if fields.echo else "suffix" if fields.suffix else "grammar" if fields.json_schema else ""
    if fields.best_of is not None and fields.best_of > 1:
        fixed = "best_of above 1"
    return msgspec.structs.replace(asked, fixed_because=fixed) if fixed and not asked.fixed_because else asked


def _asked(
    api: Api,
    raw: RawBody,
    fields: ChatFields | CompletionFields,
    *,
    token_bytes: bytes,
    max_tokens: int | None,
    agent_class: str,
    logprobs: bool,
    continues_message: bool,
) -> Asked:
    if not token_bytes:
        raise invalid_value(PROMPT_FIELD[api], f"'{PROMPT_FIELD[api]}' is empty: send at least one token.")
    choices = _positive("n", fields.n) or 1
    fixed = ""
    if choices > 1:
        fixed = "n above 1"
    elif logprobs:
        fixed = "logprobs"
    elif fields.regex or fields.ebnf or (fields.response_format and fields.response_format.type != "text"):
        fixed = "grammar"
    return Asked(
        api=api,
        raw=raw,
        model=fields.model,
        token_bytes=token_bytes,
        max_tokens=max_tokens,
        min_tokens=fields.min_tokens or 0,
        choices=choices,
        stream=bool(fields.stream),
        wants_usage=bool(fields.stream_options and fields.stream_options.include_usage),
        agent_class=agent_class,
        fixed_because=fixed,
        continues_message=continues_message,
        session_id=fields.session_id or "",
        prompt_cache_key=fields.prompt_cache_key or "",
    )


def _positive(name: str, value: int | None) -> int | None:
    if value is not None and value < 1:
        raise invalid_value(name, f"'{name}' is {value}: it must be at least 1.")
    return value


def _prompt_tokens(prompt: str | list[str | int]) -> bytes:
    if isinstance(prompt, str):
        return tokens.encode_text(prompt)
    ids = [item for item in prompt if isinstance(item, int)]
    if len(ids) == len(prompt):
        try:
            return tokens.encode_ids(ids)
        except ValueError as error:
            raise invalid_value("prompt", f"Invalid token id in 'prompt': {error}.") from None
    if len(prompt) == 1 and isinstance(prompt[0], str):
        return tokens.encode_text(prompt[0])
    raise invalid_value(
        "prompt", "'prompt' holds several prompts: send one string or one list of token ids per request."
    )


def _agent_class(messages: list[ChatMessage], raw: RawBody) -> str:
    """Sessions with the same system prompt and tools are one class, whatever they talk about."""
    digest = hashlib.sha256()
    for message in messages:
        if message.role not in ("system", "developer"):
            break
        digest.update(repr(message.content).encode("utf-8", "replace"))
    digest.update(bytes(raw.get("tools", b"")))
    return digest.hexdigest()[:16]
