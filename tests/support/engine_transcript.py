"""What a real server said to a seeded sequence, small enough to be kept: requests follow from seed and answers."""

from hashlib import sha256
from pathlib import Path

import msgspec
from engine_twin import FAMILIES, Close, Twin

from saga.engine.settings import Eviction

Lines = list[tuple[str, bytes, bytes, str]]


class Transcript(msgspec.Struct):
    """One sequence on one server."""

    family: str
    seed: int
    tags: bool
    kv_tokens: int
    page_tokens: int
    chunk_tokens: int
    cached_tokens: list[int]
    """Of each request."""
    answers: list[list[int]]
    events: int
    events_sha256: str
    eviction: Eviction = "lru"

    @property
    def name(self) -> str:
        """For the list of tests."""
        return f"{self.family}-{mode_name(self.eviction, tags=self.tags)}"


def mode_name(eviction: Eviction, *, tags: bool) -> str:
    """How a server evicts: lru, tags (and then lru), priority, priority-tags."""
    if not tags:
        return eviction
    return "tags" if eviction == "lru" else f"{eviction}-tags"


def digest(lines: Lines) -> str:
    """All that was said about the cache, in order."""
    whole = sha256()
    for what, page, before, session in lines:
        whole.update(b"%b %b %b %b\n" % (what.encode(), page.hex().encode(), before.hex().encode(), session.encode()))
    return whole.hexdigest()


def replayed(transcript: Transcript) -> tuple[list[int], Lines]:
    """(cached tokens of each request, events) of the EngineCore in place of the server."""
    twin = Twin(
        kv_tokens=transcript.kv_tokens,
        page_tokens=transcript.page_tokens,
        chunk_tokens=transcript.chunk_tokens,
        session_tags=transcript.tags,
        eviction=transcript.eviction,
    )
    family = FAMILIES[transcript.family](transcript.seed, tags=transcript.tags)
    answers = iter(transcript.answers)
    cached = []
    for ask in family.asks(len(transcript.answers)):
        if isinstance(ask, Close):
            twin.close(ask.session)
            continue
        answer = next(answers)
        cached.append(twin.ask(ask, answer).cached_tokens)
        family.answered(ask, answer)
    return cached, twin.lines


def load(path: Path) -> list[Transcript]:
    """All that are kept in a file; none when there is no file."""
    return msgspec.json.decode(path.read_bytes(), type=list[Transcript]) if path.exists() else []


def keep(path: Path, made: Transcript) -> None:
    """Add one to a file, in place of an older one of the same name."""
    others = [transcript for transcript in load(path) if transcript.name != made.name]
    path.write_bytes(b"[\n" + b",\n".join(map(msgspec.json.encode, [*others, made])) + b"\n]\n")
