"""What residency traffic costs the leading placement: `python bench/residency_traffic.py [--workers 64] [--json FILE]`.

A real nats-server, a real placement process, and 64 agents' cores of this process that feed it 5,000 page events a
second: as engines have them, in bursts, a turn of an agent stored and as many old pages removed (25 and 25, one delta),
and as thinly as they can come, each agent a delta every 20 ms. Beside it the same without page events: what heartbeats
alone cost; and the floor, a process that only receives the same messages and forgets them. CPU time of each, and of
NATS, as a share of one core. To reach: placement below 1 % for the page events.
"""

import argparse
import asyncio
import contextlib
import json
import os
import random
import statistics
import sys
import tempfile
import time
from pathlib import Path

import uvloop

from saga.contract.ids import PoolId, WorkerId
from saga.contract.messages import (
    AllCleared,
    CostModel,
    Heartbeat,
    PagesRemoved,
    PagesStored,
    ResidencyChange,
    WorkerHello,
    encode,
)
from saga.contract.subjects import Subjects
from saga.load.process_cpu import cpu_s
from saga.runtime.bus_nats import NatsBus
from saga.runtime.nats_server import NatsServer
from saga.worker.residency import BATCH_S, ResidencyFeed

TURN_PAGES = 25  # stored, and as many removed
HELD_TURNS = 40  # of one worker, before the load begins
SETTLE_S = 3.0
LIMIT_SHARE = 0.01


class Agent:
    """One worker's feed, without an engine."""

    def __init__(self, number: int, rng: random.Random) -> None:
        self.hello = WorkerHello(
            worker_id=WorkerId(f"w{number}"), engine_url=f"http://w{number}", pool=PoolId("m"), epoch=1, page_tokens=64,
            kv_tokens=458_752, context_tokens=131_072, max_running=64, session_tags=True,
            cost=CostModel(prompt_s_per_token=1e-4, output_s_per_token=1e-3),
        )  # fmt: skip
        self._rng = rng
        self._turns: list[bytes] = []
        self.feed = ResidencyFeed(self.hello.worker_id, rng, jitter_s=0.0)
        self.feed.restart(1)
        self.offset_s = rng.random()

    def turn(self, pages: int) -> tuple[ResidencyChange, ...]:
        """So many pages stored, and as many of the oldest removed once the cache is full."""
        new = self._rng.randbytes(8 * pages)
        self._turns.append(new)
        if len(self._turns) <= HELD_TURNS:
            return (PagesStored(new),)
        return (PagesStored(new), PagesRemoved(self._turns.pop(0)))

    def beat(self) -> Heartbeat:
        """As an agent sends it each second."""
        return Heartbeat(
            worker=self.hello, healthy=True, running=0, waiting=0, used_tokens=0, residency_seq=self.feed.seq
        )


class Load:
    """All agents on one connection."""

    def __init__(self, bus: NatsBus, agents: list[Agent]) -> None:
        self._bus = bus
        self._agents = agents
        self._subjects = Subjects("main")
        self.events = self.deltas = self.bytes = 0

    async def beat(self) -> None:
        """Each agent once a second, spread over it. Until cancelled."""
        while True:
            for agent in self._agents:
                await self._bus.publish(self._subjects.worker_presence(), agent.beat())
                await asyncio.sleep(1.0 / len(self._agents))

    async def change(self, events_per_s: float, pages: int) -> None:
        """`pages` stored and as many removed by one agent after the other, so often. Until cancelled."""
        every_s = 2 * pages / events_per_s
        due_s = time.monotonic()
        number = 0
        while True:
            await self.say(self._agents[number % len(self._agents)], pages)
            number += 1
            due_s += every_s
            await asyncio.sleep(max(0.0, due_s - time.monotonic()))

    async def say(self, agent: Agent, pages: int) -> None:
        """One delta."""
        for delta in [*agent.feed.change(agent.turn(pages), 0.0), *agent.feed.flush()]:
            self.events += sum(len(c.hashes) // 8 for c in delta.changes if not isinstance(c, AllCleared))
            self.deltas += 1
            self.bytes += len(encode(delta))
            await self._bus.publish(self._subjects.residency(agent.hello.worker_id), delta)


async def measure(workers: int, events_per_s: float, seconds: float) -> dict[str, dict[str, float]]:
    """Shares of one core, without page events and with them."""
    with tempfile.TemporaryDirectory(prefix="saga-residency-") as folder:
        nats = NatsServer(Path(folder))
        await nats.start()
        environ = os.environ | {"SAGA_NATS_URL": nats.url}
        placement = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "saga.placement", env=environ, stderr=asyncio.subprocess.DEVNULL
        )
        floor = await asyncio.create_subprocess_exec(sys.executable, __file__, "--only-receive", nats.url)
        bus = await NatsBus.connect(nats.url, name="bench", cell="main")
        try:
            agents = [Agent(number, random.Random(number)) for number in range(workers)]
            load = Load(bus, agents)
            beating = asyncio.create_task(load.beat())
            await asyncio.sleep(SETTLE_S)
            for _ in range(HELD_TURNS):
                for agent in agents:
                    await load.say(agent, TURN_PAGES)
                await asyncio.sleep(0.02)
            await asyncio.sleep(SETTLE_S)
            thin_pages = max(1, round(events_per_s * BATCH_S / workers / 2))
            processes = {"placement": placement.pid, "floor": floor.pid, "nats": nats.running_pid or 0}
            shapes = {"heartbeats alone": 0, "in bursts": TURN_PAGES, "thinly": thin_pages}
            found: dict[str, dict[str, float]] = {}
            for name, pages in shapes.items():
                found[name] = await _share(load, processes, events_per_s, pages, seconds)
            beating.cancel()
        finally:
            await bus.close()
            for process in (placement, floor):
                process.terminate()
                await process.wait()
            await nats.stop()
    return found


async def _share(
    load: Load, processes: dict[str, int], events_per_s: float, pages: int, seconds: float
) -> dict[str, float]:
    load.events = load.deltas = load.bytes = 0
    changing = asyncio.create_task(load.change(events_per_s, pages)) if pages else None
    await asyncio.sleep(1.0)
    before, began_s, events, deltas, sent = cpu_s(processes), time.monotonic(), load.events, load.deltas, load.bytes
    await asyncio.sleep(seconds)
    passed_s = time.monotonic() - began_s
    after = cpu_s(processes)
    found = {
        "page_events_per_s": round((load.events - events) / passed_s, 1),
        "deltas_per_s": round((load.deltas - deltas) / passed_s, 1),
        "bytes_per_s": round((load.bytes - sent) / passed_s),
        **{f"{name}_share": round((after[name] - before[name]) / passed_s, 5) for name in processes},
    }
    if changing is not None:
        changing.cancel()
    return found


async def receive(url: str) -> None:
    """What the floor pays for: both subjects heard, nothing done. Until terminated."""
    bus = await NatsBus.connect(url, name="floor", cell="main")
    subjects = Subjects("main")
    for subject in (subjects.worker_presence(), subjects.every_residency()):
        await bus.subscribe(subject, lambda _: None)
    await asyncio.Event().wait()


def main() -> int:
    """Prints a table. Exit code 1 above the limit."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--workers", type=int, default=64)
    parser.add_argument("--events", type=float, default=5_000.0, metavar="PER_S", help="page events, of all workers")
    parser.add_argument("--seconds", type=float, default=20.0)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--only-receive", metavar="URL", help=argparse.SUPPRESS)
    flags = parser.parse_args()
    if flags.only_receive:
        with contextlib.suppress(KeyboardInterrupt):
            uvloop.run(receive(flags.only_receive))
        return 0
    rounds = [asyncio.run(measure(flags.workers, flags.events, flags.seconds)) for _ in range(flags.rounds)]
    print(
        f"{'share of one core':<18}{'events/s':>10}{'deltas/s':>10}{'KB/s':>8}{'placement':>11}{'floor':>9}{'NATS':>8}"
    )
    middles: dict[str, dict[str, float]] = {}
    for name in rounds[0]:
        middle = middles[name] = {key: statistics.median(r[name][key] for r in rounds) for key in rounds[0][name]}
        print(
            f"{name:<18}{middle['page_events_per_s']:>10,.0f}{middle['deltas_per_s']:>10,.0f}"
            f"{middle['bytes_per_s'] / 1e3:>8,.0f}{middle['placement_share']:>11.2%}{middle['floor_share']:>9.2%}"
            f"{middle['nats_share']:>8.2%}"
        )
    alone = middles["heartbeats alone"]
    above = {
        name: [middles[name][f"{who}_share"] - alone[f"{who}_share"] for who in ("placement", "floor")]
        for name in ("in bursts", "thinly")
    }
    for name, (placement, floor) in above.items():
        print(f"page events {name}: placement {placement:.2%}, floor {floor:.2%}; limit {LIMIT_SHARE:.0%}")
    if flags.json:
        flags.json.write_text(json.dumps({"workers": flags.workers, "rounds": rounds}, indent=1) + "\n")
    return int(above["in bursts"][0] > LIMIT_SHARE)


if __name__ == "__main__":
    sys.exit(main())
