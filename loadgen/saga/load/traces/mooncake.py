"""The request format of Mooncake's traces (repository kvcache-ai/Mooncake): one request per JSON line, with block ids.

`timestamp` in ms, `hash_ids`: one id for each 512 tokens of the prompt, the last block perhaps partial; an id stands
for its block and all before it. The format names no sessions. A request continues the session whose last prompt it
begins with: all whole blocks of it, at least one, and room for its answer; of several the longest prompt, then the
latest. Everything else begins a session. Each request is a turn: which are tool calls is not said, and a gap is the
time from request to request, so it includes the answer. Called by `files`.
"""

from collections.abc import Iterable, Iterator, Sequence
from typing import Annotated

import msgspec
from msgspec import Meta, Struct

from saga.contract.unreadable import UNREADABLE
from saga.load.traces.lines import BadLines, shown
from saga.load.traces.prompts import as_runs, common_blocks, following
from saga.load.traces.session import END_TURN, MAIN_AGENT, BlockId, Run, Session, Step, Tokens, TraceError, Written

BLOCK_TOKENS = 512
EXPECTED = "one request as a JSON object (timestamp in ms, input_length, output_length, hash_ids)"


class Row(Struct, frozen=True):
    """One line."""

    timestamp: Annotated[float, Meta(ge=0)]
    input_length: Tokens
    output_length: Tokens
    hash_ids: tuple[BlockId, ...]


class _Open:
    """A session that may go on."""

    __slots__ = ("blocks", "name", "origin_s", "steps", "tip")

    def __init__(self, name: str, origin_s: float) -> None:
        self.name = name
        self.origin_s = origin_s
        self.steps: list[Step] = []
        self.blocks = 0  # whole ones of the last prompt
        self.tip = -1  # the id of the last of them


def parse(lines: Iterable[tuple[int, bytes]], bad: BadLines) -> list[Session]:
    """The requests as sessions, in the order of their first ones."""
    decoder = msgspec.json.Decoder(Row)
    rows: list[tuple[float, int, Row]] = []
    for number, line in lines:
        try:
            row = decoder.decode(line)
        except UNREADABLE as error:
            bad.at(number, f"expected {EXPECTED}: {error}; found {shown(line)}", error)
            continue
        wanted = -(-row.input_length // BLOCK_TOKENS)
        if len(row.hash_ids) != wanted:
            bad.at(
                number,
                f"expected {wanted} hash_ids of {BLOCK_TOKENS} tokens for an input_length of {row.input_length}, "
                f"found {len(row.hash_ids)}",
            )
            continue
        rows.append((row.timestamp, number, row))
    return _grouped(sorted(rows, key=lambda entry: entry[:2]))


def _grouped(rows: Sequence[tuple[float, int, Row]]) -> list[Session]:
    sessions: list[_Open] = []
    by_tip: dict[tuple[int, int], list[_Open]] = {}  # (whole blocks, id of the last): sessions, the latest last
    for timestamp, number, row in rows:
        at_s = timestamp / 1000
        whole = row.input_length // BLOCK_TOKENS
        session = _continued(by_tip, row, whole)
        if session is None:
            session = _Open(f"mooncake-{number:06d}", at_s)
            sessions.append(session)
        before = session.steps[-1] if session.steps else None
        start_s = at_s - session.origin_s
        gap_s = start_s - before.start_s if before is not None else 0.0
        blocks = as_runs(row.hash_ids[:whole])
        session.steps.append(
            Step(MAIN_AGENT, start_s, row.input_length, row.output_length, blocks, END_TURN, gap_s=gap_s)
        )
        session.blocks, session.tip = whole, row.hash_ids[whole - 1] if whole else -1
        if whole:
            by_tip.setdefault((whole, session.tip), []).append(session)
    return [
        Session(found.name, BLOCK_TOKENS, tuple(found.steps), origin_s=found.origin_s, common_ids=True)
        for found in sessions
    ]


def _continued(by_tip: dict[tuple[int, int], list[_Open]], row: Row, whole: int) -> _Open | None:
    """The session that goes on with this request, taken out of those that wait."""
    for blocks in range(whole, 0, -1):
        waiting = by_tip.get((blocks, row.hash_ids[blocks - 1]))
        for session in reversed(waiting or ()):
            last = session.steps[-1]
            if row.input_length >= last.input_tokens + last.output_tokens:
                waiting.remove(session)  # type: ignore[union-attr] # it was found there
                return session
    return None


def write(sessions: Sequence[Session]) -> Written:
    """A request for each step, in the order of their times; equal prefixes get equal ids. Raises TraceError."""
    ids = _Ids()
    requests: list[tuple[int, int, str]] = []
    for ordinal, session in enumerate(sessions):
        if BLOCK_TOKENS % session.block_tokens:
            raise TraceError(
                f"session {session.id!r}: expected blocks that {BLOCK_TOKENS} is a multiple of, "
                f"found blocks of {session.block_tokens} tokens"
            )
        for steps in session.agents().values():
            for step, hash_ids in ids.of(ordinal, session, steps):
                at_ms = round(1000 * max(0.0, (session.origin_s or 0.0) + step.start_s))
                row = Row(at_ms, step.input_tokens, step.output_tokens, tuple(hash_ids))
                requests.append((at_ms, len(requests), msgspec.json.encode(row).decode()))
    lost = [
        "which requests are of one session or agent, what ended an answer, service times, models",
        "gaps between answer and request (times of requests are kept, to the millisecond)",
        f"content of last, partial blocks: {ids.partial} got ids of their own",
    ]
    unknown = sum(session.origin_s is None for session in sessions)
    if unknown:
        lost.append(f"when {unknown} sessions began: not known, so all begin at 0")
    return Written(tuple(line for _, _, line in sorted(requests)), tuple(lost))


class _Ids:
    """Ids of blocks of 512 tokens, given out in the order of their first use."""

    def __init__(self) -> None:
        self._known: dict[tuple[int, object], int] = {}
        self.partial = 0

    def of(self, ordinal: int, session: Session, steps: Sequence[Step]) -> Iterator[tuple[Step, list[int]]]:
        """Each step of one agent with its ids. What sessions share is that first part of their tools and system
        prompt, where both lengths are equal.
        """
        each = BLOCK_TOKENS // session.block_tokens
        key = session.shared_key(steps[0].agent)
        shared = 0 if session.common_ids else sum(key) // session.block_tokens
        space = -1 if session.common_ids else ordinal
        first = steps[0].blocks
        before: tuple[Run, ...] = ()
        hash_ids: list[int] = []
        for step in steps:
            whole = step.input_tokens // BLOCK_TOKENS
            same = min(whole, common_blocks(before, step.blocks) // each)
            shared_here = min(shared, common_blocks(first, step.blocks))
            flat = [
                number for start, count in following(step.blocks, same * each) for number in range(start, start + count)
            ]
            hash_ids = hash_ids[:same]
            for block in range(same, whole):
                content: object = (space, tuple(flat[(block - same) * each : (block - same + 1) * each]))
                if (block + 1) * each <= shared_here:
                    content = (key, block)
                hash_ids.append(self._id(hash_ids[-1] if hash_ids else -1, content))
            before = step.blocks
            if step.input_tokens % BLOCK_TOKENS:
                own = len(self._known) + self.partial  # its content is not known: no other block is like it
                self.partial += 1
                yield step, [*hash_ids, own]
            else:
                yield step, hash_ids

    def _id(self, parent: int, content: object) -> int:
        return self._known.setdefault((parent, content), len(self._known) + self.partial)
