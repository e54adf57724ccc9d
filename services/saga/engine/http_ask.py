"""From a parsed body to an Ask: prompt rendered and tokenized, limits checked, the answer's speech chosen.

What would change the answer's form (n, stop, logprobs, response_format, ...) is refused by name rather than ignored.
All that is wrong raises BadRequestError. Called by the generation endpoints.
"""

from typing import Final
from uuid import uuid4

import msgspec
from msgspec import Struct

from saga.engine.http_bodies import (
    ChatBody,
    CompletionBody,
    CountBody,
    EngineFields,
    Function,
    GenerateBody,
    MessagesBody,
    NamedChoice,
    OpenAiFields,
    ResponsesBody,
    SamplingParams,
)
from saga.engine.http_errors import BadRequestError
from saga.engine.http_tools import function_of_messages, function_of_responses
from saga.engine.output import FixedSpeech, FreeSpeech, LiveOutput, Speech
from saga.engine.profile import Profile
from saga.engine.text import Babble
from saga.engine.tool_call import ToolCall, make_call
from saga.kv.chat_forms import of_messages, of_responses, readable
from saga.kv.tokens import encode_ids, encode_text, render_chat, token_count

_BABBLE_FOR_ARGUMENTS: Final = 512
_DEFAULT_COMPLETION_TOKENS: Final = 16
_DEFAULT_GENERATE_TOKENS: Final = 128
_RESPONSES_HEADROOM_TOKENS: Final = 2  # that SGLang keeps back of max_output_tokens


class Ask(Struct, frozen=True):
    """A request to generate, checked and ready for the engine."""

    rid: str
    prompt_tokens: int
    max_new_tokens: int
    output: LiveOutput
    model: str = ""
    stream: bool = False
    include_usage: bool = False
    tool_call: ToolCall | None = None
    priority: int = 0
    session_id: str = ""
    cache_salt: str = ""


class Asks:
    """Makes an Ask of each kind of body, for one engine."""

    def __init__(self, profile: Profile, seed: int) -> None:
        self._profile = profile
        self._seed = seed
        self._room_tokens = min(profile.context_tokens, profile.kv_pages * profile.page_tokens)

    def chat(self, body: ChatBody) -> Ask:
        """Of a chat completion."""
        _refuse_form_changers(body)
        if body.input_ids is not None:
            prompt = _encoded(body.input_ids, "input_ids")
        else:
            try:
                text = render_chat(readable(body.messages), continue_final_message=body.continue_final_message)
            except ValueError as error:
                raise BadRequestError(str(error), param="messages") from None
            prompt = encode_text(text)
        limit = body.max_completion_tokens if body.max_completion_tokens is not None else body.max_tokens
        limit_name = "max_tokens" if body.max_completion_tokens is None else "max_completion_tokens"
        limit = self._limit(token_count(prompt), limit, "messages", limit_name)
        return self._openai(body, prompt, limit, _forced_tool(body))

    def completion(self, body: CompletionBody) -> Ask:
        """Of a text completion."""
        _refuse_form_changers(body)
        for name, asked in (("echo", body.echo), ("best_of", body.best_of not in {None, 1})):
            if asked:
                raise BadRequestError(f"the simulated engine does not support {name}; leave it out", param=name)
        prompt = _encoded(body.prompt, "prompt")
        limit = self._limit(token_count(prompt), body.max_tokens or _DEFAULT_COMPLETION_TOKENS, "prompt", "max_tokens")
        return self._openai(body, prompt, limit, None)

    def generate(self, body: GenerateBody) -> Ask:
        """Of SGLang's native endpoint."""
        params = body.sampling_params or SamplingParams()
        for name, asked in (
            ("sampling_params.n", params.n not in {None, 1}),
            ("sampling_params.stop", bool(params.stop)),
            ("return_logprob", body.return_logprob),
        ):
            if asked:
                raise BadRequestError(f"the simulated engine does not support {name}; leave it out", param=name)
        if (body.text is None) == (body.input_ids is None):
            raise BadRequestError("give exactly one of text and input_ids", param="text")
        name = "text" if body.text is not None else "input_ids"
        prompt = _encoded(body.text if body.text is not None else body.input_ids or [], name)
        wanted = _DEFAULT_GENERATE_TOKENS if params.max_new_tokens is None else params.max_new_tokens
        limit = self._limit(token_count(prompt), wanted, name, "max_new_tokens")
        babble = self._babble(prompt, params.sampling_seed)
        return self._ask(body, prompt, limit, FreeSpeech(babble, limit, ignore_eos=params.ignore_eos))

    def messages(self, body: MessagesBody) -> Ask:
        """Of Anthropic's Messages API."""
        _refuse(stop_sequences=body.stop_sequences, output_config=body.output_config and body.output_config.format)
        prompt = _prompt_of_messages(body)
        limit = self._limit(token_count(prompt), body.max_tokens, "messages", "max_tokens")
        plain = EngineFields(stream=body.stream)
        return self._said(plain, prompt, limit, function_of_messages(body), model=body.model)

    def count(self, body: CountBody) -> int:
        """Prompt tokens of a message that is not to be answered."""
        return token_count(_prompt_of_messages(body))

    def responses(self, body: ResponsesBody) -> Ask:
        """Of OpenAI's Responses API."""
        kind = body.text.format.type if body.text and body.text.format else "text"
        logprobs = "message.output_text.logprobs" in (body.include or ())
        _refuse(stop=body.stop, text=kind != "text", include=logprobs)
        for name, asked in (("previous_response_id", body.previous_response_id), ("background", body.background)):
            if asked:
                raise BadRequestError(f"Response store is disabled; leave {name} out", param=name)
        prompt = encode_text(render_chat(of_responses(body.instructions, body.input)))
        wanted = body.max_output_tokens
        if wanted is not None:
            wanted = max(1, wanted - _RESPONSES_HEADROOM_TOKENS)
        limit = self._limit(token_count(prompt), wanted, "input", "max_output_tokens")
        ask = self._said(body, prompt, limit, function_of_responses(body), model=body.model)
        return msgspec.structs.replace(ask, rid=body.request_id) if body.request_id else ask

    def _openai(self, body: OpenAiFields, prompt: bytes, limit: int, tool: Function | None) -> Ask:
        ask = self._said(body, prompt, limit, tool, model=body.model, seed=body.seed, ignore_eos=body.ignore_eos)
        include_usage = body.stream_options is not None and body.stream_options.include_usage
        return msgspec.structs.replace(ask, include_usage=include_usage)

    def _said(
        self,
        body: EngineFields,
        prompt: bytes,
        limit: int,
        tool: Function | None,
        *,
        model: str,
        seed: int | None = None,
        ignore_eos: bool = False,
    ) -> Ask:
        """A request that is answered with words, or with a call of this tool."""
        babble = self._babble(prompt, seed)
        speech: Speech
        call: ToolCall | None = None
        if tool is None:
            speech = FreeSpeech(babble, limit, ignore_eos=ignore_eos)
        else:
            fill_tokens = limit if ignore_eos else 0
            words = babble.first(_BABBLE_FOR_ARGUMENTS).decode()
            call = make_call(tool.name, tool.parameters or {}, words, fill_tokens)
            speech = FixedSpeech(call.text.encode(), limit, "tool_calls")
        return msgspec.structs.replace(self._ask(body, prompt, limit, speech), model=model, tool_call=call)

    def _ask(self, body: EngineFields, prompt: bytes, limit: int, speech: Speech) -> Ask:
        cache_salt = body.cache_salt or ""
        return Ask(
            rid=body.rid or uuid4().hex,
            prompt_tokens=token_count(prompt),
            max_new_tokens=limit,
            output=LiveOutput(prompt, self._profile.page_tokens, cache_salt, speech),
            stream=body.stream,
            priority=body.priority or 0,
            session_id=body.session_id or "",
            cache_salt=cache_salt,
        )

    def _babble(self, prompt: bytes, seed: int | None) -> Babble:
        return Babble(self._seed if seed is None else seed, prompt, self._profile.mean_output_tokens)

    def _limit(self, prompt_tokens: int, wanted: int | None, prompt_name: str, limit_name: str) -> int:
        """Output tokens allowed: what is wanted, or all that is left of the context."""
        room = self._room_tokens
        if prompt_tokens < 1:
            raise BadRequestError(f"{prompt_name} is empty; send at least one token", param=prompt_name)
        if prompt_tokens >= room:
            raise BadRequestError(
                f"The input ({prompt_tokens} tokens) is longer than the model's context length ({room} tokens); "
                f"shorten {prompt_name}",
                param=prompt_name,
                code="context_length_exceeded",
            )
        if wanted is not None and prompt_tokens + wanted > room:
            raise BadRequestError(
                f"Requested token count exceeds the model's maximum context length of {room} tokens: {prompt_tokens} "
                f"of input and {wanted} of output; "
                f"lower {limit_name} to {room - prompt_tokens} or shorten {prompt_name}",
                param=limit_name,
                code="context_length_exceeded",
            )
        return room - prompt_tokens if wanted is None else wanted


def _prompt_of_messages(body: CountBody) -> bytes:
    return encode_text(render_chat(of_messages(body.system, body.messages)))


def _encoded(prompt: str | list[int], name: str) -> bytes:
    if isinstance(prompt, str):
        return encode_text(prompt)
    try:
        return encode_ids(prompt)
    except ValueError as error:
        raise BadRequestError(str(error), param=name) from None


def _forced_tool(body: ChatBody) -> Function | None:
    choice = body.tool_choice
    if choice is None or choice in ("auto", "none"):
        return None
    if not body.tools:
        raise BadRequestError("tool_choice asks for a tool, but tools is empty", param="tools")
    if choice == "required":
        return body.tools[0].function
    if isinstance(choice, NamedChoice):
        for tool in body.tools:
            if tool.function.name == choice.function.name:
                return tool.function
        raise BadRequestError(f"tool_choice names {choice.function.name!r}, which is not in tools", param="tool_choice")
    raise BadRequestError("tool_choice must be auto, none, required or a named function", param="tool_choice")


def _refuse_form_changers(body: OpenAiFields) -> None:
    kind = (body.response_format or {}).get("type", "text")
    _refuse(
        n=body.n not in {None, 1},
        stop=body.stop,
        logprobs=body.logprobs,
        response_format=kind != "text",
        session_params=body.session_params,
        json_schema=body.json_schema is not None,
        regex=body.regex is not None,
        ebnf=body.ebnf is not None,
    )


def _refuse(**asked: object) -> None:
    """Raises BadRequestError for the first field that asks for something."""
    for name, wanted in asked.items():
        if wanted:
            raise BadRequestError(f"the simulated engine does not support {name}; leave it out", param=name)
