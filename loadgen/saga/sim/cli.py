"""Flags of `saga bench sim` and `saga bench suite`. The work is `bench`'s. Called by `saga.load.cli`."""

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import get_args

import msgspec
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from saga.load.settings import USUAL_SESSIONS, recorded_sessions
from saga.load.trace import TraceError
from saga.sim.bench import SEEDS, Comparison, Results, as_json, compare, count_runs
from saga.sim.clusters import known_clusters
from saga.sim.report.terminal import print_report
from saga.sim.spec import HORIZON_S, HostTier, RunSpec
from saga.sim.suites import known_suites, load_suite
from saga.sim.systems.registry import SYSTEMS
from saga.sim.workloads import WORKLOADS, check_workload, needs_sessions

DEFAULT_PRESSURES = (1.0,)


def add_parsers(kinds: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Adds `sim` and `suite` to the kinds of benchmark."""
    sim = kinds.add_parser(
        "sim",
        help="compare systems in virtual time",
        description="Run the cores of the live services in virtual time and compare task completion times.",
    )
    sim.add_argument("--workload", default="swe-bench", metavar="W", help=f"{', '.join(WORKLOADS)} (swe-bench)")
    sim.add_argument(
        "--sessions",
        type=Path,
        metavar="FILE",
        help=f"recorded sessions ({USUAL_SESSIONS})",
    )
    sim.add_argument("--skip-bad", action="store_true", help="leave out lines of the sessions that do not parse")
    sim.add_argument(
        "--system", type=_names, dest="systems", default=SYSTEMS, metavar="A,B", help=f"of {', '.join(SYSTEMS)}"
    )
    sim.add_argument(
        "--cluster", default="small", metavar="C", help=f"{', '.join(known_clusters())}, or a .toml file (small)"
    )
    sim.add_argument("--workers", type=_count, metavar="N", help="instead of the cluster's")
    load = sim.add_mutually_exclusive_group()
    load.add_argument(
        "--pressure", type=_positives, dest="pressures", metavar="P,..", help="closed loop: users as KV demand (1)"
    )
    load.add_argument(
        "--load", type=_positives, dest="loads", metavar="F,..", help="open loop: fractions of the best measured peak"
    )
    sim.add_argument(
        "--host-tier",
        type=_tiers,
        dest="host_tiers",
        default=("off",),
        metavar="T,..",
        help="off; on: KV in host memory, too; shared: and behind it in a store that all engines share (off)",
    )
    sim.add_argument("--seeds", type=_seeds, default=1, metavar="N", help=f"the first N of {len(SEEDS)} (default 1)")
    sim.add_argument("--tasks", type=_count, metavar="N", help="conversations a run (default 500, or 3 a user)")
    sim.add_argument("--horizon", type=_positive, dest="horizon_s", default=HORIZON_S, metavar="S", help="virtual s")
    _add_outputs(sim)
    suite = kinds.add_parser(
        "suite",
        help="run a whole set of comparisons, as the tables in the documents were made",
        description="Run the comparisons of a suite in virtual time and report them together.",
    )
    suite.add_argument("suite", metavar="NAME", help=f"{', '.join(known_suites())}, or a .toml file")
    _add_outputs(suite)


def _add_outputs(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures there too")
    parser.add_argument("--html", type=Path, metavar="FILE", help="write a report to look at there")
    parser.add_argument("--details", type=Path, metavar="FILE", help="write samples and stories of runs there, as JSON")
    parser.add_argument("--jobs", type=_count, default=1, metavar="J", help="processes (default 1)")
    parser.add_argument(
        "--keep", type=Path, metavar="DIR", help="keep finished runs there: an interrupted command goes on"
    )


def run(flags: argparse.Namespace, out: Console, progress_to: Console) -> int:
    """Run it and show it; 0 whenever it completed. Raises what reading the input raises."""
    for path in (flags.json, flags.html, flags.details):
        if path is not None and not path.parent.is_dir():
            raise TraceError(f"{path}: expected a file in a folder that exists")
    comparisons = load_suite(flags.suite) if flags.kind == "suite" else (_comparison(flags),)
    for comparison in comparisons:
        check_workload(comparison.workload)
        if comparison.sessions is not None and not comparison.sessions.is_file():
            raise TraceError(f"{comparison.sessions}: no such file; {comparison.workload} needs recorded sessions")
    results = _with_progress(comparisons, flags, progress_to)
    if flags.json is not None:
        flags.json.write_bytes(as_json(results.report))
    if flags.details is not None:
        flags.details.write_bytes(msgspec.json.encode(results.details))
    if flags.html is not None:
        from saga.sim.report.page import write_html  # noqa: PLC0415

        write_html(flags.html, results.report, results.details)
    print_report(out, results.report)
    return 0


def _with_progress(comparisons: Sequence[Comparison], flags: argparse.Namespace, progress_to: Console) -> Results:
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=progress_to) as progress:
        bar = progress.add_task("simulating", total=count_runs(comparisons))

        def told(spec: RunSpec) -> None:
            progress.update(bar, advance=1, description=f"{spec.workload}: {spec.system}, seed {spec.seed}")

        return compare(comparisons, told, jobs=flags.jobs, keep=flags.keep)


def _comparison(flags: argparse.Namespace) -> Comparison:
    recorded = needs_sessions(flags.workload)
    return Comparison(
        workload=flags.workload,
        sessions=(flags.sessions or recorded_sessions()) if recorded else None,
        skip_bad=flags.skip_bad,
        systems=flags.systems,
        cluster=flags.cluster,
        workers=flags.workers,
        pressures=flags.pressures or (() if flags.loads else DEFAULT_PRESSURES),
        loads=flags.loads or (),
        host_tiers=flags.host_tiers,
        seeds=flags.seeds,
        tasks=flags.tasks,
        horizon_s=flags.horizon_s,
        detail=flags.html is not None or flags.details is not None,
    )


def _count(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"expected a whole number of at least 1, got {text}")
    return value


def _seeds(text: str) -> int:
    value = _count(text)
    if value > len(SEEDS):
        raise argparse.ArgumentTypeError(f"there are {len(SEEDS)} preset seeds, not {text}")
    return value


def _positive(text: str) -> float:
    value = float(text)
    if not 0 < value < float("inf"):
        raise argparse.ArgumentTypeError(f"expected a number above 0, got {text}")
    return value


def _positives(text: str) -> tuple[float, ...]:
    return tuple(_positive(part) for part in text.split(","))


def _names(text: str) -> tuple[str, ...]:
    names = tuple(dict.fromkeys(name.strip() for name in text.split(",") if name.strip()))
    if not names:
        raise argparse.ArgumentTypeError("expected at least one system, as in session-affinity,saga")
    return names


def _tiers(text: str) -> tuple[str, ...]:
    tiers = tuple(dict.fromkeys(text.split(",")))
    if not set(tiers) <= set(get_args(HostTier)):
        raise argparse.ArgumentTypeError(f"expected some of {', '.join(get_args(HostTier))}; got {text}")
    return tiers
