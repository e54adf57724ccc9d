"""Flags of `saga bench cache`, and its table. The work is `bench`'s. Called by `saga.load.cli`."""

import argparse
from pathlib import Path

from msgspec.structs import replace
from rich import box
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from saga.load.settings import CODING_SESSIONS, USUAL_SESSIONS, recorded_sessions
from saga.load.trace import TraceError, read_sessions
from saga.sim.cache.access import SEED, Limits
from saga.sim.cache.bench import (
    BELADY,
    CAUSAL,
    LRU,
    POLICIES,
    Report,
    Result,
    Subject,
    bench_cache,
    recorded,
    synthetic,
    write_json,
)
from saga.sim.cache.synthetic import preset_capacities

RECORDED_CAPACITIES = (4_000_000, 8_000_000, 12_000_000)
LIMITS = {
    CODING_SESSIONS: Limits(),
    "swe-bench": Limits(sessions=400, starts_per_s=0.2),
    "webarena": Limits(sessions=800, starts_per_s=0.5),
}
DEFAULT_POLICIES = ("lru", "walru", "ttl", "saga", CAUSAL, BELADY)


def add_parser(kinds: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Adds `cache` to the kinds of benchmark."""
    cache = kinds.add_parser(
        "cache",
        help="compare cache policies with an oracle on a fixed access trace",
        description=(
            "Draw sessions that start as a Poisson process, replay what they need of one worker's KV at fixed times, "
            "and count the tokens that each cache policy makes be prefilled again."
        ),
    )
    cache.add_argument(
        "--workload", choices=LIMITS, default=CODING_SESSIONS, help=f"what is drawn (default {CODING_SESSIONS})"
    )
    cache.add_argument("--seed", type=int, default=SEED, metavar="N", help=f"of the draw (default {SEED})")
    cache.add_argument(
        "--trace",
        type=Path,
        default=recorded_sessions(),
        metavar="FILE",
        help=f"default {USUAL_SESSIONS}",
    )
    cache.add_argument(
        "--capacity",
        type=_capacities,
        dest="capacities",
        metavar="TOKENS,..",
        help=f"KV of the worker (default {','.join(map(str, RECORDED_CAPACITIES))}; of others what is in use fits)",
    )
    cache.add_argument(
        "--policy",
        type=_policies,
        dest="policies",
        default=DEFAULT_POLICIES,
        metavar="A,B",
        help=f"of {', '.join(POLICIES)} (default {','.join(DEFAULT_POLICIES)})",
    )
    cache.add_argument("--json", type=Path, metavar="FILE", help="write the figures there too")
    cache.add_argument("--skip-bad", action="store_true", help="leave out lines of the trace that do not parse")


def run(flags: argparse.Namespace, out: Console, progress_to: Console) -> int:
    """Run it and show it; 0 whenever it completed. Raises what reading the input raises."""
    if flags.json is not None and not flags.json.parent.is_dir():
        raise TraceError(f"--json {flags.json}: expected a file in a folder that exists")
    subject = _subject(flags, out)
    capacities = flags.capacities
    if capacities is None:
        capacities = RECORDED_CAPACITIES if flags.workload == CODING_SESSIONS else preset_capacities(subject.trace)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=progress_to) as progress:
        runs = len({LRU, BELADY, CAUSAL, *flags.policies}) * len(capacities)
        bar = progress.add_task("replaying", total=runs)
        done = 0

        def told(policy: str, capacity_tokens: int) -> None:
            nonlocal done
            progress.update(bar, completed=done, description=f"{policy}, {_millions(capacity_tokens)} M tokens")
            done += 1

        report = bench_cache(subject, capacities, flags.policies, told)
        progress.update(bar, completed=runs)
    if flags.json is not None:
        write_json(flags.json, report)
    print_report(out, report)
    return 0


def _subject(flags: argparse.Namespace, out: Console) -> Subject:
    limits = replace(LIMITS[flags.workload], seed=flags.seed)
    if flags.workload != CODING_SESSIONS:
        return synthetic(flags.workload, limits)
    sessions = read_sessions(flags.trace, skip_bad=flags.skip_bad)
    if sessions.skipped:
        out.print(f"{sessions.skipped} bad lines of {flags.trace} left out")
    return recorded(sessions, limits)


def print_report(out: Console, report: Report) -> None:
    """One table for each size."""
    sizes: dict[int, list[Result]] = {}
    for result in report.results:
        sizes.setdefault(result.capacity_tokens, []).append(result)
    for capacity_tokens, results in sizes.items():
        first = results[0]
        title = (
            f"{_millions(capacity_tokens)} M tokens of KV; of {_millions(first.prompt_tokens, 0)} M prompt tokens "
            f"{_percent(first.ideal_hit_rate)} % can hit"
        )
        table = Table(title=title, title_justify="left", box=box.SIMPLE, pad_edge=False, padding=(0, 1, 0, 0))
        table.add_column("policy", no_wrap=True)
        for name in ("regenerated, M tokens", "x oracle", "gap closed, %", "hit, %"):
            table.add_column(name, justify="right", no_wrap=True)
        for result in results:
            table.add_row(
                f"{result.policy} ({result.best_causal})" if result.policy == CAUSAL else result.policy,
                _millions(result.regenerated_tokens, 2),
                "-" if result.belady_ratio is None else f"{result.belady_ratio:.2f}",
                _percent(result.causal_gap_closed),
                _percent(result.hit_rate),
            )
        out.print(table)
        if first.unfit_calls or first.unfit_answers:
            out.print(
                f"  no room beside what was in use: {first.unfit_calls} calls ({_millions(first.unfit_tokens)} M "
                f"prompt tokens) went by the cache, {first.unfit_answers} answers were not stored; not in the figures"
            )
    out.print(
        "regenerated: prefilled though it had been cached once. x oracle: over what Belady's rule, which knows all "
        "future needs, regenerates. gap closed: share of the way from lru to the best causal policy, which knows the "
        "true distributions but no single future.",
        style="dim",
    )


def _millions(tokens: int, digits: int = 1) -> str:
    return f"{tokens / 1e6:,.{digits}f}"


def _percent(share: float | None) -> str:
    return "-" if share is None else f"{100 * share:.1f}"


def _capacities(text: str) -> tuple[int, ...]:
    try:
        sizes = tuple(dict.fromkeys(int(part) for part in text.split(",")))
    except ValueError:
        sizes = (0,)
    if min(sizes) < 1:
        raise argparse.ArgumentTypeError(f"expected whole numbers of tokens, as in 4000000,8000000, got {text}")
    return sizes


def _policies(text: str) -> tuple[str, ...]:
    names = tuple(dict.fromkeys(name.strip() for name in text.split(",") if name.strip()))
    unknown = [name for name in names if name not in POLICIES]
    if unknown or not names:
        raise argparse.ArgumentTypeError(f"expected some of {', '.join(POLICIES)}, got {text!r}")
    return names
