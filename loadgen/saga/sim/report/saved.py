"""Reads what earlier commands saved, figures, details and cache results, and merges figures. Called by `cli`."""

from collections.abc import Sequence
from pathlib import Path
from typing import TypeVar

import msgspec

from saga.sim.detail import RunDetail
from saga.sim.figures import Report, Run, ratios
from saga.sim.report.cache_results import CacheReport

T = TypeVar("T")


class SavedError(ValueError):
    """A file that does not hold what it should; the message names it and says what was expected."""


def read_report(paths: Sequence[Path]) -> Report:
    """All runs of all files, ratios computed anew. A run found twice must say the same."""
    found: dict[tuple[object, ...], tuple[Run, Path]] = {}
    for path in paths:
        for run in _read(path, Report, "the --json file of `saga bench sim`").runs:
            key = (run.workload, run.system, run.cluster, run.seed, run.pressure, run.load, run.host_tier)
            earlier, where = found.setdefault(key, (run, path))
            if earlier != run:
                raise SavedError(
                    f"{path}: its run of {run.system} on {run.workload}, seed {run.seed}, differs from that in "
                    f"{where}; give files of one version and one set of flags"
                )
    runs = tuple(run for run, _ in found.values())
    return Report(runs, ratios(runs))


def read_details(path: Path) -> tuple[RunDetail, ...]:
    """A JSON array of RunDetail."""
    return _read(path, tuple[RunDetail, ...], "the details of runs that `saga bench sim` saves")


def read_cache(path: Path) -> CacheReport:
    """Results of the cache benchmark."""
    return _read(path, CacheReport, "the --json file of `saga bench cache`")


def _read(path: Path, kind: type[T], what: str) -> T:
    try:
        data = path.read_bytes()
    except OSError as error:
        raise SavedError(f"{path}: {error.strerror}; expected {what}") from error
    try:
        return msgspec.json.decode(data, type=kind)
    except msgspec.ValidationError as error:
        raise SavedError(f"{path}: expected {what}: {error}") from error
    except msgspec.DecodeError as error:
        raise SavedError(f"{path}: not JSON ({error}); expected {what}") from error
