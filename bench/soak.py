"""Three hours of virtual time at 80 % load: what every core remembers, leases, failed steps.

    python bench/soak.py [--hours 3] [--workload webarena] [--cluster small] [--json FILE]

The laboratory's run with the live cores. First the peak: tasks a minute of users who never wait, closed loop at
pressure 1. Then conversations begin as a Poisson process at 80 % of it. Every ten virtual minutes each core is walked
(`saga.sim.books`): the length of every dict, list, set and deque below it. Clients here never say that they are done,
and a workflow is forgotten after an hour of silence: so what is kept for each workflow is level only in the second
hour, and one hour alone says little. Verdict: a book is bounded if its last length is at most a quarter, and 64
entries, above the most of the middle third of the time, or if it is one of those that remember the past up to a number
that the code fixes, and is within it. Anything else grows without end. RSS is of this process, in which the laboratory
keeps its own records of every task too.
Exit code 1 for such a book, a failed step, or a lease that has not ended when everybody is gone.
"""

import argparse
import os
import sys
import time
from collections.abc import Mapping
from pathlib import Path

import orjson
from rich.console import Console
from rich.table import Table

from saga.graph.following import KEPT_NODES, MAX_WORKFLOWS
from saga.load.process_memory import rss_bytes
from saga.sim.books import books
from saga.sim.runner import Simulation, simulate
from saga.sim.spec import RunSpec

LOAD = 0.8
MARK_S = 600.0
DRAIN_S = 7_200.0  # for the last conversations, after the last has begun
SETTLE_S = 60.0
PEAK_TASKS = 200
GROWS_SHARE, GROWS_ENTRIES = 1.25, 64
COLUMNS = 6  # of the table; the JSON has every mark
SHOWN = 14  # books, the largest
# What remembers the past, up to a fixed number: path (as far as it goes) to that number, from the code.
BOUNDS: dict[str, int] = {
    "admission.book._ended": 20_000,
    "placement.board._ended": 20_000,
    "placement.board.sessions": 50_000,
    "graph._over": 20_000,
}
BOUNDS |= {  # after an hour of silence a graph remembers the end of a workflow for a day
    "graph._following._silent": MAX_WORKFLOWS,
    "graph._following._roots[*]": MAX_WORKFLOWS,
    "graph._following._silent[*].sessions": MAX_WORKFLOWS,
    "graph._following._silent[*].nodes": MAX_WORKFLOWS * KEPT_NODES,
}
BOUNDS_OF_EACH: dict[str, int] = {  # worker
    "worker.leases._ended": 8_192,
    "worker.endings._last": 16_384,
    "worker.endings._before": 16_384,
    "engine._ends_s": 1_024,  # planned iterations
}

Marks = list[dict[str, int]]


def measure(flags: argparse.Namespace, console: Console) -> int:
    """0 if all is bounded, nothing failed and nothing leaked."""
    common = {"workload": flags.workload, "system": "saga", "cluster": flags.cluster, "workers": flags.workers}
    peak = simulate(RunSpec(**common, seed=flags.seed, pressure=1.0, tasks=PEAK_TASKS))
    per_min = LOAD * peak.tasks_per_min
    total = max(1, round(per_min * 60 * flags.hours))
    console.print(f"peak {peak.tasks_per_min:.2f} tasks/min; {total} conversations at {per_min:.2f} a minute")
    simulation = Simulation(RunSpec(**common, seed=flags.seed + 1, per_min=per_min, tasks=total))
    marks: Marks = []
    rss_mib: list[float] = []
    end_s = 3_600.0 * flags.hours
    for number in range(1, round(end_s / MARK_S) + 1):
        simulation.agenda.run(number * MARK_S)
        marks.append(remembered(simulation))
        rss_mib.append((rss_bytes(os.getpid()) or 0) / 2**20)
    live_at_end = marks[-1].get("placement.board.leases", 0)
    simulation.agenda.run(end_s + DRAIN_S)
    simulation.agenda.stopped = False  # it stops with the last answer, before everybody has heard of it
    simulation.agenda.run(simulation.agenda.now_s + SETTLE_S)
    simulation.world.check()
    accounts = simulation.world.placement.core.board.lease_accounts
    out = len(simulation.world.placement.core.board.leases)
    leaked = accounts.granted - sum(accounts.ended.values()) - out
    ledger = simulation.ledger
    bounds = BOUNDS | {path: bound * len(simulation.world.workers) for path, bound in BOUNDS_OF_EACH.items()}
    unbounded = growing(marks, bounds)
    show(console, marks, rss_mib, unbounded, bounds)
    console.print(
        f"steps {ledger.steps}, failed {ledger.failures}; leases granted {accounts.granted}, "
        f"{', '.join(f'{end} {number}' for end, number in accounts.ended.items())}, out at the "
        f"last mark {live_at_end}, in the end {out}, leaked {leaked}"
    )
    told = f"{len(unbounded)} books grow without end: {', '.join(unbounded)}" if unbounded else "no unbounded growth"
    console.print(f"{len(marks[-1])} books: {told}")
    if flags.json is not None:
        document = {
            "format": 1,
            "at": time.strftime("%Y-%m-%dT%H:%MZ", time.gmtime()),
            "settings": {name: value for name, value in vars(flags).items() if name != "json"},
            "peak_tasks_per_min": peak.tasks_per_min,
            "conversations": total,
            "steps": ledger.steps,
            "failures": ledger.failures,
            "leases": {"granted": accounts.granted, **accounts.ended, "out": out, "leaked": leaked},
            "marks_s": [MARK_S * (number + 1) for number in range(len(marks))],
            "rss_mib": rss_mib,
            "books": marks,
            "unbounded": unbounded,
        }
        flags.json.write_bytes(orjson.dumps(document, option=orjson.OPT_INDENT_2) + b"\n")
    return 1 if unbounded or ledger.failures or leaked or out else 0


def remembered(simulation: Simulation) -> dict[str, int]:
    """Of all cores, the books of workers and engines together."""
    world = simulation.world
    cores = {name: getattr(world, name).core for name in ("gateway", "admission", "placement", "graph")}
    found = {f"{name}.{path}": size for name, core in cores.items() for path, size in books(core).items()}
    agents = [("worker", party.core) for party in world.workers.values()]
    for name, core in [*agents, *(("engine", host.core) for host in world.engines.values())]:
        for path, size in books(core).items():
            found[f"{name}.{path}"] = found.get(f"{name}.{path}", 0) + size
    return found


def growing(marks: Marks, bounds: Mapping[str, int]) -> list[str]:
    """Books that grow without end, as the module says."""
    third = max(1, len(marks) // 3)
    found = []
    for path, last in sorted(marks[-1].items()):
        middle = max(mark.get(path, 0) for mark in marks[third : 2 * third] or marks[:1])
        if last > GROWS_SHARE * middle + GROWS_ENTRIES and last > bounds.get(path, 0):
            found.append(path)
    return found


def show(console: Console, marks: Marks, rss_mib: list[float], unbounded: list[str], bounds: Mapping[str, int]) -> None:
    """The largest books and the sums, at each mark."""
    table = Table()
    table.add_column("entries after minutes")
    every = -(-len(marks) // COLUMNS)
    shown = [number for number in range(len(marks)) if (number + 1) % every == 0]
    for number in shown:
        table.add_column(f"{(number + 1) * MARK_S / 60:.0f}", justify="right")
    last: Mapping[str, int] = marks[-1]
    marks, rss_mib = [marks[number] for number in shown], [rss_mib[number] for number in shown]
    for service in ("gateway", "admission", "placement", "graph", "worker", "engine"):
        sums = [sum(size for path, size in mark.items() if path.startswith(f"{service}.")) for mark in marks]
        table.add_row(service, *map(str, sums))
    table.add_section()
    largest = sorted(last, key=lambda path: -last[path])[:SHOWN]
    for path in [*largest, *(path for path in unbounded if path not in largest)]:
        bound = f" (at most {bounds[path]})" if path in bounds else " GROWS" if path in unbounded else ""
        table.add_row(f"  {path}{bound}", *(str(mark.get(path, 0)) for mark in marks))
    table.add_section()
    table.add_row("RSS, MiB", *(f"{mib:.0f}" for mib in rss_mib))
    console.print(table)


def main() -> int:
    """Parse the flags and run."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--hours", type=float, default=3.0)
    parser.add_argument("--workload", default="webarena")
    parser.add_argument("--cluster", default="small")
    parser.add_argument("--workers", type=int)
    parser.add_argument("--seed", type=int, default=42)
    parser.add_argument("--json", type=Path, metavar="FILE")
    return measure(parser.parse_args(), Console(width=150))


if __name__ == "__main__":
    sys.exit(main())
