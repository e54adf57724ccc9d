"""What a scheduling decision costs as a cell grows: process time in the cores of the mesh, per step, in the laboratory.

    python bench/decision_cost.py [--workers 16,128] [--seconds 200] [--system saga] [--json]

Every cluster has the same load per worker: 20 concurrent S1 workflows (`swe-bench`, profile of the `paper` cluster).
`decision` is what admission and placement need between a step's arrival and its grant: the handling of its StepReady
and of its StepAdmitted. The columns of services are all that their cores do, ticks, heartbeats and beats included,
divided by the steps that ended. One core; process time, so that other processes disturb little.
The full set, `--workers 16,128,1024`, takes some minutes.
"""

import argparse
import gc
import json
import sys
import time
from collections.abc import Iterable
from typing import Any

from saga.contract.messages import StepAdmitted, StepReady
from saga.kernel.effects import Received
from saga.sim.runner import Simulation
from saga.sim.spec import RunSpec

WORKFLOWS_PER_WORKER = 20
PRESSURE = 0.65  # which is as many on these workers
WARM_S = 40.0  # virtual: the first steps of the first workflows are not counted
DECIDES = (StepReady, StepAdmitted)


class Stopwatch:
    """A core whose handling is timed: in all, and by step for the messages that decide."""

    def __init__(self, core: Any, by_step_s: dict[str, float]) -> None:  # noqa: ANN401 - of any service
        self._core = core
        self._by_step_s = by_step_s
        self.total_s = 0.0

    def __getattr__(self, name: str) -> Any:  # noqa: ANN401 - as above
        return getattr(self._core, name)

    def handle(self, event: Any, now_s: float) -> list[Any]:  # noqa: ANN401 - as above
        """As the core's."""
        begun_s = time.process_time()
        effects: list[Any] = self._core.handle(event, now_s)
        took_s = time.process_time() - begun_s
        self.total_s += took_s
        if type(event) is Received and type(event.message) in DECIDES:
            message: Any = event.message
            step_id = message.step.step_id if type(message) is StepAdmitted else message.step_id
            self._by_step_s[step_id] = self._by_step_s.get(step_id, 0.0) + took_s
        return effects


def measure(workers: int, system: str, seconds: float) -> dict[str, float]:
    """One cluster. Figures in microseconds."""
    spec = RunSpec(
        "swe-bench",
        system,
        "paper",
        42,
        pressure=PRESSURE,
        workers=workers,
        tasks=WORKFLOWS_PER_WORKER * workers,
    )
    simulation = Simulation(spec)
    world = simulation.world
    decided_s: dict[str, float] = {}
    unused: dict[str, float] = {}
    simulation.agenda.run(WARM_S)
    steps_before = simulation.ledger.steps
    for party in (world.gateway, world.admission, world.placement, world.graph, *world.workers.values()):
        decides = party in (world.admission, world.placement)
        party.core = Stopwatch(party.core, decided_s if decides else unused)
    simulation.agenda.run(WARM_S + seconds)
    steps = simulation.ledger.steps - steps_before
    each_us = sorted(1e6 * s for s in decided_s.values())
    agents_s = sum(party.core.total_s for party in world.workers.values())
    return {
        "workers": workers,
        "workflows": WORKFLOWS_PER_WORKER * workers,
        "steps": steps,
        "decision_mean_us": sum(each_us) / len(each_us),
        "decision_p50_us": quantile(each_us, 0.5),
        "decision_p99_us": quantile(each_us, 0.99),
        "admission_us": 1e6 * world.admission.core.total_s / steps,
        "placement_us": 1e6 * world.placement.core.total_s / steps,
        "graph_us": 1e6 * world.graph.core.total_s / steps,
        "gateway_us": 1e6 * world.gateway.core.total_s / steps,
        "agents_us": 1e6 * agents_s / steps,
    }


def quantile(ascending: list[float], share: float) -> float:
    """The value below which that share lies."""
    return ascending[min(len(ascending) - 1, int(share * len(ascending)))]


def main(argv: Iterable[str] | None = None) -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(description="microseconds per step of the control plane's cores, by cluster size")
    parser.add_argument("--workers", default="16,128", help="comma-separated cluster sizes (default: %(default)s)")
    parser.add_argument("--seconds", type=float, default=160.0, help="virtual seconds measured (default: %(default)s)")
    parser.add_argument("--system", default="saga")
    parser.add_argument("--json", action="store_true")
    flags = parser.parse_args(None if argv is None else list(argv))
    gc.disable()  # as the laboratory runs
    rows = [measure(int(workers), flags.system, flags.seconds) for workers in flags.workers.split(",")]
    if flags.json:
        print(json.dumps(rows))
        return 0
    print("  ".join(f"{name:>16}" for name in rows[0]))
    for row in rows:
        print("  ".join(f"{value:>16,.0f}" for value in row.values()))
    if len(rows) > 1:
        first, last = rows[0], rows[-1]
        growth = last["decision_p99_us"] / first["decision_p99_us"]
        print(f"workers x {last['workers'] / first['workers']:.0f}: decision P99 x {growth:.1f}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
