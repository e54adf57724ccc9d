"""What metrics and traces cost: CPU seconds a request of a mesh that has both, beside one that has neither.

    python bench/observability_cost.py [--on both|metrics|traces] [--pairs 40] [--output-tokens 32] [--json FILE]

Two meshes stand beside each other and take the same requests at the same time, so that both see the same machine.
*On*: every process serves its metrics; the gateway hands every span of every request to a collector, a process that
throws them away. *Off*: no process serves metrics and prometheus_client's counters do nothing (there is no such
setting, a service always counts: they are replaced from outside); no traces. What a scrape costs is measured by itself
and added as its share of the time between two (as compose/prometheus has it), at the rate at which a gateway fills a
core.

CPU time, not wall time, as others share the cores: throughput on given cores is its inverse. It is that of all services
but engines and the client, and of the gateway alone, which has most of it; what a mesh uses while it has nothing to do
is taken off. Whoever scrapes and collects is not counted.
"""

import argparse
import asyncio
import json
import random
import statistics
import sys
import tempfile
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
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
CONCURRENCY = 4  # at each mesh
IDLE_S = 5.0
SERVICES = ("gateway", "admission", "placement", "graph", "worker")
# For Python's start in each process of the other mesh: what is counted is thrown away.
NO_COUNTING = """\
import prometheus_client.metrics as m
def nothing(self, *args, **kwargs): return None
m.Counter.inc = m.Gauge.inc = m.Gauge.dec = m.Gauge.set = m.Histogram.observe = nothing
m.MetricWrapperBase.labels = lambda self, *args, **kwargs: self
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


class Side:
    """One of the two meshes."""

    def __init__(self, mesh: Mesh, way: Way) -> None:
        self.mesh = mesh
        self.way = way
        self.idle = dict.fromkeys(SERVICES, 0.0)  # CPU seconds a second while it has nothing to do

    @property
    def failed(self) -> int:
        """Requests without an answer, so far."""
        return self.way.failed

    def cpu_s(self) -> dict[str, float]:
        """So far, by service."""
        used = dict.fromkeys(SERVICES, 0.0)
        for process, pid in self.mesh.processes.items():
            name = process.partition("-")[0]
            if name in used:
                used[name] += time.clock_gettime(cpu_clock(pid))
        return used


async def window(on: Side, off: Side, seconds: float) -> tuple[dict[str, float], dict[str, float]]:
    """CPU milliseconds a request, by service, of both, each under half of the users."""
    sides, began_s = (on, off), time.monotonic()
    before = [one.cpu_s() for one in sides]
    answered = await asyncio.gather(*(one.way.part(CONCURRENCY, seconds) for one in sides))
    took_s = time.monotonic() - began_s
    costs = []
    for one, was_s, count in zip(sides, before, answered, strict=True):
        now_s = one.cpu_s()
        used = {name: now_s[name] - was_s[name] - one.idle[name] * took_s for name in SERVICES}
        costs.append({name: 1e3 * seconds_ / max(1, count) for name, seconds_ in used.items()})
    return costs[0], costs[1]


def cpu_clock(pid: int) -> int:
    """Of all threads of a process; to the nanosecond, where /proc counts hundredths of a second. As clock_getcpuclockid
    of Linux has it."""
    return (~pid << 3) | 2


@asynccontextmanager
async def side(name: str, environ: dict[str, str], env: dict[str, dict[str, str]], tokens: int) -> AsyncIterator[Side]:
    """A mesh with two engines that answer at once."""
    with tempfile.TemporaryDirectory(prefix=f"saga-observed-{name}-") as folder:
        settings = MeshSettings(workers=2, speed=500.0, state_dir=Path(folder), env=env, leaders=1)
        async with Mesh(settings, environ=environ) as mesh:
            await all_workers(mesh.gateway_url, 2)
            async with GatewayClient(mesh.gateway_url) as gateway:
                model = first_model(await gateway.models(), mesh.gateway_url).id
            way = Way([mesh.gateway_url], model, name, tokens)
            try:
                yield Side(mesh, way)
            finally:
                way.close()


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
    (folder / "sitecustomize.py").write_text(NO_COUNTING)
    collector = await asyncio.create_subprocess_exec(sys.executable, "-c", COLLECTOR, stdout=asyncio.subprocess.PIPE)
    assert collector.stdout is not None
    endpoint = f"http://127.0.0.1:{(await collector.stdout.readline()).decode().strip()}"
    plain = {"PATH": "/usr/bin:/bin"}
    silent = plain | {"PYTHONPATH": str(folder)}
    counting, tracing = flags.on in ("both", "metrics"), flags.on in ("both", "traces")
    env = {service: dict(ANY_PORT) for service in SERVICES[1:]} if counting else {}
    if tracing:
        env["gateway"] = {"SAGA_GATEWAY_OTLP_ENDPOINT": endpoint}
    try:
        async with (
            side("on", plain if counting else silent, env, flags.output_tokens) as on,
            side("off", silent, {}, flags.output_tokens) as off,
        ):
            await window(on, off, 3.0)  # to warm up
            for one in (on, off):
                one.idle = one.cpu_s()
            await asyncio.sleep(IDLE_S)
            for one in (on, off):
                one.idle = {name: (used - one.idle[name]) / IDLE_S for name, used in one.cpu_s().items()}
            pairs = [await window(on, off, flags.seconds) for _ in range(flags.pairs)]
            scrapes = await scrape_ms(on.mesh) if counting else dict.fromkeys(SERVICES, 0.0)
            failed = on.failed + off.failed
    finally:
        collector.kill()
        await collector.wait()
    return told(pairs, scrapes, failed, flags)


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
    parser.add_argument("--on", choices=("both", "metrics", "traces"), default="both")
    parser.add_argument("--pairs", type=int, default=40)
    parser.add_argument("--seconds", type=float, default=2.0, help="of each pair")
    parser.add_argument("--output-tokens", type=int, default=32)
    parser.add_argument("--json", type=Path)
    with tempfile.TemporaryDirectory(prefix="saga-silent-") as folder:
        return uvloop.run(measure(parser.parse_args(), Path(folder)))


if __name__ == "__main__":
    sys.exit(main())
