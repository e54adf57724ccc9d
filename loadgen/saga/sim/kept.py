"""Records of runs kept in a folder, so that a long comparison that was interrupted goes on where it stopped.

A run is a pure function of its spec, the code and the sessions file, and a file's name is a hash of all three: another
version of the code finds nothing, and no old figure ever stands beside a new one. Called by `bench`.
"""

import hashlib
from functools import cache
from importlib import import_module
from pathlib import Path

import msgspec

from saga.sim.spec import RunRecord, RunSpec

# Everything a run passes through; a change in any file of these makes all kept runs stale.
PACKAGES = ("sim", "load", "contract", "kernel", "kv", "engine", "gateway", "admission", "placement", "graph", "worker")
SUFFIXES = (".py", ".toml")
APART = {"report", "suites", "cache"}  # folders that only show results, or make other ones


class KeptRuns:
    """A folder of records. A damaged or foreign file counts as absent."""

    def __init__(self, folder: Path) -> None:
        """Makes the folder. Raises OSError when it cannot."""
        folder.mkdir(parents=True, exist_ok=True)
        self._folder = folder

    def get(self, spec: RunSpec) -> RunRecord | None:
        """The record of that run by this code, if it was kept."""
        try:
            return msgspec.msgpack.decode(self._path(spec).read_bytes(), type=RunRecord)
        except (OSError, msgspec.DecodeError):
            return None

    def put(self, spec: RunSpec, record: RunRecord) -> None:
        """Keep it; whole or not at all."""
        path = self._path(spec)
        part = path.with_suffix(".part")
        part.write_bytes(msgspec.msgpack.encode(record))
        part.replace(path)

    def _path(self, spec: RunSpec) -> Path:
        sessions = _file_hash(spec.sessions) if spec.sessions is not None else ""
        plain = msgspec.structs.replace(spec, sessions=None)
        about = repr((msgspec.structs.asdict(plain), sessions, code_hash()))
        return self._folder / f"{hashlib.sha256(about.encode()).hexdigest()[:32]}.run"


@cache
def code_hash() -> str:
    """Of all source files that a run's figures may depend on."""
    digest = hashlib.sha256()
    for package in PACKAGES:
        for folder in import_module(f"saga.{package}").__path__:
            for path in sorted(Path(folder).rglob("*")):
                if path.suffix in SUFFIXES and not APART & set(path.relative_to(folder).parts):
                    digest.update(f"{package}/{path.relative_to(folder)}".encode())
                    digest.update(path.read_bytes())
    return digest.hexdigest()


@cache
def _file_hash(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()
