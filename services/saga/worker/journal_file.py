"""The journal of open session tags on disk. `journal.py` says what is in it; only the agent's shell writes it."""

from pathlib import Path

from saga.contract.errors import StartError
from saga.kernel.effects import Forget, Persist
from saga.worker.journal import Journal


class JournalFile:
    """Small writes, no fsync: it has to survive the agent, not the machine."""

    def __init__(self, path: Path) -> None:
        """Reads what is there and writes it anew. Raises StartError when the file cannot be used."""
        self._path = path
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self.journal = Journal(path.read_bytes() if path.exists() else b"")
            self._rewrite()
        except OSError as error:
            raise StartError(f"SAGA_WORKER_JOURNAL={path}: {error.strerror}") from error

    def write(self, effect: Persist | Forget) -> None:
        """Add one word."""
        journal = self.journal
        line = journal.opened(effect.key, effect.value) if isinstance(effect, Persist) else journal.gone(effect.key)
        self._file.write(line)
        if journal.overgrown:
            self._file.close()
            self._rewrite()

    def close(self) -> None:
        """Nothing more to say."""
        self._file.close()

    def _rewrite(self) -> None:
        beside = self._path.with_suffix(self._path.suffix + ".new")
        beside.write_bytes(self.journal.anew())
        beside.replace(self._path)
        self._file = self._path.open("ab", buffering=0)
