"""Records what a core is told and what it answers, for as long as its process lives: SAGA_RECORD=DIR.

One append-only file for each process, gzip in whole members, so that a killed process loses its last second and no
more. What happens is encoded on the event loop (microseconds), compressed and written on a thread. The loop never waits
for the disk: if that falls behind by more than MAX_PENDING_BYTES, recording ends, and what is there remains a true
beginning. Switched off it costs nothing: `recorded` hands back the core's own door.
"""

import atexit
import gzip
import os
import threading
from collections.abc import Callable
from pathlib import Path
from queue import SimpleQueue
from typing import Any, Final

import msgspec

from saga.kernel.record import add_entry, header_frame
from saga.runtime.errors import StartError
from saga.runtime.log import get_logger

SUFFIX: Final = ".record.gz"
PART_BYTES: Final = 256 * 1024  # handed to the thread at the latest when so much is there
PART_S: Final = 1.0  # or after this time of the core's clock
MAX_PENDING_BYTES: Final = 64 * 1024 * 1024
COMPRESSION: Final = 1  # the fastest; keys repeat, so even that divides by about ten
CLOSE_WITHIN_S: Final = 10.0

log = get_logger()
Handle = Callable[[Any, float], list[Any]]


def recorded(folder: Path | None, service: str, name: str, making: msgspec.Struct, handle: Handle) -> Handle:
    """A core's door that records who comes and what goes, or `handle` itself when there is no folder.

    `making`: what the core was made from. Raises StartError when nothing can be written there.
    """
    if folder is None:
        return handle
    path = folder / f"{service}.{name}.{os.getpid()}{SUFFIX}"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        recording = Recording(path, header_frame(service, name, making))
    except OSError as error:
        raise StartError(f"SAGA_RECORD={folder}: {error.strerror}") from error
    atexit.register(recording.close)
    log.info("recording", file=str(path))
    return recording.around(handle)


class Recording:
    """One file and the thread that writes it."""

    def __init__(self, path: Path, header: bytes, *, max_pending_bytes: int = MAX_PENDING_BYTES) -> None:
        """Raises OSError when the file cannot be made."""
        self._path = path
        self._file = path.open("xb")
        self._max_pending_bytes = max_pending_bytes
        self._buffer = bytearray(header)
        self._part_s = 0.0
        self._handed_bytes = 0  # counted by the event loop alone
        self._written_bytes = 0  # by the thread alone
        self._parts: SimpleQueue[bytearray | None] = SimpleQueue()
        self._over = False
        self._thread = threading.Thread(target=self._write, name="recording", daemon=True)
        self._thread.start()

    def around(self, handle: Handle) -> Handle:
        """The same door, with every event and its effects written down."""

        def listened(event: Any, now_s: float) -> list[Any]:  # noqa: ANN401 - each core has its own events
            effects = handle(event, now_s)
            if not self._over:
                self._add(event, now_s, effects)
            return effects

        return listened

    def close(self) -> None:
        """Everything is in the file, unless the disk takes longer than CLOSE_WITHIN_S. Again: nothing happens."""
        if not self._over:
            self._end()
        self._thread.join(CLOSE_WITHIN_S)

    def _add(self, event: object, now_s: float, effects: list[Any]) -> None:
        add_entry(self._buffer, now_s, event, effects)
        if len(self._buffer) < PART_BYTES and now_s - self._part_s < PART_S:
            return
        self._part_s = now_s
        self._hand_over()
        if self._handed_bytes - self._written_bytes > self._max_pending_bytes:
            log.error("recording.ended", file=str(self._path), why="the disk is too slow")
            self._end()

    def _hand_over(self) -> None:
        self._handed_bytes += len(self._buffer)
        self._parts.put(self._buffer)
        self._buffer = bytearray()

    def _end(self) -> None:
        self._over = True
        self._hand_over()
        self._parts.put(None)

    def _write(self) -> None:
        try:
            with self._file:
                while (part := self._parts.get()) is not None:
                    self._file.write(gzip.compress(part, COMPRESSION, mtime=0))
                    self._file.flush()
                    self._written_bytes += len(part)
        except OSError as error:
            self._over = True
            log.error("recording.ended", file=str(self._path), why=error.strerror)  # noqa: TRY400 - a full disk is no bug
