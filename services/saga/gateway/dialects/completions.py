"""/v1/completions. Pure."""

from typing import ClassVar, Final

import msgspec

from saga.gateway.api_errors import invalid_value
from saga.gateway.dialects.chat import fewer_tokens
from saga.gateway.dialects.completion_stream import CompletionStream
from saga.gateway.dialects.dialect import Api, Asked, Changes, Continued, RawBody, positive
from saga.gateway.dialects.openai_fields import SharedFields, asked_of
from saga.gateway.dialects.prompt import IdsPrompt, PromptSource, TextPrompt
from saga.gateway.transcript import Transcript
from saga.kv import tokens

DEFAULT_TOKENS: Final = 16  # without max_tokens, in OpenAI's API as in SGLang


class CompletionFields(SharedFields, kw_only=True):
    """What we read of a request."""

    prompt: str | list[str | int]
    logprobs: int | None = None
    best_of: int | None = None
    echo: bool | None = None
    suffix: str | None = None
    json_schema: str | None = None


_completion = msgspec.json.Decoder(CompletionFields)
_json = msgspec.json.Decoder()


class Completions(CompletionStream):
    """As Dialect."""

    api: Api = "completions"
    path = "/v1/completions"
    prompt_field = "prompt"
    messages_field = ""
    object_name = "text_completion"
    nothing_said: ClassVar[Changes] = {"text": ""}

    def parse(self, raw: RawBody, body: bytes) -> Asked:
        """As Dialect."""
        fields = _completion.decode(body)
        max_tokens = DEFAULT_TOKENS if fields.max_tokens is None else fields.max_tokens
        return asked_of(
            "completions",
            raw,
            fields,
            prompt_field="prompt",
            source=_source(fields.prompt),
            max_tokens=positive("max_tokens", max_tokens),
            fixed=_fixed(fields),
        )

    @property
    def continued(self) -> Continued:
        """As Dialect."""
        return _continued


def _fixed(fields: CompletionFields) -> str:
    if fields.best_of is not None and fields.best_of > 1:
        return "best_of above 1"
    if fields.logprobs is not None:
        return "logprobs"
    return "echo" if fields.echo else "suffix" if fields.suffix else "grammar" if fields.json_schema else ""


def _source(prompt: str | list[str | int]) -> PromptSource:
    if isinstance(prompt, str):
        return TextPrompt(prompt)
    ids = [item for item in prompt if isinstance(item, int)]
    if len(ids) == len(prompt):
        try:
            return IdsPrompt(tokens.encode_ids(ids))
        except ValueError as error:
            raise invalid_value("prompt", f"Invalid token id in 'prompt': {error}.") from None
    if len(prompt) == 1 and isinstance(prompt[0], str):
        return TextPrompt(prompt[0])
    raise invalid_value(
        "prompt", "'prompt' holds several prompts: send one string or one list of token ids per request."
    )


def _continued(asked: Asked, sent: Transcript) -> Changes:
    """The prompt with the text that was sent, and fewer tokens to go."""
    return fewer_tokens(asked, sent) | {"prompt": _longer_prompt(asked, sent)}


def _longer_prompt(asked: Asked, sent: Transcript) -> object:
    prompt = _json.decode(asked.raw["prompt"])
    if isinstance(prompt, list):
        if isinstance(prompt[0], str):
            return prompt[0] + sent.text
        return tokens.decode_ids(asked.token_bytes + (sent.text_token_bytes or b""))
    return prompt + sent.text
