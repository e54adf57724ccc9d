"""The replay CSV of TraceLab (repository uw-syfi/TraceLab): one step per row, with how much of the context it keeps.

Columns `session_id` (or `id`), `round_idx`, `prefix_len`, `input_len` (new tokens), `output_len`, `tool_wait_after_ms`
and perhaps `arrival_time` (ms, of the session; without it 0), in any order. Called by `files`.
"""

import csv
from collections.abc import Iterable, Sequence
from typing import Annotated

import msgspec
from msgspec import Meta, Struct

from saga.contract.unreadable import UNREADABLE
from saga.load.traces.lines import BadLines, shown
from saga.load.traces.prompts import BLOCK_TOKENS, Prompts, kept_tokens
from saga.load.traces.session import END_TURN, MAIN_AGENT, TOOL_USE, Session, Step, Tokens, TraceError, Written

COLUMNS = ("session_id", "arrival_time", "round_idx", "prefix_len", "input_len", "output_len", "tool_wait_after_ms")
NEEDED = frozenset(COLUMNS) - {"arrival_time"}
EXPECTED = f"the columns {', '.join(name for name in COLUMNS if name in NEEDED)}"


class Row(Struct, frozen=True):
    """One row."""

    session_id: str
    round_idx: Tokens
    prefix_len: Tokens
    input_len: Tokens
    output_len: Tokens
    tool_wait_after_ms: Annotated[float, Meta(ge=0)]
    arrival_time: Annotated[float, Meta(ge=0)] = 0.0


def columns_of(header: bytes) -> list[str] | None:
    """The columns a line names, or None if it is no header of this format."""
    names = [name.strip() for name in _fields(header)]
    if "session_id" not in names:
        names = ["session_id" if name == "id" else name for name in names]
    return names if set(names) >= NEEDED else None


def parse(lines: Iterable[tuple[int, bytes]], bad: BadLines) -> list[Session]:
    """Every session as one turn, in the order of their first rows; its rows in the order of `round_idx`."""
    columns: list[str] | None = None
    rows: dict[str, dict[int, Row]] = {}
    for number, line in lines:
        if columns is None:
            columns = columns_of(line)
            if columns is None:  # no row can be read without
                raise TraceError(f"line {number}: expected a CSV header with {EXPECTED}; found {shown(line)}")
            continue
        fields = _fields(line)
        if len(fields) != len(columns):
            bad.at(number, f"expected {len(columns)} values as in the header, found {len(fields)}: {shown(line)}")
            continue
        try:
            row = msgspec.convert(dict(zip(columns, fields, strict=True)), Row, strict=False)
        except UNREADABLE as error:
            bad.at(number, f"expected {EXPECTED}: {error}; found {shown(line)}", error)
            continue
        rounds = rows.setdefault(row.session_id, {})
        if row.round_idx in rounds:
            bad.at(number, f"session {row.session_id!r}: expected round_idx {row.round_idx} once, found it again")
            continue
        rounds[row.round_idx] = row
    return [_session([rounds[index] for index in sorted(rounds)]) for rounds in rows.values()]


def _fields(line: bytes) -> list[str]:
    """The values of a line; none when it is no CSV: an end of line within, or a value of over 128 KiB."""
    try:
        return next(csv.reader([line.decode(errors="replace")]))
    except csv.Error:
        return []


def _session(rows: Sequence[Row]) -> Session:
    prompts = Prompts()
    steps = []
    start_s = gap_s = 0.0
    for index, row in enumerate(rows):
        tokens = row.prefix_len + row.input_len
        blocks = prompts.next(row.prefix_len, tokens)
        stop = TOOL_USE if index < len(rows) - 1 else END_TURN
        steps.append(Step(MAIN_AGENT, start_s, tokens, row.output_len, blocks, stop, gap_s=gap_s))
        gap_s = row.tool_wait_after_ms / 1000
        start_s += gap_s
    return Session(rows[0].session_id, BLOCK_TOKENS, tuple(steps), origin_s=rows[0].arrival_time / 1000)


def write(sessions: Sequence[Session]) -> Written:
    """A session for each agent; a sub-agent's is named after its parent's."""
    lines = [",".join(COLUMNS)]
    subagents = human_gaps = rounded = 0
    for session in sessions:
        for agent, steps in session.agents().items():
            name = session.id if agent == MAIN_AGENT else f"{session.id}.{agent}"
            subagents += agent != MAIN_AGENT
            arrival_ms = 1000 * (session.origin_s or 0.0) + 1000 * max(0.0, steps[0].start_s)
            for index, step in enumerate(steps):
                kept = 0
                if index:
                    before = steps[index - 1]
                    kept = kept_tokens(before, step, session.block_tokens)
                    rounded += kept < min(before.input_tokens + before.output_tokens, step.input_tokens)
                wait_ms = 1000 * steps[index + 1].think_s if index + 1 < len(steps) else 0.0
                human_gaps += step.stop == END_TURN and index + 1 < len(steps)
                values = (index, kept, step.input_tokens - kept, step.output_tokens)
                lines.append(f"{_quoted(name)},{arrival_ms:.6f},{','.join(map(str, values))},{wait_ms:.6f}")
    lost = ["service times, models, prefixes that sessions share, steps that return to an older prompt"]
    if rounded:
        lost.append(f"how much a prompt keeps where it does not extend the last one: {rounded} rounded to whole blocks")
    if subagents:
        lost.append(f"which agent is whose sub-agent: {subagents} became sessions of their own")
    if human_gaps:
        lost.append(f"which gaps are a human's: {human_gaps} are written as tool_wait_after_ms")
    return Written(tuple(lines), tuple(lost))


def _quoted(name: str) -> str:
    return f'"{name.replace(chr(34), 2 * chr(34))}"' if set(name) & set(',"') else name
