"""A small disk under JetStream's store, to be filled: a tmpfs, mounted over the store's folder. Needs root."""

import asyncio
import contextlib
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Final

SIZE_MIB: Final = 192  # JetStream takes three quarters of it, and promises 64 to the stream of step ends
_FILLER: Final = "filler"
_BLOCK: Final = bytes(1 << 16)


class SmallStore:
    """One such disk."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    @contextlib.contextmanager
    def mounted(self) -> Iterator[None]:
        """While this lasts, the folder is a disk of its own."""
        self._folder.mkdir(parents=True, exist_ok=True)
        _run("mount", "-t", "tmpfs", "-o", f"size={SIZE_MIB}m", "saga-chaos", str(self._folder))
        try:
            yield
        finally:
            _run("umount", str(self._folder))

    def fill(self) -> None:
        """Until there is no byte left."""
        with (self._folder / _FILLER).open("wb", buffering=0) as file, contextlib.suppress(OSError):
            while True:
                file.write(_BLOCK)

    def free(self) -> None:
        """As it was."""
        (self._folder / _FILLER).unlink(missing_ok=True)


def why_not() -> str:
    """Why no disk can be mounted here; empty: it can."""
    return "" if os.geteuid() == 0 and Path("/proc/mounts").exists() else "needs root, to mount a small disk"


def _run(*command: str) -> None:
    subprocess.run(command, check=True, capture_output=True)  # noqa: S603 - our own words


async def filled(store: SmallStore) -> None:
    """`fill`, aside."""
    await asyncio.to_thread(store.fill)
