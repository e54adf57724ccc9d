"""What the simulated engine says: ASCII, one byte per token, each byte a function of the seed and all tokens before it.

So a stream that breaks off goes on exactly as it would have, on any engine, when it is given prompt + text so far.
Whether a token is the last one follows from the same digest, with a fixed chance per token: lengths are geometric.
"""

from hashlib import blake2b
from typing import Final

from saga.kv.tokens import TOKEN_BYTES, encode_bytes

_DIGEST_BYTES: Final = 8
_SEEDS: Final = 1 << 64
_CHANCE_BYTES: Final = 4
_CHANCE_RANGE: Final = 1 << (8 * _CHANCE_BYTES)
# Roughly English letter frequencies; nothing that JSON escapes, and no "<|", which would read as a special token.
_LETTERS: Final = (b" " * 9 + b"eeeeeettttaaaaooooiiinnnsssrrrhhhddlluuccmmffppggwwyybvk.,-" + b" ") * 4
_LETTER_OF: Final = _LETTERS[:256]
_TOKEN_OF: Final = tuple(encode_bytes(bytes((letter,))) for letter in _LETTER_OF)


class Babble:
    """An answer that is made as far as it is needed."""

    __slots__ = ("_state", "_stop_below", "stop_tokens", "text")

    def __init__(self, seed: int, prompt: bytes, mean_tokens: float) -> None:
        """`prompt`: token bytes. `mean_tokens`: mean length where nothing else ends the answer."""
        self._state = blake2b((seed % _SEEDS).to_bytes(8, "little"), digest_size=_DIGEST_BYTES)
        self._state.update(prompt)
        self._stop_below = int(_CHANCE_RANGE / max(1.0, mean_tokens))
        self.text = bytearray()
        self.stop_tokens = 0
        """Length at which the answer ends by itself; 0 while no end is in sight."""

    def grow(self, tokens: int) -> None:
        """Make the first `tokens` tokens, whether or not the answer would have ended before."""
        text, state, stop_below = self.text, self._state, self._stop_below
        for _ in range(tokens - len(text)):
            digest = state.digest()
            letter = digest[0]
            text.append(_LETTER_OF[letter])
            state.update(_TOKEN_OF[letter])
            if int.from_bytes(digest[-_CHANCE_BYTES:], "little") < stop_below and not self.stop_tokens:
                self.stop_tokens = len(text)

    def first(self, tokens: int) -> bytes:
        """The first `tokens` tokens as ASCII."""
        if len(self.text) < tokens:
            self.grow(tokens)
        return bytes(self.text[:tokens])


assert len(_TOKEN_OF[0]) == TOKEN_BYTES
assert len(_LETTER_OF) == 256
