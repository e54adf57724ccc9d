"""What a request's prompt is made of, before it is tokens: that takes the model's tokenizer. Pure."""

from collections.abc import Mapping, Sequence

import msgspec


class TextPrompt(msgspec.Struct, frozen=True):
    """A text as it is."""

    text: str


class IdsPrompt(msgspec.Struct, frozen=True):
    """Token ids, the client's own."""

    token_bytes: bytes  # 4 bytes a token


class ChatPrompt(msgspec.Struct, frozen=True):
    """Messages for a template."""

    messages: Sequence[Mapping[str, object]]  # role and text; with calls of tools where the API is not chat
    continues: bool = False  # the last one is to be gone on with


PromptSource = TextPrompt | IdsPrompt | ChatPrompt
