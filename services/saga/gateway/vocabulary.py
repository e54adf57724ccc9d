"""A model's `tokenizer.json`: text to token bytes, from where a session's text leaves its last one. Pure.

A tokenizer splits text at its special tokens before all else, so what stands before one is not touched by what comes
after it. Chat templates put one at each turn's border: those are the cuts. Text that both prompts begin with keeps its
tokens up to the last cut in it; only the rest is tokenized. Called by `tokenization.py`, large texts in a thread.
"""

import hashlib
import re
import sys
from array import array
from bisect import bisect_right
from typing import Any, Final

import msgspec
from tokenizers import Tokenizer

from saga.kv.tokens import TOKEN_BYTES

MAX_MARKS: Final = 4_096  # of special tokens that are looked at; a vocabulary has some hundred
_UINT: Final = "I"


class BadVocabularyError(ValueError):
    """This is no tokenizer.json."""


class Cut(msgspec.Struct, frozen=True, gc=False):
    """A place before a special token."""

    chars: int  # of text before it
    tokens: int


class Encoded(msgspec.Struct, frozen=True):
    """Text and its tokens."""

    token_bytes: bytes  # 4 bytes a token
    text: str = ""  # empty: not kept
    cuts: tuple[Cut, ...] = ()  # in order; none: the next text is tokenized whole
    reused_tokens: int = 0  # that were taken over from the text before
    by: str = ""  # whose tokens these are

    @property
    def held_bytes(self) -> int:
        """Memory it takes, its token bytes left out."""
        return sys.getsizeof(self.text) + 64 * len(self.cuts)


class Vocabulary:
    """One tokenizer. `encode` may be called from any thread."""

    def __init__(self, tokenizer_json: str) -> None:
        """Raises BadVocabularyError."""
        try:
            self._tokenizer = Tokenizer.from_str(tokenizer_json)
        except (KeyboardInterrupt, SystemExit):
            raise
        except BaseException as error:  # the library raises nothing narrower, and a panic of its own is no Exception
            raise BadVocabularyError(f"no tokenizer.json: {error}") from error
        self._tokenizer.no_truncation()
        self._tokenizer.no_padding()
        self._digest = hashlib.sha256(tokenizer_json.encode("utf-8", "replace")).hexdigest()[:16]
        marks = _marks(self._tokenizer)
        self._mark_ids = frozenset(marks.values())
        self._longest_mark = max(map(len, marks), default=0)
        by_length = sorted(marks, key=lambda mark: (-len(mark), mark))
        self._mark = re.compile("|".join(map(re.escape, by_length))) if marks else None
        self._before, self._after = _added_around(self._tokenizer)

    @property
    def incremental(self) -> bool:
        """Whether it has special tokens to cut at."""
        return self._mark is not None

    def count(self, text: str) -> int:
        """Tokens of a text that begins and ends nothing."""
        return len(self._ids(text))

    def encode(self, text: str, last: Encoded | None = None, *, specials: bool = False) -> Encoded:
        """Tokens of `text`, those of `last` taken over as far as both begin alike.

        `specials`: with what the tokenizer puts around a text, as plain prompts get it and rendered chats do not.
        """
        start, kept = Cut(0, 0), 0
        by = f"{self._digest}{'+' * specials}"
        if last is None or last.by != by:
            last = None
        elif last.cuts:
            kept = bisect_right(last.cuts, _alike(last.text, text) - self._longest_mark, key=lambda cut: cut.chars)
            start = last.cuts[kept - 1] if kept else start
        rest = text[start.chars :] if start.chars else text
        ids = self._ids(rest)
        head = self._before if specials else b""
        if start.tokens and last is not None:  # `start` counts what stands around, too
            head = last.token_bytes[: start.tokens * TOKEN_BYTES]
        cuts = self._cuts(rest, ids, start.chars, len(head) // TOKEN_BYTES)
        token_bytes = head + _packed(ids) + (self._after if specials else b"")
        if cuts is None:
            return Encoded(token_bytes)
        before = last.cuts[: kept - 1] if last is not None and kept else ()
        return Encoded(token_bytes, text, before + cuts, start.tokens, by)

    def _ids(self, text: str) -> list[int]:
        """The batch call is the one that lets other threads run, and that computes no offsets."""
        try:
            encoded = self._tokenizer.encode_batch_fast([text], add_special_tokens=False)
        except (UnicodeEncodeError, TypeError):  # lone surrogates, through JSON escapes: a tokenizer cannot carry them
            plain = text.encode("utf-8", "replace").decode()
            encoded = self._tokenizer.encode_batch_fast([plain], add_special_tokens=False)
        return encoded[0].ids

    def _cuts(self, text: str, ids: list[int], chars: int, tokens: int) -> tuple[Cut, ...] | None:
        """Where `text` may be cut; None when what we see and what the tokenizer saw differ."""
        if self._mark is None:
            return None
        places = [found.start() for found in self._mark.finditer(text)]
        marks = self._mark_ids
        indices = [index for index, token in enumerate(ids) if token in marks]
        if len(places) != len(indices):
            return None
        return tuple([Cut(chars + place, tokens + index) for place, index in zip(places, indices, strict=True)])


def _marks(tokenizer: Any) -> dict[str, int]:  # noqa: ANN401 - the library is untyped
    """Special tokens that are found wherever they stand: text beside them neither hides nor changes them."""
    added = tokenizer.get_added_tokens_decoder()
    plain = {
        token.content: number
        for number, token in added.items()
        if token.content and not (token.normalized or token.lstrip or token.rstrip or token.single_word)
    }
    if len(added) > MAX_MARKS:
        return {}
    contents = [token.content for token in added.values()]
    return {
        mark: number for mark, number in plain.items() if not any(mark in other and mark != other for other in contents)
    }


def _added_around(tokenizer: Any) -> tuple[bytes, bytes]:  # noqa: ANN401
    """What it puts before and after a text, such as a token for its beginning."""
    bare = tokenizer.encode("a", add_special_tokens=False).ids
    full = tokenizer.encode("a", add_special_tokens=True).ids
    for start in range(len(full) - len(bare) + 1):
        if full[start : start + len(bare)] == bare:
            return _packed(full[:start]), _packed(full[start + len(bare) :])
    return b"", b""


def _packed(ids: list[int]) -> bytes:
    values = array(_UINT, ids)
    if sys.byteorder == "big":
        values.byteswap()
    return values.tobytes()


def _alike(a: str, b: str) -> int:
    """Characters that both begin with. Halves the question, so each is compared about twice."""
    if b.startswith(a):
        return len(a)
    same, differs = 0, min(len(a), len(b)) + 1
    while differs - same > 1:
        middle = (same + differs) // 2
        if a[same:middle] == b[same:middle]:
            same = middle
        else:
            differs = middle
    return same
