"""Flags of `saga bench sim`, and its table. The work is `bench`'s. Called by `saga.load.cli`."""

import argparse
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import mean

from rich import box
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from saga.load.settings import CODING_SESSIONS, DEFAULT_SESSIONS
from saga.load.trace import TraceError
from saga.sim.bench import PEAK_PRESSURES, SEEDS, SimSettings, bench_sim
from saga.sim.clusters import known_clusters
from saga.sim.figures import Ratio, Report, Run
from saga.sim.runner import HORIZON_S, RunRecord, RunSpec
from saga.sim.synthetic import CLASSES
from saga.sim.systems import SYSTEMS

WORKLOADS = (*CLASSES, CODING_SESSIONS)
DEFAULT_PRESSURES = (1.0,)


def add_parser(kinds: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Adds `sim` to the kinds of benchmark."""
    sim = kinds.add_parser(
        "sim",
        help="compare systems in virtual time",
        description="Run the cores of the live services in virtual time and compare task completion times.",
    )
    sim.add_argument("--workload", choices=WORKLOADS, default="swe-bench", help="tasks (default swe-bench)")
    sim.add_argument("--sessions", type=Path, metavar="FILE", help=f"recorded sessions (default {DEFAULT_SESSIONS})")
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
    sim.add_argument("--seeds", type=_seeds, default=1, metavar="N", help=f"the first N of {len(SEEDS)} (default 1)")
    sim.add_argument("--tasks", type=_count, metavar="N", help="conversations a run (default 500, or 3 a user)")
    sim.add_argument("--horizon", type=_positive, dest="horizon_s", default=HORIZON_S, metavar="S", help="virtual s")
    sim.add_argument("--json", type=Path, metavar="FILE", help="write the figures there too")
    sim.add_argument("--jobs", type=_count, default=1, metavar="J", help="processes (default 1)")
    sim.add_argument("--host-tier", choices=("off",), default="off", help="no host KV tier is modelled yet")


def run(flags: argparse.Namespace, out: Console, progress_to: Console) -> int:
    """Run it and show it; 0 whenever it completed. Raises what reading the input raises."""
    settings = SimSettings(
        workload=flags.workload,
        sessions=_sessions(flags),
        systems=flags.systems,
        cluster=flags.cluster,
        workers=flags.workers,
        pressures=flags.pressures or (() if flags.loads else DEFAULT_PRESSURES),
        loads=flags.loads or (),
        seeds=flags.seeds,
        tasks=flags.tasks,
        horizon_s=flags.horizon_s,
        jobs=flags.jobs,
        json=flags.json,
    )
    if settings.json is not None and not settings.json.parent.is_dir():
        raise TraceError(f"--json {settings.json}: expected a file in a folder that exists")
    points = len(settings.loads or settings.pressures) * settings.seeds * (len(settings.systems) + 1)
    points += len(PEAK_PRESSURES) * len(settings.systems) if settings.loads else 0
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=progress_to) as progress:
        bar = progress.add_task("simulating", total=points)

        def told(spec: RunSpec, record: RunRecord) -> None:
            del record
            progress.update(bar, advance=1, description=f"{spec.system}, seed {spec.seed}")

        report = bench_sim(settings, told)
    print_report(out, report)
    return 0


def _sessions(flags: argparse.Namespace) -> Path | None:
    if flags.workload != CODING_SESSIONS:
        return None
    path: Path = flags.sessions or Path(DEFAULT_SESSIONS)
    if not path.is_file():
        raise TraceError(f"{path}: no such file; {CODING_SESSIONS} needs --sessions FILE")
    return path


def print_report(out: Console, report: Report) -> None:
    """One table for each workload, cluster and load: means over seeds, the ratio to the best baseline last."""
    groups: dict[tuple[str, str, float | None, float | None], dict[str, list[Run]]] = {}
    for run in report.runs:
        key = (run.workload, run.cluster, run.pressure, run.load)
        groups.setdefault(key, {}).setdefault(run.system, []).append(run)
    for (workload, cluster, pressure, load), systems in groups.items():
        first = next(iter(systems.values()))[0]
        at = f"pressure {pressure:g} ({first.users} users)" if pressure is not None else f"load {load:g} of the peak"
        baseline = best_baseline(systems)
        title = (
            f"{workload} on {cluster}, {at}, {first.tasks_measured} tasks measured; seeds: {len(report_seeds(systems))}"
        )
        table = Table(title=title, title_justify="left", box=box.SIMPLE, pad_edge=False, padding=(0, 1, 0, 0))
        table.add_column("system", no_wrap=True)
        for name in (*_COLUMNS, "ratio [95 %]"):
            table.add_column(name, justify="right", no_wrap=True)
        for system, runs in systems.items():
            found = [
                r
                for r in report.ratios
                if (r.system, r.baseline, r.pressure, r.load) == (system, baseline, pressure, load)
            ]
            cells = [cell(runs) for cell in _COLUMNS.values()]
            table.add_row(system + _marks(runs), *cells, _ratio(found[0]) if found else "1")
        out.print(table)
        out.print(f"  ratio: mean TCT of {baseline or 'no baseline'} over that of the system, above 1 is faster")
    out.print(
        "TCT: task completion time in seconds, mean and P99, queueing and tools included; means over seeds. x bound: "
        "mean TCT over that of the KV-bound run (KV shared and unlimited, no control-plane cost). SLO: % of tasks "
        "within 1.5 x of their own TCT there. hit: % of prompt tokens. regen: million tokens prefilled though they had "
        "been cached once. /min: tasks a minute. u: unstable, its queue grew throughout. f: tasks failed.",
        style="dim",
    )


def report_seeds(systems: dict[str, list[Run]]) -> set[int]:
    """Seeds in a group."""
    return {run.seed for runs in systems.values() for run in runs}


def best_baseline(systems: dict[str, list[Run]]) -> str:
    """The fastest stable system that is not ours; empty when there is none."""
    stable = {
        name: mean(run.tct_s.mean or 0.0 for run in runs)
        for name, runs in systems.items()
        if name != "saga" and not any(run.unstable or run.tct_s.mean is None for run in runs)
    }
    return min(stable, key=lambda name: stable[name]) if stable else ""


def _marks(runs: Sequence[Run]) -> str:
    return (" u" if any(run.unstable for run in runs) else "") + (" f" if any(run.failures for run in runs) else "")


def _ratio(ratio: Ratio) -> str:
    if ratio.tct_ratio is None:
        return "-"
    interval = f" [{ratio.ci95[0]:.2f}, {ratio.ci95[1]:.2f}]" if ratio.ci95 else ""
    return f"{ratio.tct_ratio:.2f}{interval}"


def _mean(pick: Callable[[Run], float | None], spec: str) -> Callable[[Sequence[Run]], str]:
    def cell(runs: Sequence[Run]) -> str:
        values = [value for run in runs if (value := pick(run)) is not None]
        return format(mean(values), spec) if values else "-"

    return cell


_COLUMNS: dict[str, Callable[[Sequence[Run]], str]] = {
    "TCT": _mean(lambda r: r.tct_s.mean, ",.0f"),
    "P99": _mean(lambda r: r.tct_s.p99, ",.0f"),
    "x bound": _mean(lambda r: r.kv_bound_ratio, ".2f"),
    "SLO": _mean(lambda r: r.slo_attainment and 100 * r.slo_attainment, ".0f"),
    "hit": _mean(lambda r: r.hit_rate and 100 * r.hit_rate, ".1f"),
    "regen": _mean(lambda r: r.regenerated_tokens / 1e6, ",.1f"),
    "/min": _mean(lambda r: r.tasks_per_min, ".1f"),
}


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
