"""Seeded fault schedules: `python tests/faults/seeds_run.py --seeds 1000 --jobs 2`, or one of them, told in full:
`--seed 17`, `--seed 17 --only 0,3` with some of its faults. Exit code 1 if anything was broken.
"""

import argparse
import sys
from collections import Counter
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "support"))

from fault_run import Told, faults_of, minimised, replay_command, run

SHOWN_PROBLEMS = 12
MINIMISED = 5  # of the seeds that fail, the first so many


def main() -> int:
    """Runs; 0 if nothing was broken."""
    parser = argparse.ArgumentParser(description="All cores in virtual time under faults drawn from a seed.")
    parser.add_argument("--seeds", type=int, default=200, help="how many, from --first on")
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--calm", action="store_true", help="the same users without any fault")
    parser.add_argument("--seed", type=int, default=-1, help="one alone, with its schedule")
    parser.add_argument("--only", default="", help="with --seed: numbers of faults, as 0,3; or none")
    parser.add_argument("--raise", dest="raises", action="store_true", help="with --seed: let errors through")
    asked = parser.parse_args()
    if asked.seed >= 0:
        return _one(asked.seed, _numbers(asked.only), raises=asked.raises)
    seeds = range(asked.first, asked.first + asked.seeds)
    failed: list[int] = []
    ends: Counter[str] = Counter()
    seen: Counter[str] = Counter()
    service_s: Counter[str] = Counter()
    homes = [0, 0, 0]
    events = 0
    cpu_s = slowest_s = drained_s = 0.0
    with ProcessPoolExecutor(asked.jobs) as pool:
        for told in pool.map(partial(run, only=() if asked.calm else None), seeds):
            ends.update(told.ends)
            seen.update(told.seen)
            events, cpu_s = events + told.events, cpu_s + told.cpu_s
            slowest_s, drained_s = max(slowest_s, told.cpu_s), max(drained_s, told.drained_s)
            homes = [sum(pair) for pair in zip(homes, (told.home, told.away, told.moved), strict=True)]
            service_s.update(told.service_s)
            if told.problems:
                failed.append(told.seed)
                _show(told)
    print(f"{len(seeds)} seeds from {asked.first}, {events:,} events, {cpu_s:.0f} s of CPU, at most {slowest_s:.1f}")
    print(f"steps: {', '.join(f'{how} {number:,}' for how, number in sorted(ends.items()))}")
    print(f"survived: {', '.join(f'{what} {number:,}' for what, number in sorted(seen.items()))}")
    total_s = sum(service_s.values())
    shares = ", ".join(f"{tenant} {seconds / total_s:.1%}" for tenant, seconds in sorted(service_s.items()))
    print(f"ten seconds after the faults: at home {homes[0]:,}, elsewhere {homes[1]:,}, moved for a gain {homes[2]:,}")
    print(f"shares of engine time then: {shares}")
    print(f"drained within {drained_s:.1f} s of the last new step; {len(failed)} seeds failed")
    for seed in failed[:MINIMISED]:
        only = minimised(seed)
        print(f"seed {seed}: these faults are enough: {replay_command(seed, only)}")
    return 1 if failed else 0


def _one(seed: int, only: tuple[int, ...] | None, *, raises: bool) -> int:
    chosen = range(len(faults_of(seed))) if only is None else only
    for number, fault in zip(chosen, faults_of(seed, only), strict=True):
        print(f"{number:2} {fault}")
    told = run(seed, only, raises=raises)
    _show(told)
    print(f"{told.events:,} events, {told.ends}, drained within {told.drained_s:.1f} s")
    return 1 if told.problems else 0


def _show(told: Told) -> None:
    for problem in told.problems[:SHOWN_PROBLEMS]:
        print(f"seed {told.seed}: {problem}")
    if told.problems:
        print(f"seed {told.seed}: {len(told.problems)} problems; {replay_command(told.seed, told.only)}", flush=True)


def _numbers(only: str) -> tuple[int, ...] | None:
    if not only:
        return None
    return () if only == "none" else tuple(int(number) for number in only.split(","))


if __name__ == "__main__":
    sys.exit(main())
