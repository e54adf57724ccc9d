"""The built-in byte tokenizer and its chat template: text to token bytes and back.

Not a general tokenizer: ids and template are exactly those of the tiny Qwen2 model that real SGLang is tested with
(byte-level BPE without merges and five special tokens), so that simulated and real page hashes compare.
Called by the gateway (prompts), the simulated engine (prompts and answers) and the load generator.

"Token bytes" are the form in which tokens travel inside a process: 4 bytes per token, unsigned little-endian, which is
also what SGLang hashes.
"""

import codecs
import re
import sys
from array import array
from collections.abc import Mapping, Sequence
from typing import Final

TOKEN_BYTES: Final = 4
BOS_ID: Final = 0
EOS_ID: Final = 1
PAD_ID: Final = 2
IM_START_ID: Final = 3
IM_END_ID: Final = 4
SPECIALS: Final = ("<|bos|>", "<|eos|>", "<|pad|>", "<|im_start|>", "<|im_end|>")
VOCAB_IDS: Final = len(SPECIALS) + 256
"""Ids with a meaning: five specials and one per byte. The tiny model's embedding has 320 rows; the rest are unused."""

_TEXT_PARTS: Final = ("text", "input_text")
_CONTENT_FORMS: Final = 'a string or a list of {"type": "text", "text": ...} parts'


def _byte_unicode(byte: int, shifted: dict[int, int]) -> int:
    """GPT-2's ByteLevel alphabet: printable latin-1 stands for itself, the others follow from U+0100 on."""
    if 0x21 <= byte <= 0x7E or 0xA1 <= byte <= 0xAC or 0xAE <= byte <= 0xFF:
        return byte
    shifted[byte] = 256 + len(shifted)
    return shifted[byte]


def _ids_of_bytes() -> list[int]:
    shifted: dict[int, int] = {}
    alphabet = [_byte_unicode(byte, shifted) for byte in range(256)]
    rank = {code: len(SPECIALS) + i for i, code in enumerate(sorted(alphabet))}
    return [rank[code] for code in alphabet]


ID_OF_BYTE: Final = tuple(_ids_of_bytes())
_BYTE_OF_ID: Final = {token: byte for byte, token in enumerate(ID_OF_BYTE)}
_CHARMAP: Final = "".join(map(chr, ID_OF_BYTE))
_LOW_TO_BYTE: Final = bytes(_BYTE_OF_ID.get(low, _BYTE_OF_ID.get(low + 256, 0)) for low in range(256))
_PLAIN_LOW: Final = bytes(range(len(SPECIALS), 256))
_SPECIAL_BYTES: Final = {name: token.to_bytes(TOKEN_BYTES, "little") for token, name in enumerate(SPECIALS)}
_SPECIAL_PATTERN: Final = re.compile("(" + "|".join(map(re.escape, SPECIALS)) + ")")
_TEXT_OF_ID: Final = tuple(name.encode() for name in SPECIALS)


def encode_bytes(data: bytes) -> bytes:
    """Token bytes of raw bytes, one token per byte; no special tokens are looked for."""
    return codecs.charmap_decode(data, "strict", _CHARMAP)[0].encode("utf-32-le")


def encode_text(text: str) -> bytes:
    """Token bytes of `text`: one token per UTF-8 byte; special tokens written out in it become their one id.

    Lone surrogates (they arrive through JSON escapes) become "?", as a tokenizer over UTF-8 cannot carry them.
    """
    if "<|" not in text:
        return encode_bytes(text.encode("utf-8", "replace"))
    return b"".join(
        [
            _SPECIAL_BYTES.get(part) or encode_bytes(part.encode("utf-8", "replace"))
            for part in _SPECIAL_PATTERN.split(text)
        ]
    )


def encode_ids(ids: Sequence[int]) -> bytes:
    """Token bytes of a list of token ids. Raises ValueError for an id that is no unsigned 32-bit integer."""
    try:
        values = array("I", ids)
    except (OverflowError, TypeError) as error:
        raise ValueError(f"token ids must be integers from 0 to 4294967295: {error}") from None
    if sys.byteorder == "big":
        values.byteswap()
    return values.tobytes()


def decode_ids(token_bytes: bytes) -> list[int]:
    """The token ids in `token_bytes`."""
    values = array("I", token_bytes)
    if sys.byteorder == "big":
        values.byteswap()
    return values.tolist()


def token_count(token_bytes: bytes) -> int:
    """Number of tokens in `token_bytes`."""
    return len(token_bytes) // TOKEN_BYTES


def decode_tokens(token_bytes: bytes) -> str:
    """Text of token bytes, specials written out; ids without a meaning give nothing, broken UTF-8 gives U+FFFD."""
    low = token_bytes[0::TOKEN_BYTES]
    zeros = sum(token_bytes[i::TOKEN_BYTES].count(0) for i in range(1, TOKEN_BYTES))
    if zeros == len(low) * (TOKEN_BYTES - 1) and not low.translate(None, _PLAIN_LOW):
        return low.translate(_LOW_TO_BYTE).decode("utf-8", "replace")
    parts = []
    for token in decode_ids(token_bytes):
        if token < len(SPECIALS):
            parts.append(_TEXT_OF_ID[token])
        elif token < VOCAB_IDS:
            parts.append(_BYTE_OF_ID[token].to_bytes(1, "little"))
    return b"".join(parts).decode("utf-8", "replace")


def message_text(content: object) -> str:
    """Text of a chat message's content: a string, null (empty) or text parts, joined by a space as SGLang joins them.

    Raises ValueError for anything else.
    """
    if isinstance(content, str):
        return content
    if content is None:
        return ""
    if not isinstance(content, Sequence):
        raise ValueError(f"content must be {_CONTENT_FORMS}")  # noqa: TRY004 - one error type for bad input
    texts = []
    for part in content:
        text = part.get("text") if isinstance(part, Mapping) and part.get("type") in _TEXT_PARTS else None
        if not isinstance(text, str):
            raise ValueError(f"content must be {_CONTENT_FORMS}")  # noqa: TRY004 - as above
        texts.append(text)
    return " ".join(texts)


def render_chat(
    messages: Sequence[Mapping[str, object]],
    tools: Sequence[object] | None = None,
    *,
    add_generation_prompt: bool = True,
    continue_final_message: bool = False,
) -> str:
    """The prompt of a chat, byte for byte as the tiny model's template renders it in SGLang.

    That template knows only role and content: `tools` and `tool_calls` leave no trace. With `continue_final_message` a
    last assistant message is left open, so that the answer goes on where it stops.
    Raises ValueError when a role is no string or a content is neither text nor text parts.
    """
    del tools  # the template ignores them; the parameter keeps callers independent of the template
    open_text: str | None = None
    if continue_final_message and messages and messages[-1].get("role") == "assistant":
        open_text = message_text(messages[-1].get("content"))
        messages = messages[:-1]
    parts = []
    for message in messages:
        role = message.get("role")
        if not isinstance(role, str):
            raise ValueError("role must be a string")  # noqa: TRY004 - one error type for bad input
        parts.append(f"<|im_start|>{role}\n{message_text(message.get('content'))}<|im_end|>\n")
    if add_generation_prompt or open_text is not None:
        parts.append("<|im_start|>assistant\n")
    if open_text is not None:
        parts.append(open_text)
    return "".join(parts)
