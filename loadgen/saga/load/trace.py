"""Recorded coding-agent sessions (one JSON object per line, `.jsonl` or `.jsonl.gz`), parsed at the edge into Structs.

Not a plan: nothing is cut, capped or dropped here. Called by bench_live; swe_bench makes the same Structs without a
file. The format and its odd values are those of the `kv-cache-tester` conversion (Apache-2.0, repository
callanjfox/kv-cache-tester).
"""

import gzip
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import msgspec
from msgspec import Meta, Struct, field

MAIN_AGENT = "main"

Tokens = Annotated[int, Meta(ge=0)]
Run = tuple[Annotated[int, Meta(ge=0)], Annotated[int, Meta(ge=1)]]


class TraceError(ValueError):
    """A trace that cannot be read; the message names the file, the line and what was expected there."""


class Step(Struct, frozen=True):
    """One recorded LLM call. `blocks` is the prompt in whole blocks as (first id, count) runs; the last partial block
    is left out.

    `gap_s` is the think time before the step (null: unknown, replayed as 0); `api_s` the service time (null: not
    streamed, unknown).
    """

    agent: str
    start_s: float = field(name="t")
    input_tokens: Tokens = field(name="input")
    output_tokens: Tokens = field(name="output")
    blocks: tuple[Run, ...]
    stop: str = ""
    api_s: float | None = None
    gap_s: float | None = None

    @property
    def think_s(self) -> float:
        """Think time before this step in seconds; unknown or negative counts as none."""
        return max(0.0, self.gap_s or 0.0)

    @property
    def end_s(self) -> float:
        """When the recorded answer ended, seconds from the session's start; without a service time, its start."""
        return self.start_s + max(0.0, self.api_s or 0.0)


class SubAgent(Struct, frozen=True):
    """A sub-agent of a session: when it started and how long its own tool definitions and system prompt are."""

    agent: str
    start_s: float = field(name="t")
    tool_tokens: Tokens = 0
    system_tokens: Tokens = 0


class Session(Struct, frozen=True):
    """One recorded session: a main agent, perhaps sub-agents, and their steps in time order of each agent."""

    id: str
    block_tokens: Annotated[int, Meta(ge=1)]
    steps: tuple[Step, ...]
    tool_tokens: Tokens = 0
    system_tokens: Tokens = 0
    subagents: tuple[SubAgent, ...] = ()

    def peak_tokens(self, least_output_tokens: int = 1) -> int:
        """Largest input + output of any step: what one sequence of this session needs on an engine at most.

        Every call asks for at least one token as sent, so an output counts as at least `least_output_tokens`.
        """
        return max((step.input_tokens + max(least_output_tokens, step.output_tokens) for step in self.steps), default=0)


def read_sessions(path: Path) -> list[Session]:
    """Every session of a `.jsonl` or `.jsonl.gz` file, in its order; blank lines are skipped.

    Raises TraceError for a file that is missing, empty or cut short, and for a line that is not a session.
    """
    decoder = msgspec.json.Decoder(Session)
    sessions: list[Session] = []
    seen: set[str] = set()
    for number, line in _lines(path):
        try:
            session = decoder.decode(line)
        except msgspec.MsgspecError as error:
            raise TraceError(
                f"{path}, line {number}: expected one session as a JSON object "
                f"(id, block_tokens, tool_tokens, system_tokens, subagents, steps): {error}"
            ) from error
        problem = _problem(session, seen)
        if problem:
            raise TraceError(f"{path}, line {number}: session {session.id!r}: {problem}")
        seen.add(session.id)
        sessions.append(session)
    if not sessions:
        raise TraceError(f"{path}: expected one session per line, found none")
    return sessions


def _lines(path: Path) -> Iterator[tuple[int, bytes]]:
    number = 0
    try:
        with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as stream:
            for number, raw in enumerate(stream, start=1):
                line = raw.strip()
                if line:
                    yield number, line
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise TraceError(f"{path}, after line {number}: expected an intact gzip file: {error}") from error
    except OSError as error:
        raise TraceError(f"{path}: cannot read the sessions: {error.strerror or error}") from error


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
