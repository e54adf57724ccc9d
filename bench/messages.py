"""Messages and bytes of a cell, counted: `python bench/messages.py [--workers 16] [--seconds 200] [--json FILE]`.

The laboratory's run with the live cores; every message is encoded as on the wire and counted at each party that follows
its subject, as the live services subscribe. By step that ended, and by worker and second for what comes with time.
Heartbeats, beats and renewals are rarer in the laboratory than live (1 s): they are no part of the sums.
"""

import argparse
import json
import sys
from collections import Counter
from pathlib import Path
from typing import Any

from saga.contract.messages import (
    GatewayBeat,
    Heartbeat,
    LeasesRenewed,
    ResidencyDelta,
    ResyncReply,
    ResyncRequest,
    WorkerHello,
    encode,
)
from saga.sim.runner import Simulation
from saga.sim.spec import RunSpec

WITH_TIME = (Heartbeat, GatewayBeat, LeasesRenewed, WorkerHello)
RESIDENCY = (ResidencyDelta, ResyncRequest, ResyncReply)
WARM_S = 60.0
FOLLOWERS = ("admission", "placement", "graph", "gateway")


class Counted:
    """A world's network, with what passes counted."""

    def __init__(self, world: Any) -> None:  # noqa: ANN401 - its insides
        self._deliver = world._deliver  # noqa: SLF001 - the one place where all messages pass
        self._followers = world._followers  # noqa: SLF001
        world._deliver = self.deliver  # noqa: SLF001
        self.messages: Counter[str] = Counter()
        self.bytes: Counter[str] = Counter()
        self.heard: Counter[str] = Counter()  # by party
        self.heard_bytes: Counter[str] = Counter()

    def deliver(self, post: tuple[str, Any]) -> None:
        """As the world's."""
        subject, message = post
        name, size = type(message).__name__, len(encode(message))
        self.messages[name] += 1
        self.bytes[name] += size
        if not isinstance(message, WITH_TIME):
            for party in self._followers(subject):
                who = party.name if party.name in FOLLOWERS else "worker"
                self.heard[who] += 1
                self.heard_bytes[who] += size
        self._deliver(post)

    def forget(self) -> None:
        """What came before does not count."""
        for counts in (self.messages, self.bytes, self.heard, self.heard_bytes):
            counts.clear()


def measure(workload: str, sessions: Path | None, workers: int, pressure: float, seconds: float) -> dict[str, Any]:
    """One run."""
    cluster = "paper" if workload != "coding-sessions" else "long"
    spec = RunSpec(
        workload, "saga", cluster, 42, pressure=pressure, workers=workers, tasks=40 * workers, sessions=sessions
    )
    simulation = Simulation(spec)
    counted = Counted(simulation.world)
    simulation.agenda.run(WARM_S)
    counted.forget()
    before = simulation.ledger.steps
    simulation.agenda.run(WARM_S + seconds)
    steps = simulation.ledger.steps - before
    by_time = {kind.__name__ for kind in WITH_TIME}
    per_step = {n: c for n, c in counted.messages.items() if n not in by_time}
    page_events = sum(
        counted.bytes[kind.__name__] / 8 for kind in RESIDENCY if kind.__name__ in counted.bytes
    )  # 8 bytes a page; what a delta has beside its hashes is less than a tenth
    return {
        "workload": workload,
        "workers": workers,
        "steps": steps,
        "steps_per_worker_s": steps / seconds / workers,
        "messages_per_step": sum(per_step.values()) / steps,
        "bytes_per_step": sum(counted.bytes[name] for name in per_step) / steps,
        "page_events_per_step": page_events / steps,
        "heard_per_step": {who: count / steps for who, count in sorted(counted.heard.items())},
        "heard_bytes_per_step": {who: count / steps for who, count in sorted(counted.heard_bytes.items())},
        "by_message": {
            name: {"per_step": count / steps, "bytes": counted.bytes[name] / count}
            for name, count in sorted(counted.messages.items())
        },
    }


def main() -> int:
    """Prints a table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--workload", default="swe-bench")
    parser.add_argument("--sessions", type=Path, metavar="FILE", help="for coding-sessions")
    parser.add_argument("--workers", type=int, default=16)
    parser.add_argument("--pressure", type=float, default=0.65)
    parser.add_argument("--seconds", type=float, default=200.0, help="virtual")
    parser.add_argument("--json", type=Path)
    flags = parser.parse_args()
    found = measure(flags.workload, flags.sessions, flags.workers, flags.pressure, flags.seconds)
    for name, value in found.items():
        if not isinstance(value, dict):
            print(f"{name:<24}{value if isinstance(value, str | int) else round(value, 2):>12}")
    for name, facts in found["by_message"].items():
        print(f"  {name:<22}{facts['per_step']:>8.3f} per step{facts['bytes']:>9.0f} bytes")
    for who, count in found["heard_per_step"].items():
        print(f"  heard by {who:<13}{count:>8.2f} per step{found['heard_bytes_per_step'][who]:>9.0f} bytes")
    if flags.json:
        flags.json.write_text(json.dumps(found, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
