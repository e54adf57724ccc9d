"""Lines of a trace file, plain or gzip, and what to do with a line that is not what it should be.

Knows no format. Called by the readers and by `files`.
"""

import gzip
import zlib
from collections.abc import Iterable, Iterator
from pathlib import Path

from saga.load.traces.session import TraceError

SHOWN_CHARS = 60
GZIP_LEVEL = 6  # the highest takes four times as long and gains little


class BadLines:
    """Raises on the first bad line, or with `skip` counts them all."""

    def __init__(self, path: Path, *, skip: bool) -> None:
        self._path = path
        self._skip = skip
        self.skipped = 0

    def at(self, number: int, problem: str, cause: Exception | None = None) -> None:
        """Line `number` is not to be used. Raises TraceError unless bad lines are skipped."""
        if not self._skip:
            raise TraceError(f"{self._path}, line {number}: {problem}") from cause
        self.skipped += 1


def shown(line: bytes) -> str:
    """The beginning of a line, for a message."""
    text = line[: SHOWN_CHARS + 1].decode(errors="replace")
    return repr(text if len(text) <= SHOWN_CHARS else text[:SHOWN_CHARS] + "...")


def read_lines(path: Path) -> Iterator[tuple[int, bytes]]:
    """Lines that are not blank, with their numbers from 1. Raises TraceError for a file that is missing or cut."""
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


def write_lines(path: Path, lines: Iterable[str]) -> None:
    """Write a file, gzip if its name ends so; equal lines give equal bytes. Raises TraceError."""
    data = "".join(f"{line}\n" for line in lines).encode()
    try:
        path.write_bytes(gzip.compress(data, GZIP_LEVEL, mtime=0) if path.suffix == ".gz" else data)
    except OSError as error:
        raise TraceError(f"{path}: cannot write the sessions: {error.strerror or error}") from error
