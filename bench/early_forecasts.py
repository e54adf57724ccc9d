"""How far forecasts of the steps to come are off early in a run, when nobody has ended yet.

Users of S1 and S2 go through their tasks in step, each round one step of everybody; the forecast of what is left is
set against the truth, summed over all. No engines, no time. Run: python bench/early_forecasts.py --json FILE
"""

import argparse
import sys
from pathlib import Path

import orjson
from rich.console import Console
from rich.table import Table

from saga.graph.forecast import policy_named
from saga.graph.models import Model
from saga.graph.situation import Situation
from saga.graph.sketch import bucket_of
from saga.sim.clusters import load_cluster
from saga.sim.conversation import SimStep, Workload
from saga.sim.workloads import make_workload

SHOWN = (1, 2, 4, 8, 16, 32, 64, 120)  # rounds
LEVELS = 3  # class, tenant and all see the same steps here


def ratios(workload: Workload, users: int) -> dict[int, float]:
    """Forecast over true steps to come, by round."""
    models = tuple(Model(str(level)) for level in range(LEVELS))
    policy = policy_named("saga")
    started = 0

    def begin() -> tuple[SimStep, ...]:
        nonlocal started
        started += 1
        return workload.draw(started - 1).agents[0].steps

    live = [(begin(), 0) for _ in range(users)]
    found = {}
    for number in range(1, SHOWN[-1] + 1):
        said = true = 0.0
        for user, (steps, before) in enumerate(live):
            done = before + 1
            tool, left = steps[done - 1].tool, len(steps) - done
            said += policy.estimate(Situation(tool, done), models).remaining_steps
            true += left
            for model in models:
                model.saw_outcome(model.tool(tool), done, 0, bucket_of(1.0) if left else -1, ended=not left)
            live[user] = (steps, done) if left else (begin(), 0)
        if number in SHOWN:
            found[number] = said / true
    return found


def main() -> int:
    """Parse the flags and run."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--users", type=int, default=60)
    parser.add_argument("--seed", type=int, default=42)
    parser.add_argument("--json", type=Path, metavar="FILE")
    flags = parser.parse_args()
    _, profile = load_cluster("small", 1)
    table = Table(title=f"forecast over true steps to come, {flags.users} users in step, by round")
    for column in ("", *map(str, SHOWN)):
        table.add_column(column, justify="left" if not column else "right")
    found = {}
    for name in ("swe-bench", "webarena"):
        found[name] = ratios(make_workload(name, flags.seed, profile).workload, flags.users)
        table.add_row(name, *(f"{ratio:.2f}" for ratio in found[name].values()))
    Console().print(table)
    if flags.json is not None:
        document = {"format": 1, "settings": {"users": flags.users, "seed": flags.seed}, "ratios": found}
        flags.json.write_bytes(orjson.dumps(document, option=orjson.OPT_INDENT_2 | orjson.OPT_NON_STR_KEYS) + b"\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
