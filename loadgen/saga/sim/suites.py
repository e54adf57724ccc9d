"""Suites: comparisons that are run and reported together, as TOML in `suites/` or a path to one.

A suite is the whole of what a `make bench-...` target runs, so that every table in the documents has one file that says
how it was made. Called by `cli`.
"""

from importlib import resources
from pathlib import Path
from typing import Any

import msgspec
from msgspec.structs import replace

from saga.load.settings import recorded_sessions
from saga.sim.bench import Comparison
from saga.sim.systems.registry import SYSTEMS
from saga.sim.workloads import needs_sessions

ALL = ("*",)


class SuiteError(ValueError):
    """No such suite, or one that cannot be read; the message says what was expected."""


class Suite(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Comparisons, in the order of the report."""

    comparison: tuple[Comparison, ...]


def known_suites() -> list[str]:
    """Names of those that come with the laboratory."""
    folder = resources.files("saga.sim") / "suites"
    return sorted(entry.name.removesuffix(".toml") for entry in folder.iterdir() if entry.name.endswith(".toml"))


def load_suite(name_or_path: str) -> tuple[Comparison, ...]:
    """Its comparisons. Raises SuiteError."""
    if name_or_path.endswith(".toml"):
        try:
            text = Path(name_or_path).read_bytes()
        except OSError as error:
            raise SuiteError(f"cannot read suite {name_or_path}: {error.strerror}") from None
    elif name_or_path in known_suites():
        text = (resources.files("saga.sim") / "suites" / f"{name_or_path}.toml").read_bytes()
    else:
        known = ", ".join(known_suites())
        raise SuiteError(f"unknown suite {name_or_path!r}; known: {known}; or a path to a .toml file")
    try:
        suite = msgspec.toml.decode(text, type=Suite, dec_hook=_path)
    except msgspec.DecodeError as error:
        raise SuiteError(f"suite {name_or_path}: {error}") from None
    for number, comparison in enumerate(suite.comparison, 1):
        if bool(comparison.pressures) == bool(comparison.loads):
            raise SuiteError(f"suite {name_or_path}: comparison {number} needs either pressures or loads")
    return tuple(_complete(comparison) for comparison in suite.comparison)


def _complete(comparison: Comparison) -> Comparison:
    """With all systems where it says so, and the usual sessions where it names none."""
    if comparison.systems == ALL:
        comparison = replace(comparison, systems=SYSTEMS)
    if needs_sessions(comparison.workload) and comparison.sessions is None:
        return replace(comparison, sessions=recorded_sessions())
    return comparison


def _path(kind: type, value: Any) -> Any:  # noqa: ANN401 - as msgspec calls it
    if kind is Path and isinstance(value, str):
        return Path(value)
    raise NotImplementedError
