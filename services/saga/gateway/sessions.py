"""The page chain of each session, so that a step hashes only what is new since the session's last one. Pure.

`advance` may run in a thread; everything on `SessionChains` belongs to the event loop. Bounded by bytes, least recently
used out first: a session that comes back after that is hashed and sent whole.
"""

from collections import OrderedDict
from typing import Final

import msgspec

from saga.contract.ids import NO_WORKER, SessionId, WorkerId
from saga.contract.messages import MAX_CHAIN_PAGES
from saga.gateway.vocabulary import Encoded
from saga.kv.pages import DIGEST_BYTES, HASH_BYTES, PageChain, hashes_of_digests, salt_seed
from saga.kv.tokens import TOKEN_BYTES

_OVERHEAD_BYTES: Final = 600  # of one entry beside its tokens and digests


class Prompt(msgspec.Struct, frozen=True):
    """A prompt with its page chain, and how much of that chain the session's last prompt had too."""

    token_bytes: bytes
    chain: PageChain
    base_pages: int = 0
    encoded: Encoded | None = None  # with its text, where tokenizing the next prompt needs that

    @property
    def base_tip(self) -> bytes:
        """Hash of the last shared page; empty when there is none."""
        start = (self.base_pages - 1) * DIGEST_BYTES
        return self.chain.digests[start : start + HASH_BYTES] if self.base_pages else b""

    def new_hashes(self) -> tuple[bytes, int]:
        """(hashes, stride) of the pages after the base, as StepReady carries them."""
        return strided(self.chain.digests[self.base_pages * DIGEST_BYTES :])

    def all_hashes(self) -> tuple[bytes, int]:
        """The same from the first page, as StepChain carries them."""
        return strided(self.chain.digests)

    @property
    def held_bytes(self) -> int:
        """Memory it takes."""
        text_bytes = self.encoded.held_bytes if self.encoded is not None else 0
        return len(self.token_bytes) + len(self.chain.digests) + len(self.chain.tail) + text_bytes + _OVERHEAD_BYTES


def strided(digests: bytes) -> tuple[bytes, int]:
    """Page hashes of each stride-th page, the smallest stride that keeps them within one message."""
    hashes = hashes_of_digests(digests)
    pages = len(hashes) // HASH_BYTES
    stride = max(1, -(-pages // MAX_CHAIN_PAGES))
    if stride == 1:
        return hashes, 1
    return memoryview(hashes).cast("Q")[stride - 1 :: stride].tobytes(), stride


def advance(last: Prompt | None, token_bytes: bytes, page_tokens: int, cache_salt: str) -> Prompt:
    """The session's next prompt, hashed from where it leaves the last one."""
    if last is None or last.chain.page_tokens != page_tokens or last.chain.seed != salt_seed(cache_salt):
        return Prompt(token_bytes, PageChain(page_tokens, cache_salt).extended(token_bytes))
    known = last.chain
    if token_bytes.startswith(last.token_bytes):
        return Prompt(token_bytes, known.extended(token_bytes[len(last.token_bytes) :]), known.pages)
    page_bytes = page_tokens * TOKEN_BYTES
    pages = _shared_pages(last.token_bytes, token_bytes, page_bytes)
    return Prompt(token_bytes, known.truncated(pages).extended(token_bytes[pages * page_bytes :]), pages)


def _shared_pages(a: bytes, b: bytes, page_bytes: int) -> int:
    """Full pages that both begin with. Halves the question, so each byte is compared about twice."""
    same, differs = 0, min(len(a), len(b)) // page_bytes + 1
    while differs - same > 1:
        middle = (same + differs) // 2
        part = slice(same * page_bytes, middle * page_bytes)
        if a[part] == b[part]:
            same = middle
        else:
            differs = middle
    return same


class SessionChains:
    """What each session sent last through this gateway."""

    def __init__(self, limit_bytes: int) -> None:
        self._limit_bytes = limit_bytes
        self._prompts: OrderedDict[SessionId, Prompt] = OrderedDict()
        self._ended: OrderedDict[SessionId, tuple[float, WorkerId]] = OrderedDict()
        self.held_bytes = 0

    def __len__(self) -> int:
        return len(self._prompts)

    def last(self, session: SessionId) -> Prompt | None:
        """The prompt sent last, if it is still known."""
        return self._prompts.get(session)

    def keep(self, session: SessionId, prompt: Prompt) -> None:
        """This prompt is on its way."""
        self.forget(session)
        if prompt.held_bytes > self._limit_bytes:
            return
        self._prompts[session] = prompt
        self.held_bytes += prompt.held_bytes
        while self.held_bytes > self._limit_bytes:
            _, oldest = self._prompts.popitem(last=False)
            self.held_bytes -= oldest.held_bytes

    def forget(self, session: SessionId) -> None:
        """The session is over, or its chain is replaced."""
        gone = self._prompts.pop(session, None)
        if gone is not None:
            self.held_bytes -= gone.held_bytes

    def ended(self, session: SessionId, now_s: float, worker_id: WorkerId = NO_WORKER) -> None:
        """A step of the session has ended there."""
        self._ended[session] = (now_s, worker_id)
        self._ended.move_to_end(session)
        if len(self._ended) > 100_000:
            self._ended.popitem(last=False)

    def close(self, session: SessionId) -> None:
        """No further step will come."""
        self.forget(session)
        self._ended.pop(session, None)

    def gap_s(self, session: SessionId, now_s: float) -> float:
        """Since the session's last step ended here; negative: unknown."""
        ended = self._ended.get(session)
        return -1.0 if ended is None else max(0.0, now_s - ended[0])

    def ran_at(self, session: SessionId) -> WorkerId:
        """Where that step ran; empty: unknown."""
        return self._ended.get(session, (0.0, NO_WORKER))[1]
