"""Trace files: which format one is in, read into sessions, written from them.

The formats are modules of their own. Called by the benchmarks and by `saga trace`.
"""

from collections.abc import Callable, Iterable, Sequence
from itertools import islice
from pathlib import Path
from typing import Any, get_args

import msgspec

from saga.contract.unreadable import UNREADABLE
from saga.load.traces import dag, mooncake, recorded, tracelab, trie
from saga.load.traces.lines import BadLines, read_lines, shown, write_lines
from saga.load.traces.session import FormatName, Session, Sessions, TraceError, Written

FORMATS: tuple[FormatName, ...] = get_args(FormatName)
LOOKED_AT = 20  # first lines, when some are bad

_PARSERS: dict[FormatName, Callable[[Iterable[tuple[int, bytes]], BadLines], list[Session]]] = {
    "recorded": recorded.parse,
    "mooncake": mooncake.parse,
    "tracelab": tracelab.parse,
    "trie": trie.parse,
    "dag": dag.parse,
}
_WRITERS: dict[FormatName, Callable[[Sequence[Session]], Written]] = {
    "recorded": recorded.write,
    "mooncake": mooncake.write,
    "tracelab": tracelab.write,
    "trie": trie.write,
}
WRITABLE: tuple[FormatName, ...] = tuple(_WRITERS)  # AIPerf replays texts, which sessions here do not keep
_MARKS: dict[str, FormatName] = {  # the field that only one format has
    "steps": "recorded",
    "block_tokens": "recorded",
    "hash_ids": "mooncake",
    "input_length": "mooncake",
    "input_prompt_length": "trie",
    "num_turns": "trie",
    "turns": "dag",
}


def read_sessions(path: Path, *, skip_bad: bool = False, file_format: FormatName | None = None) -> Sessions:
    """Every session of a file, plain or gzip, in its order; blank lines are skipped.

    `file_format` None: seen from the content. `skip_bad`: lines that are not what they should be are counted and left
    out instead. Raises TraceError for a file that is missing, empty or cut short, and for a bad line.
    """
    bad = BadLines(path, skip=skip_bad)
    found = file_format or recognise(path)
    try:
        sessions = _PARSERS[found](read_lines(path), bad)
    except TraceError as error:
        if str(error).startswith(str(path)):
            raise
        raise TraceError(f"{path}, {error}") from error
    if not sessions:
        left_out = f" ({bad.skipped} bad lines skipped)" if bad.skipped else ""
        raise TraceError(f"{path}: expected one session per line, found none{left_out}")
    return Sessions(sessions, found, bad.skipped)


def recognise(path: Path) -> FormatName:
    """The format of a file by its first line that tells. Raises TraceError when none does."""
    first: tuple[int, bytes] | None = None
    for number, line in islice(read_lines(path), LOOKED_AT):
        first = first or (number, line)
        found = _format_of(line)
        if found is not None:
            return found
    if first is None:
        raise TraceError(f"{path}: expected one session per line, found none")
    number, line = first
    raise TraceError(
        f"{path}, line {number}: expected {recorded.EXPECTED}, or a line of another format "
        f"({', '.join(FORMATS)}; --format says which); found {shown(line)}"
    )


def _format_of(line: bytes) -> FormatName | None:
    if not line.startswith(b"{"):
        return "tracelab" if tracelab.columns_of(line) is not None else None
    try:
        fields: dict[str, Any] = msgspec.json.decode(line, type=dict[str, Any])
    except UNREADABLE:
        return None
    return next((name for mark, name in _MARKS.items() if mark in fields), None)


def write_sessions(path: Path, sessions: Sequence[Session], file_format: FormatName) -> Written:
    """Write a file, gzip if its name ends so. What the format cannot say is in the result."""
    if file_format not in _WRITERS:
        raise TraceError(f"{path}: {file_format} can only be read; written can be {', '.join(WRITABLE)}")
    written = _WRITERS[file_format](sessions)
    write_lines(path, written.lines)
    return written
