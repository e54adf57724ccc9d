"""What requests of the two completion APIs have in common, typed. Pure."""

import hashlib
from collections.abc import Sequence

import msgspec

from saga.gateway.dialects.dialect import Api, Asked, RawBody, has_words, positive
from saga.gateway.dialects.prompt import PromptSource


class StreamOptions(msgspec.Struct):
    """`stream_options`."""

    include_usage: bool | None = None


class ResponseFormat(msgspec.Struct):
    """`response_format`: only whether it constrains the output."""

    type: str


class SharedFields(msgspec.Struct, kw_only=True):
    """What we read of both."""

    model: str
    max_tokens: int | None = None
    min_tokens: int | None = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    n: int | None = None
    response_format: ResponseFormat | None = None
    regex: str | None = None
    ebnf: str | None = None


def asked_of(
    api: Api,
    raw: RawBody,
    fields: SharedFields,
    *,
    prompt_field: str,
    source: PromptSource,
    max_tokens: int | None,
    fixed: str,
    agent_class: str = "",
    continues_message: bool = False,
    roles: tuple[str, ...] = (),
    opening: str = "",
) -> Asked:
    """The request. `fixed`: what else fixes an answer to its engine. Raises ApiError."""
    choices = positive("n", fields.n) or 1
    if choices > 1:
        fixed = "n above 1"
    elif fields.regex or fields.ebnf or (fields.response_format and fields.response_format.type != "text"):
        fixed = fixed or "grammar"
    return Asked(
        api=api,
        raw=raw,
        model=fields.model,
        source=has_words(prompt_field, source),
        max_tokens=max_tokens,
        min_tokens=fields.min_tokens or 0,
        choices=choices,
        stream=bool(fields.stream),
        wants_usage=bool(fields.stream_options and fields.stream_options.include_usage),
        agent_class=agent_class,
        fixed_because=fixed,
        continues_message=continues_message,
        roles=roles,
        opening=opening,
    )


def agent_class(system: Sequence[object], raw: RawBody) -> str:
    """Sessions with the same system prompt and tools are one class, whatever they talk about."""
    digest = hashlib.sha256()
    for content in system:
        digest.update(repr(content).encode("utf-8", "replace"))
    digest.update(bytes(raw.get("tools", b"")))
    return digest.hexdigest()[:16]
