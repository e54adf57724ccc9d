"""How fast the laboratory is: whole runs, each in a process of its own on one core, with the memory it took.

    python bench/sim_speed.py [--sessions FILE] [--large] [--workers 1024] [--workflows 20000] [--json]

`paper`: 500 tasks of S1 on 16 workers, pressure 1; target 20 s and 2 GiB. `coding`: 200 recorded sessions on 4 workers
of `long`, pressure 1; target 60 s. `--large` instead: so many workers and concurrent S1 workflows, one task each;
target 30 min and 12 GiB for 1,024 workers and 20,000 workflows. Seconds are process time.
"""

import argparse
import json
import multiprocessing
import resource
import sys
import time
from collections.abc import Iterable
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

from saga.sim.runner import simulate
from saga.sim.spec import RunSpec

TRACE = Path("../shared/traces/coding-sessions.jsonl.gz")
USERS_PER_WORKER = 30.75  # of pressure 1 on the profile of `paper`


def run(name: str, spec: RunSpec) -> dict[str, float | str]:
    """One run, timed here."""
    begun_s = time.process_time()
    record = simulate(spec)
    took_s = time.process_time() - begun_s
    return {
        "run": name,
        "users": record.users,
        "tasks": record.conversations,
        "steps": record.steps,
        "failures": record.failures,
        "virtual_s": round(record.ended_s),
        "process_s": round(took_s, 1),
        "us_per_step": round(1e6 * took_s / max(1, record.steps)),
        "rss_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024,
    }


def specs(flags: argparse.Namespace) -> dict[str, RunSpec]:
    """What to run."""
    if flags.large:
        pressure = flags.workflows / (USERS_PER_WORKER * flags.workers)
        large = RunSpec(
            "swe-bench",
            flags.system,
            "paper",
            42,
            pressure=pressure,
            workers=flags.workers,
            tasks=flags.workflows,
        )
        return {"large": large}
    found = {"paper": RunSpec("swe-bench", flags.system, "paper", 42, pressure=1.0, tasks=500)}
    if flags.sessions.exists():
        found["coding"] = RunSpec(
            "coding-sessions", flags.system, "long", 42, pressure=1.0, tasks=200, sessions=flags.sessions
        )
    else:
        print(f"no {flags.sessions}: recorded sessions are left out", file=sys.stderr)
    return found


def main(argv: Iterable[str] | None = None) -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(description="process seconds and memory of whole simulations")
    parser.add_argument("--sessions", type=Path, default=TRACE)
    parser.add_argument("--system", default="saga")
    parser.add_argument("--large", action="store_true")
    parser.add_argument("--workers", type=int, default=1024)
    parser.add_argument("--workflows", type=int, default=20_000)
    parser.add_argument("--json", action="store_true")
    flags = parser.parse_args(None if argv is None else list(argv))
    rows = []
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn"), max_tasks_per_child=1) as pool:
        for name, spec in specs(flags).items():
            rows.append(pool.submit(run, name, spec).result())
            if not flags.json:
                print("  ".join(f"{key} {value}" for key, value in rows[-1].items()), flush=True)
    if flags.json:
        print(json.dumps(rows))
    return 0


if __name__ == "__main__":
    sys.exit(main())
