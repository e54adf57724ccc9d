"""What a live request will say, as EngineCore asks for it and as the HTTP shell reads it: made lazily, hashed by pages.

Not the simulator's: that one knows lengths and hashes beforehand (`events.FixedOutput`) and makes no text.
"""

from typing import Final, Protocol

from saga.engine.text import Babble
from saga.kv.pages import PageChain
from saga.kv.tokens import TOKEN_BYTES, encode_bytes

_AHEAD_TOKENS: Final = 64
"""Where the answer decides itself when it ends, so many tokens are made at a time."""


class Speech(Protocol):
    """The bytes of an answer, one per token."""

    def plan(self, produced_tokens: int) -> tuple[int, str]:
        """See events.Output."""
        ...

    def first(self, tokens: int) -> bytes:
        """The first `tokens` tokens."""
        ...


class FreeSpeech:
    """Babble that ends by itself, or at `max_new_tokens`; with `ignore_eos` only there."""

    def __init__(self, babble: Babble, max_new_tokens: int, *, ignore_eos: bool) -> None:
        self._babble = babble
        self._max_new_tokens = max_new_tokens
        self._ignore_eos = ignore_eos

    def plan(self, produced_tokens: int) -> tuple[int, str]:
        """Known at once with `ignore_eos`, else made a little ahead."""
        if self._ignore_eos:
            return self._max_new_tokens, "length"
        known = min(self._max_new_tokens, produced_tokens + _AHEAD_TOKENS)
        self._babble.grow(known)
        if 0 < self._babble.stop_tokens <= known:
            return self._babble.stop_tokens, "stop"
        return known, "length" if known == self._max_new_tokens else ""

    def first(self, tokens: int) -> bytes:
        """The first `tokens` tokens."""
        return self._babble.first(tokens)


class FixedSpeech:
    """A text known from the start: a tool call. Cut off at `max_new_tokens`."""

    def __init__(self, text: bytes, max_new_tokens: int, reason: str) -> None:
        self._text = text[:max_new_tokens]
        self._reason = reason if len(text) <= max_new_tokens else "length"

    def plan(self, produced_tokens: int) -> tuple[int, str]:
        """All of it."""
        del produced_tokens
        return len(self._text), self._reason

    def first(self, tokens: int) -> bytes:
        """The first `tokens` tokens."""
        return self._text[:tokens]


class LiveOutput:
    """Prompt and answer of one request: EngineCore's `Output`, and the source of text and token ids."""

    __slots__ = ("_chain", "_prompt", "_prompt_tokens", "_speech", "plan")

    def __init__(self, prompt: bytes, page_tokens: int, cache_salt: str, speech: Speech) -> None:
        """`prompt`: token bytes."""
        self._prompt = prompt
        self._prompt_tokens = len(prompt) // TOKEN_BYTES
        self._chain = PageChain(page_tokens, cache_salt).extended(prompt)
        self._speech = speech
        self.plan = speech.plan

    def page_hashes(self, tokens: int) -> bytes:
        """Page hashes of the first `tokens` tokens of prompt and answer."""
        said = tokens - self._prompt_tokens
        if said <= 0:
            return self._chain.hashes
        return self._chain.extended(encode_bytes(self._speech.first(said))).hashes

    def token_bytes(self, first_token: int, tokens: int) -> bytes:
        """Token bytes of `tokens` tokens of prompt and answer from `first_token` on."""
        end = first_token + tokens
        said = end - self._prompt_tokens
        if said <= 0:
            return self._prompt[first_token * TOKEN_BYTES : end * TOKEN_BYTES]
        both = self._prompt + encode_bytes(self._speech.first(said))
        return both[first_token * TOKEN_BYTES : end * TOKEN_BYTES]

    def text(self, first_token: int, end_token: int) -> bytes:
        """The answer from its `first_token` to `end_token` (not included), ASCII."""
        return self._speech.first(end_token)[first_token:]
