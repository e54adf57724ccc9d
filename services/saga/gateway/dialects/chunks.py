"""Chunks and whole answers of /v1/chat/completions and /v1/completions: what is read of them. Pure."""

from typing import Final

import msgspec

from saga.gateway import transcript


class FunctionCall(msgspec.Struct):
    """The function of a tool call; a stream names it once."""

    name: str | None = None


class ToolCall(msgspec.Struct):
    """One tool call, or a piece of one."""

    id: str | None = None
    function: FunctionCall | None = None


class Delta(msgspec.Struct):
    """What a chunk adds to a chat answer; also a whole message."""

    role: str | None = None
    content: str | None = None
    reasoning_content: str | None = None
    tool_calls: list[ToolCall] | None = None


class Choice(msgspec.Struct):
    """One choice of a chunk or of an answer."""

    delta: Delta | None = None
    message: Delta | None = None
    text: str | None = None
    finish_reason: str | None = None


class CachedDetails(msgspec.Struct):
    """`prompt_tokens_details`."""

    cached_tokens: int | None = None


class Usage(msgspec.Struct):
    """`usage`."""

    prompt_tokens: int = 0
    completion_tokens: int | None = 0
    prompt_tokens_details: CachedDetails | None = None

    def plain(self) -> transcript.Usage:
        """As the gateway counts it."""
        cached_tokens = self.prompt_tokens_details.cached_tokens if self.prompt_tokens_details else None
        counts = cached_tokens is not None
        return transcript.Usage(self.prompt_tokens, self.completion_tokens or 0, cached_tokens or 0, counts)


class Answer(msgspec.Struct):
    """A chunk of a stream, or a whole answer."""

    id: str = ""
    created: int = 0
    choices: list[Choice] = []
    usage: Usage | None = None
    error: msgspec.Raw = msgspec.Raw()

    @property
    def finish_reason(self) -> str | None:
        """The first that is given."""
        return next((choice.finish_reason for choice in self.choices if choice.finish_reason), None)

    def tools(self) -> tuple[str, ...]:
        """Names of the tools called in it."""
        return tuple(
            call.function.name
            for choice in self.choices
            for said in (choice.delta or choice.message,)
            if said and said.tool_calls
            for call in said.tool_calls
            if call.function and call.function.name
        )


ANSWERS: Final = msgspec.json.Decoder(Answer)
