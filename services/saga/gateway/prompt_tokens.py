"""A request's prompt as tokens, by the tokenizer of its model. Pure.

`ByteTokenizer` is the simulated engine's; `ModelTokenizer` is made of the files beside a model's weights. Both hash and
count what the engine will see, so that its KV pages can be named without asking it; `agreement.py` watches that.
"""

from collections.abc import Callable, Mapping
from typing import Final, Protocol

import msgspec

from saga.contract.unreadable import UNREADABLE
from saga.gateway.chat_template import BadTemplateError, ChatTemplate, RenderError
from saga.gateway.dialects.dialect import Asked
from saga.gateway.dialects.prompt import ChatPrompt, IdsPrompt, TextPrompt
from saga.gateway.template_input import template_input
from saga.gateway.vocabulary import Encoded, Vocabulary
from saga.kv import tokens

SPECIAL_NAMES: Final = ("bos_token", "eos_token", "pad_token", "unk_token", "cls_token", "sep_token", "mask_token")


class Prompted(msgspec.Struct, frozen=True):
    """A prompt in tokens."""

    encoded: Encoded
    exact: bool = True  # the engine must count as many; else its count says nothing about the tokenizer
    unknown: bool = False  # only the length is a guess, the tokens mean nothing


class Tokenizer(Protocol):
    """One model's. May be called from any thread."""

    def prompted(self, asked: Asked, last: Encoded | None) -> Prompted:
        """The prompt; what it has in common with the session's `last` one need not be tokenized again."""
        ...

    def words(self, text: str) -> bytes:
        """Token bytes of a piece of text in the middle of others."""
        ...


class ByteTokenizer:
    """One token a byte: the simulated engine's, and the tiny model's that real SGLang is tested with."""

    def prompted(self, asked: Asked, last: Encoded | None) -> Prompted:
        """As Tokenizer. Cheaper than finding out what could be left out."""
        del last
        source = asked.source
        if isinstance(source, IdsPrompt):
            return Prompted(Encoded(source.token_bytes))
        if isinstance(source, TextPrompt):
            return Prompted(Encoded(tokens.encode_text(source.text)))
        text = tokens.render_chat(source.messages, continue_final_message=source.continues)
        return Prompted(Encoded(tokens.encode_text(text)))

    def words(self, text: str) -> bytes:
        """As Tokenizer."""
        return tokens.encode_text(text)


BYTES: Final = ByteTokenizer()


class ModelTokenizer:
    """Of a model's tokenizer.json and chat template."""

    def __init__(self, vocabulary: Vocabulary, template: ChatTemplate | None) -> None:
        self.vocabulary = vocabulary
        self._template = template

    def prompted(self, asked: Asked, last: Encoded | None) -> Prompted:
        """As Tokenizer."""
        source = asked.source
        if isinstance(source, IdsPrompt):
            return Prompted(Encoded(source.token_bytes))
        if isinstance(source, TextPrompt):
            return Prompted(self.vocabulary.encode(source.text, last, specials=True))
        try:
            return self._chat(asked, source, last)
        except (RenderError, msgspec.DecodeError, RecursionError, TypeError, ValueError, AttributeError):
            # The engine renders for itself, so it may still take this chat, and if not its answer says why.
            guess = sum(len(str(message.get("content") or "")) for message in source.messages) // tokens.TOKEN_BYTES
            return Prompted(Encoded(bytes(tokens.TOKEN_BYTES * max(1, guess))), exact=False, unknown=True)

    def _chat(self, asked: Asked, source: ChatPrompt, last: Encoded | None) -> Prompted:
        if self._template is None:
            raise RenderError("the model has no chat template")
        given = template_input(asked, source, self._template.content_form)
        text = self._template.render(
            given.messages, given.tools, given.options, add_generation_prompt=given.add_generation_prompt
        )
        encoded = self.vocabulary.encode(text, last)
        if given.prefix:  # SGLang adds its tokens, not its text
            encoded = Encoded(encoded.token_bytes + self.words(given.prefix))
        return Prompted(encoded, exact=given.exact)

    def words(self, text: str) -> bytes:
        """As Tokenizer."""
        return self.vocabulary.encode(text).token_bytes


def model_tokenizer(
    tokenizer_json: str, config_json: str, template: str | None, wall_s: Callable[[], float]
) -> ModelTokenizer:
    """Of the texts of a model's files: tokenizer.json, tokenizer_config.json, and chat_template.jinja if there is one.

    Raises BadVocabularyError, BadTemplateError.
    """
    try:
        config = msgspec.json.decode(config_json, type=dict[str, object]) if config_json else {}
    except UNREADABLE as error:
        raise BadTemplateError(f"no tokenizer_config.json: {error}") from error
    source = template if template is not None else _template_in(config.get("chat_template"))
    specials = {name: text for name in SPECIAL_NAMES if (text := _text_of(config.get(name)))}
    vocabulary = Vocabulary(tokenizer_json)
    return ModelTokenizer(vocabulary, ChatTemplate(source, specials, wall_s) if source else None)


def _template_in(given: object) -> str:
    """One template, or the one named `default` of several."""
    if isinstance(given, list):
        named = {entry.get("name"): entry.get("template") for entry in given if isinstance(entry, Mapping)}
        given = named.get("default")
    return given if isinstance(given, str) else ""


def _text_of(token: object) -> str:
    """A special token is its text, or an object with it."""
    text = token.get("content") if isinstance(token, Mapping) else token
    return text if isinstance(text, str) else ""
