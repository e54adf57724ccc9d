"""Request bodies of the generation endpoints, as typed Structs. Bad JSON and wrong types raise BadRequestError.

Fields that mean nothing to the simulation (temperature and the like) are accepted and dropped here.
"""

from typing import Annotated, Any, Literal, TypeVar

import msgspec
from msgspec import Meta, Struct

from saga.engine.http_errors import BadRequestError
from saga.kv.chat_forms import Content, Item, Message

Count = Annotated[int, Meta(ge=1)]
Id = Annotated[str, Meta(max_length=512)]


class StreamOptions(Struct):
    """`stream_options`."""

    include_usage: bool = False


class EngineFields(Struct, kw_only=True):
    """What SGLang's own fields may say on every generation endpoint."""

    stream: bool = False
    rid: Id | None = None
    session_id: Id | None = None
    priority: int | None = None
    cache_salt: Id | None = None


class OpenAiFields(EngineFields, kw_only=True):
    """What chat and text completions share."""

    model: str = ""
    max_tokens: Count | None = None
    ignore_eos: bool = False
    seed: int | None = None
    stream_options: StreamOptions | None = None
    n: int | None = None
    stop: str | list[str] | None = None
    logprobs: bool | int | None = None
    response_format: dict[str, Any] | None = None
    session_params: dict[str, Any] | None = None
    json_schema: str | None = None
    regex: str | None = None
    ebnf: str | None = None


class Function(Struct):
    """A tool's function."""

    name: Annotated[str, Meta(min_length=1)]
    parameters: dict[str, Any] | None = None


class Tool(Struct):
    """A tool."""

    function: Function


class NamedFunction(Struct):
    """The function in a `tool_choice` object."""

    name: str


class NamedChoice(Struct):
    """`tool_choice` that names a function."""

    function: NamedFunction


class ChatBody(OpenAiFields, kw_only=True):
    """POST /v1/chat/completions."""

    messages: Annotated[list[dict[str, Any]], Meta(min_length=1)]
    max_completion_tokens: Count | None = None
    continue_final_message: bool = False
    tools: list[Tool] | None = None
    tool_choice: str | NamedChoice | None = None
    input_ids: list[int] | None = None  # the prompt, in the place of the messages


class CompletionBody(OpenAiFields, kw_only=True):
    """POST /v1/completions."""

    prompt: str | list[int]
    echo: bool = False
    best_of: int | None = None


class AnthropicTool(Struct):
    """A tool of the Messages API; those of Anthropic's own kinds have no schema."""

    name: Annotated[str, Meta(min_length=1)]
    type: str | None = None
    input_schema: dict[str, Any] | None = None


class AnthropicChoice(Struct):
    """`tool_choice` of the Messages API."""

    type: Literal["auto", "any", "tool", "none"]
    name: str | None = None


class OutputConfig(Struct):
    """`output_config`: only whether it constrains the output."""

    format: dict[str, Any] | None = None


class CountBody(Struct, kw_only=True):
    """POST /v1/messages/count_tokens."""

    model: str
    messages: Annotated[list[Message], Meta(min_length=1)]
    system: Content | None = None
    tools: list[AnthropicTool] | None = None
    tool_choice: AnthropicChoice | None = None


class MessagesBody(CountBody, kw_only=True):
    """POST /v1/messages. SGLang reads none of its own fields here: no rid, session, priority or salt."""

    stream: bool = False
    max_tokens: Count
    stop_sequences: list[str] | None = None
    output_config: OutputConfig | None = None


class ResponseTool(Struct):
    """A tool of the Responses API."""

    type: str
    name: str | None = None
    parameters: dict[str, Any] | None = None


class ResponseChoice(Struct):
    """`tool_choice` that names a tool."""

    type: str
    name: str | None = None


class TextFormat(Struct):
    """`text.format`."""

    type: str = "text"


class TextConfig(Struct):
    """`text`."""

    format: TextFormat | None = None


class ResponsesBody(EngineFields, kw_only=True):
    """POST /v1/responses."""

    input: str | Annotated[list[Item], Meta(min_length=1)]
    model: str = ""
    instructions: str | None = None
    max_output_tokens: Count | None = None
    request_id: Id | None = None
    previous_response_id: str | None = None
    background: bool | None = None
    include: list[str] | None = None
    text: TextConfig | None = None
    stop: str | list[str] | None = None
    tools: list[ResponseTool] | None = None
    tool_choice: str | ResponseChoice | None = None
    parallel_tool_calls: bool | None = None
    store: bool | None = True
    temperature: float | None = None
    top_p: float | None = None
    truncation: str | None = "disabled"
    user: str | None = None
    metadata: dict[str, Any] | None = None


class SamplingParams(Struct):
    """`sampling_params` of /generate."""

    max_new_tokens: Annotated[int, Meta(ge=0)] | None = None
    ignore_eos: bool = False
    sampling_seed: int | None = None
    n: int | None = None
    stop: str | list[str] | None = None


class GenerateBody(EngineFields, kw_only=True):
    """POST /generate."""

    text: str | None = None
    input_ids: list[int] | None = None
    sampling_params: SamplingParams | None = None
    return_logprob: bool = False


BodyT = TypeVar("BodyT")


def decode(body: bytes, kind: type[BodyT]) -> BodyT:
    """Parse JSON. Raises BadRequestError that names the field."""
    try:
        return msgspec.json.decode(body, type=kind)
    except msgspec.ValidationError as error:
        message = str(error)
        _, _, path = message.partition(" - at `$")
        param = path.rstrip("`").lstrip(".") or _missing_field(message)
        raise BadRequestError(message, param=param) from None
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise BadRequestError(f"the body is no valid JSON: {error}", code="invalid_json") from None


def _missing_field(message: str) -> str | None:
    """`Object missing required field `x`` names its field without a path."""
    parts = message.split("`")
    return parts[1] if "missing required field" in message and len(parts) > 1 else None
