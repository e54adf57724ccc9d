"""AIPerf's `dag_jsonl`: one conversation per line, whose turns branch into others that run beside it.

A line has `session_id` and `turns`; a turn has the `messages` that it adds, `max_tokens`, `delay` (milliseconds before
it), `tools`, and the sessions that start after it: `forks` go on from all that was said, `spawns` begin anew, and
`pre_session_spawns` begin with the first turn. Fields as in AIPerf 0.13.0.

What becomes of it here: a conversation that nobody starts is a session, those that it starts are its sub-agents. Text
is counted at four bytes a token, an answer by its `max_tokens`. Where a parent waits for children (`join_at`) and what
a fork shares of its parent's last answer are not kept; nor is text that sessions share.
Called by `files`.
"""

from collections.abc import Iterable, Iterator
from typing import Annotated, Any, Final

import msgspec
from msgspec import Meta, Struct

from saga.contract.unreadable import UNREADABLE
from saga.load.traces.lines import BadLines, shown
from saga.load.traces.prompts import BLOCK_TOKENS, leading
from saga.load.traces.session import END_TURN, MAIN_AGENT, TOOL_USE, Run, Session, Step, SubAgent

EXPECTED = "one conversation as a JSON object (session_id, turns[] with messages, max_tokens, delay, forks, spawns)"
BYTES_PER_TOKEN: Final = 4
DEFAULT_OUTPUT_TOKENS: Final = 128
MAX_DEPTH: Final = 64  # of conversations that start each other


class Spawn(Struct):
    """Children that begin anew; the parent waits for them at a turn that we do not look at."""

    children: tuple[str, ...]
    join_at: int | None = None


class Turn(Struct):
    """One call."""

    messages: list[dict[str, Any]]
    max_tokens: Annotated[int, Meta(ge=1)] | None = None
    delay: Annotated[float, Meta(ge=0)] = 0.0
    tools: list[dict[str, Any]] | None = None
    forks: tuple[str, ...] = ()
    spawns: tuple[str | Spawn, ...] = ()

    def starts(self) -> Iterator[tuple[str, bool]]:
        """(session, whether it goes on from this turn)."""
        for fork in self.forks:
            yield fork, True
        for spawn in self.spawns:
            for child in (spawn,) if isinstance(spawn, str) else spawn.children:
                yield child, False


class Row(Struct):
    """One line."""

    session_id: Annotated[str, Meta(min_length=1)]
    turns: Annotated[list[Turn], Meta(min_length=1)]
    pre_session_spawns: tuple[str, ...] = ()


def parse(lines: Iterable[tuple[int, bytes]], bad: BadLines) -> list[Session]:
    """Every conversation that no other starts, with those that it starts."""
    decoder = msgspec.json.Decoder(Row)
    rows: dict[str, Row] = {}
    numbers: dict[str, int] = {}
    for number, line in lines:
        try:
            row = decoder.decode(line)
        except UNREADABLE as error:
            bad.at(number, f"expected {EXPECTED}: {error}; found {shown(line)}", error)
            continue
        if row.session_id in rows:
            also = numbers[row.session_id]
            bad.at(number, f"expected a session_id of its own, {row.session_id!r} is that of line {also}")
            continue
        rows[row.session_id], numbers[row.session_id] = row, number
    started = {child for row in rows.values() for child in _children(row)}
    sessions = []
    for name, row in rows.items():
        if name in started:
            continue
        try:
            sessions.append(_Drawing(rows).session(row))
        except _BranchError as error:
            bad.at(numbers[name], str(error))
    if not sessions and rows:
        bad.at(min(numbers.values()), "expected a conversation that no other starts: here each starts another")
    return sessions


class _Before(Struct, frozen=True):
    """What was said when a branch begins: the last prompt's blocks and length, and that with its answer."""

    runs: tuple[Run, ...] = ()
    prompt_tokens: int = 0
    tokens: int = 0


_ANEW: Final = _Before()


class _BranchError(ValueError):
    """A branch leads nowhere, or back."""


class _Drawing:
    """One session with all that it starts."""

    def __init__(self, rows: dict[str, Row]) -> None:
        self._rows = rows
        self._steps: list[Step] = []
        self._subagents: list[SubAgent] = []
        self._next_id = 0  # no two agents share a block but of a fork's beginning
        self._seen: set[str] = set()

    def session(self, row: Row) -> Session:
        """Raises _BranchError."""
        first = row.turns[0]
        tool_tokens, system_tokens = _tools_tokens(first), _system_tokens(first)
        self._agent(row, MAIN_AGENT, 0.0, _ANEW, 0)
        order = {MAIN_AGENT: 0} | {sub.agent: 1 + number for number, sub in enumerate(self._subagents)}
        steps = sorted(self._steps, key=lambda step: (step.start_s, order[step.agent]))
        return Session(row.session_id, BLOCK_TOKENS, tuple(steps), tool_tokens, system_tokens, tuple(self._subagents))

    def _agent(self, row: Row, agent: str, start_s: float, before: "_Before", depth: int) -> None:
        if row.session_id in self._seen or depth > MAX_DEPTH:
            raise _BranchError(f"expected each session to be started once, {row.session_id!r} is started again")
        self._seen.add(row.session_id)
        at_s, runs, kept = start_s, before.runs, before.prompt_tokens
        tokens = before.tokens or _tools_tokens(row.turns[0])
        for child in row.pre_session_spawns:
            self._start(row, child, at_s, _ANEW, depth)
        for number, turn in enumerate(row.turns):
            gap_s = turn.delay / 1000
            at_s += gap_s
            tokens += _tokens(turn.messages)
            output = turn.max_tokens or DEFAULT_OUTPUT_TOKENS
            runs = self._grown(runs, kept, tokens)
            stop = END_TURN if number == len(row.turns) - 1 else TOOL_USE
            self._steps.append(Step(agent, at_s, tokens, output, runs, stop, gap_s=gap_s))
            kept, tokens = tokens, tokens + output
            for child, goes_on in turn.starts():
                self._start(row, child, at_s, _Before(runs, kept, tokens) if goes_on else _ANEW, depth)

    def _grown(self, runs: tuple[Run, ...], kept_tokens: int, tokens: int) -> tuple[Run, ...]:
        """Blocks of a prompt that begins with the first tokens of another."""
        kept = kept_tokens // BLOCK_TOKENS
        new = tokens // BLOCK_TOKENS - kept
        self._next_id += new
        return (*leading(runs, kept), *(((self._next_id - new, new),) if new else ()))

    def _start(self, parent: Row, child: str, at_s: float, before: "_Before", depth: int) -> None:
        row = self._rows.get(child)
        if row is None:
            raise _BranchError(f"expected a line for session {child!r}, which {parent.session_id!r} starts")
        agent = f"agent-{len(self._subagents) + 1}"
        self._subagents.append(SubAgent(agent, at_s, _tools_tokens(row.turns[0]), _system_tokens(row.turns[0])))
        self._agent(row, agent, at_s, before, depth + 1)


def _children(row: Row) -> Iterator[str]:
    yield from row.pre_session_spawns
    for turn in row.turns:
        for child, _ in turn.starts():
            yield child


def _tokens(value: object) -> int:
    """Of text and of what is written as JSON; the braces around it count little."""
    if isinstance(value, list):
        return sum(_tokens(one) for one in value)
    if isinstance(value, dict):
        content = value.get("content")
        rest = {name: one for name, one in value.items() if name not in ("content", "role") and one}
        return (_tokens(content) if content else 0) + (_bytes_tokens(msgspec.json.encode(rest)) if rest else 0)
    return _bytes_tokens(value.encode("utf-8", "replace") if isinstance(value, str) else msgspec.json.encode(value))


def _bytes_tokens(data: bytes) -> int:
    return -(-len(data) // BYTES_PER_TOKEN)


def _tools_tokens(turn: Turn) -> int:
    return _bytes_tokens(msgspec.json.encode(turn.tools)) if turn.tools else 0


def _system_tokens(turn: Turn) -> int:
    first = turn.messages[0] if turn.messages else {}
    return _tokens([first]) if first.get("role") in ("system", "developer") else 0
