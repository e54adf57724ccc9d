"""What metrics and traces cost: CPU seconds a request of a mesh that has both, beside one that has neither.

    python bench/observability_cost.py [--on both|metrics|traces|nothing] [--pairs 130] [--output-tokens 32]

One mesh is switched on and off while it takes requests, on-off-off-on, in the same processes: two meshes side by side
differ by as much as is asked for, and `--on nothing` tells how much two halves of the same do. *On*: every process
serves and counts its metrics; the gateway hands every span of every request to a collector, a process that throws them
away. *Off*: prometheus_client's counters do nothing and no span begins (there is no such setting, a service always
counts: they are replaced from outside). What a scrape costs is measured by itself and added as its share of the time
between two (as compose/prometheus has it), at the rate at which a gateway fills a core.

CPU time, not wall time, as others share the cores: throughput on given cores is its inverse. It is that of all services
but engines and the client, and of the gateway alone, which has most of it; what a mesh uses while it has nothing to do
is taken off. Whoever scrapes and collects is not counted.
"""

import argparse
import asyncio
import json
import os
import random
import signal
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import aiohttp
import uvloop
from gateway_overhead import Way

from saga.cli.mesh import Mesh, MeshSettings
from saga.load.client import GatewayClient
from saga.load.mesh_metrics import ANY_PORT, metrics_of
from saga.load.mesh_target import all_workers, first_model

GOAL = 0.03
SCRAPE_EVERY_S = 5.0
SCRAPES = 20
CONCURRENCY = 4
IDLE_S = 5.0
SETTLE_S = 0.2  # until a signal is heard
SERVICES = ("gateway", "admission", "placement", "graph", "worker")
# Runs at Python's start in each process of the mesh: SIGUSR1 switches what is asked for on, SIGUSR2 off. Spans that
# wait are handed over when it goes off, so that they count where they belong.
SWITCH = """\
import os, signal, sys
import prometheus_client.metrics as m
kept = [(kind, name, getattr(kind, name)) for kind, name in (
    (m.Counter, "inc"), (m.Gauge, "inc"), (m.Gauge, "dec"), (m.Gauge, "set"), (m.Histogram, "observe"),
    (m.MetricWrapperBase, "labels"))]
wanted, seen, begins = os.environ["OBSERVED"], set(), []
def nothing(self, *args, **kwargs): return None
def itself(self, *args, **kwargs): return self
def begin(self, *args):
    seen.add(self)
    return begins[0](self, *args)
def switch(number, frame):
    on = number == signal.SIGUSR1
    if wanted in ("both", "metrics"):
        for kind, name, method in kept:
            setattr(kind, name, method if on else itself if name == "labels" else nothing)
    traces = sys.modules.get("saga.gateway.http_otel")
    if traces is not None and wanted in ("both", "traces"):
        if not begins:
            begins.append(traces.OtelTraces.begin)
        traces.OtelTraces.begin = begin if on else nothing
        for one in () if on else seen:
            one._processor.force_flush()
signal.signal(signal.SIGUSR1, switch)
signal.signal(signal.SIGUSR2, switch)
"""
COLLECTOR = """\
import asyncio, sys
async def serve(reader, writer):
    try:
        while True:
            head = (await reader.readuntil(b"\\r\\n\\r\\n")).lower()
            await reader.readexactly(int(head.split(b"content-length:")[1].split(b"\\r")[0]))
            writer.write(b"HTTP/1.1 200 OK\\r\\nContent-Length: 0\\r\\n\\r\\n")
    except asyncio.IncompleteReadError:
        writer.close()
async def main():
    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()
asyncio.run(main())
"""


class Observed:
    """The mesh, and what its services use."""

    def __init__(self, mesh: Mesh, way: Way) -> None:
        self.mesh = mesh
        self.way = way
        self.idle = dict.fromkeys(SERVICES, 0.0)  # CPU seconds a second while it has nothing to do

    async def window(self, seconds: float, *, on: bool) -> dict[str, float]:
        """CPU milliseconds a request, by service."""
        self._switch(on=on)
        await asyncio.sleep(SETTLE_S)
        before, began_s = self.cpu_s(), time.monotonic()
        answered = await self.way.part(CONCURRENCY, seconds)
        self._switch(on=False)
        await asyncio.sleep(SETTLE_S)
        after, took_s = self.cpu_s(), time.monotonic() - began_s
        return {n: 1e3 * (after[n] - before[n] - self.idle[n] * took_s) / max(1, answered) for n in SERVICES}

    async def rest(self) -> None:
        """Finds out what it uses while it has nothing to do."""
        before = self.cpu_s()
        await asyncio.sleep(IDLE_S)
        self.idle = {name: (used_s - before[name]) / IDLE_S for name, used_s in self.cpu_s().items()}

    def cpu_s(self) -> dict[str, float]:
        """So far, by service."""
        used = dict.fromkeys(SERVICES, 0.0)
        for service, pid in self._services():
            used[service] += time.clock_gettime(cpu_clock(pid))
        return used

    def _switch(self, *, on: bool) -> None:
        for _, pid in self._services():
            os.kill(pid, signal.SIGUSR1 if on else signal.SIGUSR2)

    def _services(self) -> Iterator[tuple[str, int]]:
        for process, pid in self.mesh.processes.items():
            if (service := process.partition("-")[0]) in SERVICES:
                yield service, pid


def cpu_clock(pid: int) -> int:
    """Of all threads of a process; to the nanosecond, where /proc counts hundredths of a second. As clock_getcpuclockid
    of Linux has it."""
    return (~pid << 3) | 2


async def scrape_ms(mesh: Mesh) -> dict[str, float]:
    """CPU milliseconds of a scrape of all processes of each service: the least of several, as they also do other
    things meanwhile."""
    least = dict.fromkeys(SERVICES, float("inf"))
    async with aiohttp.ClientSession() as http:
        for _ in range(SCRAPES):
            for name, pid in mesh.processes.items():
                service = name.partition("-")[0]
                if service not in least:
                    continue
                before = time.clock_gettime(cpu_clock(pid))
                if service == "gateway":
                    async with http.get(f"{mesh.gateway_url}/metrics") as answer:
                        await answer.read()
                else:
                    await metrics_of(mesh, name)
                least[service] = min(least[service], 1e3 * (time.clock_gettime(cpu_clock(pid)) - before))
    count = {service: sum(name.partition("-")[0] == service for name in mesh.processes) for service in SERVICES}
    return {service: ms * count[service] for service, ms in least.items()}


async def measure(flags: argparse.Namespace, folder: Path) -> int:
    """All pairs, and what they say."""
    (folder / "sitecustomize.py").write_text(SWITCH)
    collector = await asyncio.create_subprocess_exec(sys.executable, "-c", COLLECTOR, stdout=asyncio.subprocess.PIPE)
    assert collector.stdout is not None
    endpoint = f"http://127.0.0.1:{(await collector.stdout.readline()).decode().strip()}"
    env = {service: dict(ANY_PORT) for service in SERVICES[1:]} | {"gateway": {"SAGA_GATEWAY_OTLP_ENDPOINT": endpoint}}
    environ = {"PATH": os.defpath, "PYTHONPATH": str(folder), "OBSERVED": flags.on}
    settings = MeshSettings(workers=2, speed=500.0, state_dir=folder / "mesh", env=env, leaders=1)
    try:
        async with Mesh(settings, environ=environ) as mesh:
            await all_workers(mesh.gateway_url, 2)
            async with GatewayClient(mesh.gateway_url) as gateway:
                model = first_model(await gateway.models(), mesh.gateway_url).id
            observed = Observed(mesh, Way([mesh.gateway_url], model, "o", flags.output_tokens))
            await observed.window(3.0, on=True)  # to warm up
            await observed.rest()
            pairs = []
            for number in range(flags.pairs):
                first = number % 2 == 0
                one = await observed.window(flags.seconds, on=first)
                other = await observed.window(flags.seconds, on=not first)
                pairs.append((one, other) if first else (other, one))
            scrapes = await scrape_ms(mesh)
            observed.way.close()
    finally:
        collector.kill()
        await collector.wait()
    if flags.on not in ("both", "metrics"):
        scrapes = dict.fromkeys(SERVICES, 0.0)
    return told(pairs, scrapes, observed.way.failed, flags)


def told(
    pairs: list[tuple[dict[str, float], dict[str, float]]],
    scrapes: dict[str, float],
    failed: int,
    flags: argparse.Namespace,
) -> int:
    """Print and write it; 0 when nothing failed."""
    document: dict[str, object] = {"on": flags.on, "output_tokens": flags.output_tokens, "failed": failed}
    print(f"{flags.on} on against off, {len(pairs)} pairs of {flags.seconds:g} s, {flags.output_tokens} output tokens")
    print(f"{'':12s} {'off':>8s} {'on':>8s}   CPU ms a request (medians); what it costs, 95 % interval; scrapes' share")
    most_per_s = 1e3 / statistics.median(off["gateway"] for _, off in pairs)  # that a gateway's core can do
    for name, of in (("all services", SERVICES), *((service, (service,)) for service in SERVICES)):
        sums = [(sum(on[one] for one in of), sum(off[one] for one in of)) for on, off in pairs]
        costs = [on / off - 1 for on, off in sums if off > 0]
        on_ms, off_ms = (statistics.median(column) for column in zip(*sums, strict=True))
        share = sum(scrapes[one] for one in of) / (SCRAPE_EVERY_S * most_per_s * off_ms)
        low, high = (end + share for end in interval(costs))
        cost = statistics.median(costs) + share
        print(f"{name:12s} {off_ms:8.3f} {on_ms:8.3f}   {cost:+7.1%}  ({low:+.1%} to {high:+.1%})  {share:.2%}")
        document[name] = {"off_ms": off_ms, "on_ms": on_ms, "cost": cost, "interval": (low, high), "scrapes": share}
    print(f"goal: below {GOAL:.0%} of throughput, metrics and traces together")
    if failed:
        print(f"{failed} requests failed")
    if flags.json is not None:
        flags.json.write_text(json.dumps(document, indent=1) + "\n")
    return 1 if failed else 0


def interval(costs: list[float]) -> tuple[float, float]:
    """Of the median, by bootstrap from a fixed seed."""
    draw = random.Random(0)
    medians = sorted(statistics.median(draw.choices(costs, k=len(costs))) for _ in range(2_000))
    return medians[50], medians[-51]


def main() -> int:
    """Parse the flags and run."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--on", choices=("both", "metrics", "traces", "nothing"), default="both")
    parser.add_argument("--pairs", type=int, default=130)
    parser.add_argument(
        "--seconds", type=float, default=1.0, help="of half a pair: short, so that both meet the same machine"
    )
    parser.add_argument("--output-tokens", type=int, default=32)
    parser.add_argument("--json", type=Path)
    with tempfile.TemporaryDirectory(prefix="saga-silent-") as folder:
        return uvloop.run(measure(parser.parse_args(), Path(folder)))


if __name__ == "__main__":
    sys.exit(main())
