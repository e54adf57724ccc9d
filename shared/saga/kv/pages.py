"""SGLang's page hash chain, byte for byte: which KV pages a prompt consists of.

h_i = sha256(h_{i-1} || tokens of page i as uint32 little-endian); the first page starts from an empty prefix, or from
a seed made of the tenant's cache salt. The whole 32-byte digest is chained, the first 8 bytes of it name the page: raw
on our wire, as a signed big-endian int64 in SGLang's events. Only full pages have a hash. Called by the gateway,
the engine, the worker agent and the load generator.
"""

import sys
from array import array
from hashlib import sha256
from typing import Final, Self

from saga.kv.tokens import TOKEN_BYTES

HASH_BYTES: Final = 8
DIGEST_BYTES: Final = 32
_WORDS_PER_DIGEST: Final = DIGEST_BYTES // HASH_BYTES
_SALT_DOMAIN: Final = b"sglang-cache-salt-v1\0"


def salt_seed(cache_salt: str) -> bytes:
    """What the chain starts from: nothing, or 32 bytes for a non-empty `cache_salt`."""
    return sha256(_SALT_DOMAIN + cache_salt.encode()).digest() if cache_salt else b""


def chain_digests(token_bytes: bytes, page_tokens: int, parent_digest: bytes = b"") -> bytes:
    """Digests (32 bytes each) of the full pages in `token_bytes`, chained from `parent_digest`."""
    stride = page_tokens * TOKEN_BYTES
    digest = parent_digest
    digests = []
    for start in range(0, len(token_bytes) - stride + 1, stride):
        digest = sha256(digest + token_bytes[start : start + stride]).digest()
        digests.append(digest)
    return b"".join(digests)


def hashes_of_digests(digests: bytes) -> bytes:
    """The 8-byte page hashes of 32-byte digests."""
    return memoryview(digests).cast("Q")[::_WORDS_PER_DIGEST].tobytes()


def hash_pages(token_bytes: bytes, page_tokens: int, parent_digest: bytes = b"") -> bytes:
    """Page hashes (8 bytes each) of the full pages in `token_bytes`, chained from `parent_digest`."""
    return hashes_of_digests(chain_digests(token_bytes, page_tokens, parent_digest))


def hashes_to_int64(hashes: bytes) -> list[int]:
    """Page hashes as SGLang's events carry them: signed big-endian integers."""
    values = array("q", hashes)
    if sys.byteorder == "little":
        values.byteswap()
    return values.tolist()


def int64_to_hashes(values: list[int]) -> bytes:
    """Page hashes (8 bytes each) of the integers in SGLang's events."""
    words = array("q", values)
    if sys.byteorder == "little":
        words.byteswap()
    return words.tobytes()


class PageChain:
    """The page chain of one token sequence: full pages hashed, the tail kept until it fills a page. Immutable.

    `extended` hashes only what is new, `truncated` forgets pages again, so that a session hashes each token once.
    """

    __slots__ = ("_hashes", "digests", "page_tokens", "seed", "tail")

    page_tokens: int
    seed: bytes
    digests: bytes
    tail: bytes

    def __init__(self, page_tokens: int, cache_salt: str = "", *, seed: bytes | None = None) -> None:
        """An empty chain of pages of `page_tokens` tokens; raises ValueError when that is not positive."""
        if page_tokens < 1:
            raise ValueError(f"page_tokens must be at least 1, not {page_tokens}")
        self.page_tokens = page_tokens
        self.seed = salt_seed(cache_salt) if seed is None else seed
        self.digests = b""
        self.tail = b""
        self._hashes: bytes | None = b""

    def extended(self, token_bytes: bytes) -> Self:
        """The chain with more tokens at its end."""
        tokens = self.tail + token_bytes
        new = chain_digests(tokens, self.page_tokens, self.tip_digest)
        full_bytes = len(new) // DIGEST_BYTES * self.page_tokens * TOKEN_BYTES
        return self._with(self.digests + new if new else self.digests, tokens[full_bytes:])

    def truncated(self, pages: int) -> Self:
        """The chain of the first `pages` full pages, without a tail."""
        return self._with(self.digests[: pages * DIGEST_BYTES], b"")

    def _with(self, digests: bytes, tail: bytes) -> Self:
        chain = type(self)(self.page_tokens, seed=self.seed)
        chain.digests = digests
        chain.tail = tail
        chain._hashes = None  # noqa: SLF001 - our own
        return chain

    @property
    def hashes(self) -> bytes:
        """Page hashes, 8 bytes each."""
        if self._hashes is None:
            self._hashes = hashes_of_digests(self.digests)
        return self._hashes

    @property
    def pages(self) -> int:
        """Number of full pages."""
        return len(self.digests) // DIGEST_BYTES

    @property
    def tip_digest(self) -> bytes:
        """The whole digest of the last full page; the seed when there is none."""
        return self.digests[-DIGEST_BYTES:] or self.seed

    @property
    def tip(self) -> bytes:
        """Hash (8 bytes) of the last full page; empty when there is none."""
        return self.digests[-DIGEST_BYTES:][:HASH_BYTES]

    @property
    def tail_tokens(self) -> int:
        """Tokens after the last full page."""
        return len(self.tail) // TOKEN_BYTES

    @property
    def tokens(self) -> int:
        """Tokens in all."""
        return self.pages * self.page_tokens + self.tail_tokens

    def hashes_from(self, pages: int) -> bytes:
        """Hashes of the pages after the first `pages`."""
        return self.hashes[pages * HASH_BYTES :]

    def snapshot(self) -> tuple[int, bytes, bytes, bytes]:
        """(page tokens, seed, digests, tail): all that `resume` needs; safe to store or send."""
        return self.page_tokens, self.seed, self.digests, self.tail

    @classmethod
    def resume(cls, snapshot: tuple[int, bytes, bytes, bytes]) -> Self:
        """The chain that `snapshot` was taken of."""
        page_tokens, seed, digests, tail = snapshot
        return cls(page_tokens, seed=seed)._with(digests, tail)  # noqa: SLF001 - our own

    def __eq__(self, other: object) -> bool:
        """Equal chains have equal tokens, page size and salt (up to hash collisions)."""
        return isinstance(other, PageChain) and self.snapshot() == other.snapshot()

    def __hash__(self) -> int:
        return hash(self.snapshot())

    def __repr__(self) -> str:
        return f"PageChain(pages={self.pages}, page_tokens={self.page_tokens}, tip={self.tip.hex()})"
