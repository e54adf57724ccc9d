"""Which setting and engine queue policy suit each baseline best: the figures behind the defaults of `saga.sim.systems`.

    python bench/offline/sweep_baselines.py [--system kv-ttl,paper] [--workload swe-bench] [--seed 1001] [--jobs 2]
        [--json]

Two workers of `small`, 150 conversations, pressure 1.5: a point is one run of half a minute. The seed is none of the
presets that results are reported with, so the choice is made out of sample. Best: the least mean completion time.
"""

import argparse
import json
import sys
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from statistics import fmean

from msgspec import Struct
from msgspec.structs import asdict

from saga.sim.runner import simulate
from saga.sim.spec import RunSpec
from saga.sim.systems.registry import SYSTEMS

SEED = 1001
PRESSURE = 1.5
WORKERS = 2
TASKS = 150
ENGINES = ("@fcfs", "@lpm", "@lof")
SETTINGS: dict[str, tuple[str, ...]] = {
    "round-robin": ENGINES,
    "least-loaded": ENGINES,
    "session-affinity": ENGINES,
    "prefix-aware": ENGINES,
    "affinity+cap": (":0.5", ":0.65", ":0.8", ":1", ":0.65@lpm"),
    "srpt+affinity": ENGINES,
    "edf+affinity": ENGINES,
    "kv-ttl": (":1", ":2", ":5", ":10", ":30", ":60", "@fcfs"),
    "steps-to-run": ENGINES,
    "pause-resume": (":0.75", ":0.85", ":0.95", ":1", "@lpm"),
    "attained-service": (":0.1", ":1", ":10", ":30", ":100", "@lpm"),
    "paper": ENGINES,
}


class Point(Struct, frozen=True):
    """One run."""

    system: str
    mean_tct_s: float
    p95_tct_s: float
    hit_rate: float
    regenerated_tokens: int
    refusals: int


def measure(system: str, workload: str, seed: int) -> Point:
    """Run the system as its name sets it."""
    spec = RunSpec(workload, system, "small", seed, pressure=PRESSURE, workers=WORKERS, tasks=TASKS)
    record = simulate(spec)
    times = sorted(task.tct_s for task in record.measured)
    return Point(
        system=system,
        mean_tct_s=fmean(times),
        p95_tct_s=times[int(0.95 * len(times))],
        hit_rate=record.cached_tokens / record.prompt_tokens,
        regenerated_tokens=record.regenerated_tokens,
        refusals=record.refusals,
    )


def best(points: list[Point]) -> dict[str, str]:
    """The point with the least mean, by system."""
    winners: dict[str, Point] = {}
    for point in points:
        base = point.system.partition("@")[0].partition(":")[0]
        if base not in winners or point.mean_tct_s < winners[base].mean_tct_s:
            winners[base] = point
    return {base: point.system for base, point in winners.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--system", default=",".join(SETTINGS), help=f"of {', '.join(SYSTEMS)}")
    parser.add_argument("--workload", default="swe-bench")
    parser.add_argument("--seed", type=int, default=SEED)
    parser.add_argument("--jobs", type=int, default=1)
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args()
    names = [name + suffix for name in given.system.split(",") for suffix in SETTINGS.get(name, ("",))]
    points = []
    with ProcessPoolExecutor(given.jobs) as pool:
        for point in pool.map(partial(measure, workload=given.workload, seed=given.seed), names):
            points.append(point)
            print(
                f"{point.system:26} mean {point.mean_tct_s:7.0f} s  P95 {point.p95_tct_s:7.0f} s  "
                f"hit {point.hit_rate:.3f}  regenerated {point.regenerated_tokens / 1e6:5.1f} M",
                file=sys.stderr if given.json else sys.stdout,
                flush=True,
            )
    if given.json:
        print(json.dumps({"points": [asdict(point) for point in points], "best": best(points)}, indent=2))
    else:
        print("best:", ", ".join(best(points).values()))


if __name__ == "__main__":
    main()
