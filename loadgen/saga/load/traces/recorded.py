"""The format of the recorded coding sessions: one session as a JSON object per line. Reads and writes it whole.

Fields this project has no use for are dropped; `origin_s` and `common_ids` are this project's own, for sessions
converted from other formats. Called by `files`.
"""

from collections.abc import Iterable, Sequence

import msgspec

from saga.contract.unreadable import UNREADABLE
from saga.load.traces.lines import BadLines
from saga.load.traces.session import MAIN_AGENT, Session, Written

EXPECTED = "one session as a JSON object (id, block_tokens, tool_tokens, system_tokens, subagents, steps)"


def parse(lines: Iterable[tuple[int, bytes]], bad: BadLines) -> list[Session]:
    """Every session, in their order."""
    decoder = msgspec.json.Decoder(Session)
    sessions: list[Session] = []
    seen: set[str] = set()
    for number, line in lines:
        try:
            session = decoder.decode(line)
        except UNREADABLE as error:
            bad.at(number, f"expected {EXPECTED}: {error}", error)
            continue
        problem = _problem(session, seen)
        if problem:
            bad.at(number, f"session {session.id!r}: {problem}")
            continue
        seen.add(session.id)
        sessions.append(session)
    return sessions


def write(sessions: Sequence[Session]) -> Written:
    """All of them; nothing is lost."""
    encode = msgspec.json.Encoder().encode
    return Written(tuple(encode(session).decode() for session in sessions), ())


def _problem(session: Session, seen: set[str]) -> str:
    if session.id in seen:
        return "expected ids to be unique, this one came before"
    known = {sub.agent for sub in session.subagents} | {MAIN_AGENT}
    for index, step in enumerate(session.steps):
        whole = sum(count for _, count in step.blocks)
        if whole != step.input_tokens // session.block_tokens:
            return (
                f"step {index}: expected {step.input_tokens // session.block_tokens} whole blocks of "
                f"{session.block_tokens} for an input of {step.input_tokens} tokens, got {whole}"
            )
        if step.agent not in known:
            return f"step {index}: expected agent {MAIN_AGENT!r} or one listed in subagents, got {step.agent!r}"
    return ""
