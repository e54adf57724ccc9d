"""Drives an EngineCore in virtual time and keeps what came out: a test's stand-in for a shell."""

from hashlib import sha256

import msgspec

from saga.engine.core import EngineCore
from saga.engine.events import Arrive, Cleared, Finished, FixedOutput, Progress, Rejected, Removed, Stored
from saga.engine.profile import Profile, load_profile
from saga.engine.settings import EngineSettings
from saga.engine.shared_tier import TierLink
from saga.kernel.effects import Tick, WakeAt
from saga.kv.pages import HASH_BYTES

PAGE = 4


def small_profile(**changes) -> Profile:
    """An 8B model with a tiny KV pool: 4-token pages, 40 of them."""
    base = load_profile("h100x1-llama3-8b")
    values = {"page_tokens": PAGE, "kv_tokens": 160, "context_tokens": 160, "chunk_tokens": 16, "max_running": 4}
    return msgspec.structs.replace(base, **(values | changes))


def hashes_of(tokens: str, page_tokens: int = PAGE) -> bytes:
    """Chained page hashes of a text, one token per character."""
    digest = b""
    out = []
    for start in range(0, len(tokens) - page_tokens + 1, page_tokens):
        digest = sha256(digest + tokens[start : start + page_tokens].encode()).digest()
        out.append(digest[:HASH_BYTES])
    return b"".join(out)


class Drive:
    """An engine, its virtual clock, and what it said."""

    def __init__(
        self, profile: Profile | None = None, *, progress: bool = True, shared: TierLink | None = None, **settings
    ) -> None:
        settings = EngineSettings(**settings)
        self.core = EngineCore(profile or small_profile(), settings, progress=progress, shared=shared)
        self.now_s = 0.0
        self.wake_s: float | None = None
        self.wakes = 0
        self.finished: dict[str, Finished] = {}
        self.finish_order: list[str] = []
        self.rejected: dict[str, str] = {}
        self.progress: dict[str, list[int]] = {}
        self.resident: set[bytes] = set()
        self.stored: list[Stored] = []

    def do(self, event) -> list:
        effects = self.core.handle(event, self.now_s)
        self.wake_s = None
        for effect in effects:
            match effect:
                case WakeAt(at_s):
                    self.wake_s = at_s
                case Finished(rid):
                    assert rid not in self.finished
                    self.finished[rid] = effect
                    self.finish_order.append(rid)
                case Rejected(rid, reason):
                    self.rejected[rid] = reason
                case Progress(rid, tokens):
                    self.progress.setdefault(rid, []).append(tokens)
                case Stored(parent=parent, hashes=hashes):
                    assert parent == b"" or parent in self.resident
                    new = {hashes[i : i + HASH_BYTES] for i in range(0, len(hashes), HASH_BYTES)}
                    assert not new & self.resident, "stored twice"
                    self.resident |= new
                    self.stored.append(effect)
                case Removed(hashes):
                    gone = {hashes[i : i + HASH_BYTES] for i in range(0, len(hashes), HASH_BYTES)}
                    assert gone <= self.resident, "removed what was not there"
                    self.resident -= gone
                case Cleared():
                    self.resident.clear()
        return effects

    def ask(self, rid: str, prompt: str, output: str, **options) -> None:
        """A request whose answer is `output`."""
        self.do(
            Arrive(
                rid,
                len(prompt),
                options.pop("max_new_tokens", len(output)),
                FixedOutput(len(output), hashes_of(prompt + output, self.core.profile.page_tokens), "stop"),
                **options,
            )
        )

    def step(self) -> None:
        """Go to the next wake-up."""
        assert self.wake_s is not None
        self.now_s = max(self.now_s, self.wake_s)
        self.wakes += 1
        self.do(Tick())

    def run(self, until_s: float = float("inf")) -> None:
        """Go on until nothing is left to do, or that time."""
        while self.wake_s is not None and self.wake_s <= until_s:
            self.step()

    def check(self) -> None:
        """All invariants, and that the effects tell the truth about the cache."""
        self.core.check()
        cached = set()
        for node in self.core.pool.tree.nodes():
            cached |= {node.hashes[i : i + HASH_BYTES] for i in range(0, len(node.hashes), HASH_BYTES)}
        assert cached == self.resident
