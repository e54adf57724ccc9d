"""The file behind the ring: made by the server, since only it knows that somebody will read; mapped for reading.

The agent opens it and never makes it. It survives restarts of both; ranks of one server may share it.
"""

import contextlib
import mmap
import os
import tempfile
from pathlib import Path

from saga_sglang.ring import empty, records_of


def open_ring(path: Path) -> memoryview:
    """The ring at this path, made if there is none. Raises OSError; ValueError for a file that is something else."""
    with contextlib.suppress(FileNotFoundError):
        return _mapped(path)
    # Beside it and then linked: nobody sees half of it, and of two ranks that start together one makes it.
    handle, beside = tempfile.mkstemp(prefix=f"{path.name}.", dir=path.parent)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(empty())
        Path(beside).chmod(0o660)
        with contextlib.suppress(FileExistsError):
            os.link(beside, path)
    finally:
        Path(beside).unlink()
    return _mapped(path)


def _mapped(path: Path) -> memoryview:
    with path.open("rb") as file:
        buffer = memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))
    try:
        records_of(buffer)
    except ValueError as error:
        raise ValueError(f"{path}: {error}; remove it or name another file") from error
    return buffer
