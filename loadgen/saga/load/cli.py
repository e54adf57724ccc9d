"""Command line of `saga bench`: flags to settings, errors to one line on stderr and exit code 2.

Called by the `saga` command with what follows `bench`. The work is bench_live's.
"""

import argparse
import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import msgspec
import uvloop
from rich.console import Console

from saga.cli import sglang_options
from saga.cli.sglang import SglangSettings
from saga.contract.errors import StartError
from saga.engine.profile import UnknownProfileError
from saga.load.apis import APIS
from saga.load.bench_live import bench_live
from saga.load.client import GatewayError
from saga.load.planner import PlanError
from saga.load.settings import (
    CODING_FITTED,
    CODING_SESSIONS,
    DEFAULT_SESSIONS,
    DEMO,
    SHRUNK_PAGE_TOKENS,
    SWE_BENCH,
    WORKLOADS,
    BenchSettings,
    recorded_sessions,
)
from saga.load.trace import TraceError
from saga.sim import cli as sim
from saga.sim import fitted_sessions
from saga.sim.cache import cli as cache
from saga.sim.cache.bench import CacheError
from saga.sim.clusters import ClusterError
from saga.sim.report import cli as report
from saga.sim.report.saved import SavedError
from saga.sim.suites import SuiteError
from saga.sim.systems.registry import UnknownSystemError
from saga.sim.workloads import WorkloadError

EXIT_USAGE = 2
WIDE_COLUMNS = 140
DEMO_HELP = "preset: 60 recorded sessions (drawn ones where there are none), 12 steps each, 4 engines"
WORKLOAD_HELP = (
    f"what to replay: recorded sessions ({CODING_SESSIONS}, default), main agents drawn from statistics of such "
    f"({CODING_FITTED}), or the published parameters ({SWE_BENCH})"
)
EXIT_INTERRUPTED = 130


def main(argv: Sequence[str]) -> int:
    """Run `saga bench ...`; 0 if every step was answered, 1 if one failed, 2 if it could not start."""
    flags = _parser().parse_args(argv)
    # A table in a file or a pipe is as wide as it needs; a terminal says itself how wide it is.
    out, errors = Console(width=None if sys.stdout.isatty() else WIDE_COLUMNS), Console(stderr=True)
    try:
        if flags.kind in ("sim", "suite"):
            return sim.run(flags, out, errors)
        if flags.kind == "cache":
            return cache.run(flags, out, errors)
        if flags.kind == "report":
            return report.run(flags, out)
        settings = settings_from(flags, os.environ)
        if flags.demo and settings.workload == CODING_FITTED and flags.workload is None:
            out.print(
                f"No recorded sessions at {recorded_sessions()} (SAGA_SESSIONS names another file). Replayed instead: "
                f"sessions drawn from statistics of recorded ones ({CODING_FITTED}).",
                soft_wrap=True,
            )
        return uvloop.run(bench_live(settings, fitted_sessions.generate, out, errors))
    except (
        StartError,
        GatewayError,
        PlanError,
        TraceError,
        UnknownProfileError,
        ClusterError,
        CacheError,
        SuiteError,
        WorkloadError,
        UnknownSystemError,
        SavedError,
    ) as error:
        print(f"saga bench: {error}", file=sys.stderr)
        return EXIT_USAGE
    except KeyboardInterrupt:
        print("saga bench: interrupted; a mesh that it started is stopped", file=sys.stderr)
        return EXIT_INTERRUPTED


def settings_from(flags: argparse.Namespace, environ: Mapping[str, str]) -> BenchSettings:
    """Preset, then environment, then flags: the last one given wins."""
    settings = DEMO if flags.demo else BenchSettings()
    given = {
        name: value
        for name, value in vars(flags).items()
        if name in BenchSettings.__struct_fields__ and value is not None
    }
    settings = msgspec.structs.replace(settings, **given, api_key=environ.get("SAGA_API_KEY", ""))
    settings = msgspec.structs.replace(settings, sglang=_servers(flags, environ, settings))
    if settings.workload == CODING_SESSIONS and settings.sessions is None:
        named = environ.get("SAGA_SESSIONS")
        path = Path(named or DEFAULT_SESSIONS)
        if flags.demo and flags.workload is None and not path.is_file():
            return msgspec.structs.replace(settings, workload=CODING_FITTED)
        if named or path.is_file():
            settings = msgspec.structs.replace(settings, sessions=path)
    return settings


def _servers(flags: argparse.Namespace, environ: Mapping[str, str], settings: BenchSettings) -> SglangSettings | None:
    """The real servers asked for, if any. Raises StartError for what cannot work."""
    if flags.engine != sglang_options.SGLANG:
        sglang_options.refuse_without_sglang(flags)
        return None
    for name in ("demo", "profile", "speed", "target"):
        if getattr(flags, name):
            raise StartError(f"--{name} does not go with --engine sglang: real servers are as they are")
    servers = sglang_options.sglang_settings(flags, environ, Path())
    if settings.page_tokens is None and settings.shrink > 1:
        servers = msgspec.structs.replace(servers, page_tokens=SHRUNK_PAGE_TOKENS)
    return servers


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="saga bench", description="Benchmarks, in real time or in virtual time.")
    kinds = parser.add_subparsers(dest="kind", required=True, metavar="KIND")
    sim.add_parsers(kinds)
    report.add_parser(kinds)
    cache.add_parser(kinds)
    live = kinds.add_parser(
        "live",
        help="replay agent sessions in real time",
        description="Replay agent sessions over HTTP on one system after another and compare task completion times.",
    )
    live.add_argument("--demo", action="store_true", help=DEMO_HELP)
    live.add_argument("--workload", choices=WORKLOADS, help=WORKLOAD_HELP)
    live.add_argument("--sessions", type=Path, metavar="FILE", help="recorded sessions, .jsonl or .jsonl.gz")
    live.add_argument("--limit", type=_count, metavar="N", help="sessions, chosen by seed (default all)")
    live.add_argument("--max-steps", type=_count, metavar="N", help="first steps of each session (default all)")
    live.add_argument("--gap-cap", type=_seconds, dest="gap_cap_s", metavar="S", help="longest think time, recorded s")
    live.add_argument("--shrink", type=_count, metavar="K", help="divide lengths, KV and rates (default 1)")
    live.add_argument("--speed", type=_positive, metavar="X", help="engine seconds per real second (default 1)")
    live.add_argument("--system", type=_names, dest="systems", metavar="A,B", help="default session-affinity,saga")
    live.add_argument("--workers", type=_count, metavar="N", help="engines (default 4)")
    live.add_argument("--profile", metavar="P", help=f"engine profile (default {BenchSettings().profile})")
    live.add_argument("--page-tokens", type=_count, metavar="N", help="KV page (default the profile's; 16 if shrunk)")
    live.add_argument("--concurrency", type=_count, metavar="N", help="sessions open at once (default all)")
    live.add_argument("--seed", type=int, metavar="N", help="choice of sessions and their text (default 0)")
    live.add_argument("--json", type=_writable, metavar="FILE", help="write the figures there too")
    live.add_argument("--no-splice", action="store_const", const=False, dest="splice", help="never reuse answers")
    live.add_argument(
        "--target", "--gateway", metavar="URL", help="replay on this gateway, router or engine instead of a mesh"
    )
    live.add_argument("--api", choices=APIS, help="what to speak (default completions)")
    live.add_argument(
        "--session-header", metavar="NAME", help="name sessions in this header instead of SAGA's; '' for in none"
    )
    live.add_argument("--target-model", metavar="M", help="of the target (default its first)")
    live.add_argument("--no-ignore-eos", action="store_const", const=False, dest="ignore_eos", help="do not send it")
    sglang_options.add_arguments(live)
    return parser


def _count(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"expected a whole number of at least 1, got {text}")
    return value


def _positive(text: str) -> float:
    value = float(text)
    if not 0 < value < float("inf"):
        raise argparse.ArgumentTypeError(f"expected a number above 0, got {text}")
    return value


def _seconds(text: str) -> float:
    value = float(text)
    if not 0 <= value < float("inf"):
        raise argparse.ArgumentTypeError(f"expected seconds, 0 or more, got {text}")
    return value


def _writable(text: str) -> Path:
    path = Path(text)
    if path.is_dir() or not path.parent.is_dir():
        raise argparse.ArgumentTypeError(f"expected a file in a folder that exists, got {text}")
    return path


def _names(text: str) -> tuple[str, ...]:
    names = tuple(name.strip() for name in text.split(",") if name.strip())
    if not names:
        raise argparse.ArgumentTypeError("expected at least one system, as in session-affinity,saga")
    return names
