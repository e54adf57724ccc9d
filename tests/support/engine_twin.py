"""The pure EngineCore doing what a real server was just asked, one request at a time: its hits, its KV events.

And the sequences to ask: seeded, of three families, in a KV pool so small that most of what was cached is evicted.
"""

from collections.abc import Iterator
from random import Random

import msgspec
from kv_tape import CLEAR, removed, stored

from saga.engine.core import EngineCore
from saga.engine.events import (
    Arrive,
    Cleared,
    CloseSession,
    Event,
    Finished,
    FixedOutput,
    Flush,
    Rejected,
    Removed,
    Stored,
)
from saga.engine.profile import load_profile
from saga.engine.settings import EngineSettings, Eviction
from saga.kernel.effects import Tick, WakeAt
from saga.kv.pages import hash_pages, salt_seed

VOCABULARY = range(5, 261)
"""Tokens of bytes: no special one among them."""
PRIORITIES = (0, 0, 0, 0, 1, 1, 2, 3, -2)
LOWEST_PRIORITY, HIGHEST_PRIORITY = -(1 << 63), (1 << 63) - 1


class Ask(msgspec.Struct, frozen=True):
    """One request."""

    ids: list[int]
    new_tokens: int
    session: str = ""
    salt: str = ""
    priority: int = 0


class Close(msgspec.Struct, frozen=True):
    """A session tag is closed."""

    session: str


class Twin:
    """An EngineCore in virtual time with the sizes of a real server."""

    def __init__(
        self, *, kv_tokens: int, page_tokens: int, chunk_tokens: int, session_tags: bool, eviction: Eviction
    ) -> None:
        sizes = {"kv_tokens": kv_tokens, "page_tokens": page_tokens, "chunk_tokens": chunk_tokens}
        profile = msgspec.structs.replace(load_profile("h100x1-llama3-8b"), context_tokens=131_072, **sizes)
        settings = EngineSettings(session_radix_cache=session_tags, eviction=eviction)
        self.core = EngineCore(profile, settings, progress=False)
        self.lines: list[tuple[str, bytes, bytes, str]] = []
        self._page_tokens = page_tokens
        self._now_s = 0.0
        self._asked = 0

    def ask(self, ask: Ask, answer: list[int]) -> Finished:
        """The request, said with the words of the real server."""
        self._asked += 1
        hashes = hash_pages(token_bytes(ask.ids + answer), self._page_tokens, salt_seed(ask.salt))
        output = FixedOutput(len(answer), hashes, "length")
        rid = f"{self._asked:034d}"
        return self._until_finished(
            Arrive(rid, len(ask.ids), ask.new_tokens, output, session_id=ask.session, priority=ask.priority)
        )

    def close(self, session: str) -> None:
        """A session tag is closed."""
        self._handle(CloseSession(session))

    def flush(self) -> None:
        """The cache is emptied."""
        self._handle(Flush())

    def _until_finished(self, event: Event) -> Finished:
        wake_s, finished = self._handle(event)
        while finished is None:
            assert wake_s is not None, "it never ends"
            self._now_s = max(self._now_s, wake_s)
            wake_s, finished = self._handle(Tick())
        self.core.check()
        return finished

    def _handle(self, event: Event) -> tuple[float | None, Finished | None]:
        wake_s, finished = None, None
        for effect in self.core.handle(event, self._now_s):
            match effect:
                case WakeAt(at_s):
                    wake_s = at_s
                case Finished():
                    finished = effect
                case Stored():
                    self.lines += stored(effect.parent, effect.hashes, effect.session_id)
                case Removed(hashes):
                    self.lines += removed(hashes)
                case Cleared():
                    self.lines.append((CLEAR, b"", b"", ""))
                case Rejected(_, reason):
                    raise AssertionError(reason)
        return wake_s, finished


def token_bytes(ids: list[int]) -> bytes:
    """Token ids as SGLang hashes them."""
    return b"".join(token.to_bytes(4, "little") for token in ids)


class Family:
    """Makes requests out of what the answers to earlier ones were. `tags`: with session tags, opened and closed."""

    def __init__(self, seed: int, *, tags: bool) -> None:
        self.random = Random(seed)
        self.importance = Random(f"how important, {seed}")
        self.tags = tags

    def asks(self, count: int) -> Iterator[Ask | Close]:
        """`count` requests, and closes between them; `answered` is called after each request."""
        for number in range(count):
            ask = msgspec.structs.replace(self.next(f"{type(self).__name__}-{number}"), priority=self.priority())
            yield ask if self.tags else msgspec.structs.replace(ask, session="")
            if self.tags and (session := self.closes(ask)):
                yield Close(session)

    def next(self, name: str) -> Ask:
        """The next request; `name` is its own."""
        raise NotImplementedError

    def answered(self, ask: Ask, answer: list[int]) -> None:
        """What the engine said."""

    def closes(self, ask: Ask) -> str:
        """A session to close now; empty: none."""
        return ask.session if self.random.randrange(4) == 0 else ""

    def tokens(self, least: int, most: int) -> list[int]:
        """A text of random length that nobody said before."""
        return self.random.choices(VOCABULARY, k=self.random.randint(least, most))

    def priority(self) -> int:
        """How important the next request is: mostly not, as what was important once is cached for long."""
        if self.importance.randrange(200) == 0:
            return self.importance.choice((LOWEST_PRIORITY, HIGHEST_PRIORITY))
        return self.importance.choice(PRIORITIES)

    def new_tokens(self) -> int:
        """How much to say."""
        return self.random.choice((1, 2, 5, 16, 17, 40))


class Growing(Family):
    """Sessions that go on with what was said; at times one begins anew."""

    SESSIONS = 9
    LONGEST = 1_600

    def __init__(self, seed: int, *, tags: bool) -> None:
        super().__init__(seed, tags=tags)
        self.said: dict[int, list[int]] = {}
        self.names = [""] * self.SESSIONS
        self.speaker = 0

    def next(self, name: str) -> Ask:
        self.speaker = speaker = self.random.randrange(self.SESSIONS)
        before = self.said.get(speaker, [])
        if not before or len(before) > self.LONGEST or self.random.randrange(15) == 0:
            self.names[speaker] = name
            before = []
        return Ask(before + self.tokens(20, 250), self.new_tokens(), self.names[speaker])

    def answered(self, ask: Ask, answer: list[int]) -> None:
        self.said[self.speaker] = ask.ids + answer


class Shared(Family):
    """A few beginnings that many share, each with an end of its own; some are favourites, some requests come twice."""

    BEGINNINGS = 7

    def __init__(self, seed: int, *, tags: bool) -> None:
        super().__init__(seed, tags=tags)
        self.beginnings = [self.tokens(40, 600) for _ in range(self.BEGINNINGS)]
        self.last = Ask([], 0)

    def next(self, name: str) -> Ask:
        if self.last.ids and self.random.randrange(8) == 0:
            return msgspec.structs.replace(self.last, new_tokens=self.new_tokens())
        favourite = self.random.randrange(self.random.randint(1, self.BEGINNINGS))
        session = name if self.random.randrange(2) else f"Shared by {favourite}"
        self.last = Ask(self.beginnings[favourite] + self.tokens(5, 300), self.new_tokens(), session)
        return self.last


class Branching(Family):
    """Anything said before is cut anywhere and goes on otherwise, branches of one session under one tag."""

    KEPT = 24
    LONGEST = 1_200

    def __init__(self, seed: int, *, tags: bool) -> None:
        super().__init__(seed, tags=tags)
        self.trunks: list[tuple[list[int], str]] = []

    def next(self, name: str) -> Ask:
        if len(self.trunks) < 3 or self.random.randrange(6) == 0:
            return Ask(self.tokens(100, 500), self.new_tokens(), name)
        trunk, session = self.random.choice(self.trunks)
        cut = self.random.choice((len(trunk), self.random.randint(1, len(trunk)), len(trunk) // 16 * 16))
        ids = trunk[: min(cut, self.LONGEST)] + self.tokens(0, 200)
        return Ask(ids or trunk, self.new_tokens(), session if self.random.randrange(3) else name)

    def answered(self, ask: Ask, answer: list[int]) -> None:
        self.trunks = [*self.trunks, (ask.ids + answer, ask.session)][-self.KEPT :]


class Salted(Shared):
    """Three tenants who say the same things and share no KV."""

    def next(self, name: str) -> Ask:
        return msgspec.structs.replace(super().next(name), salt=self.random.choice(("", "tenant a", "tenant b")))


FAMILIES: dict[str, type[Family]] = {"growing": Growing, "shared": Shared, "branching": Branching, "salted": Salted}
