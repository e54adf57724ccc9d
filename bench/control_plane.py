"""What the control plane costs: latency at a fixed rate, its floor, and the highest rate it keeps up with.

Starts a mesh of its own and sends it steps of 2K prompt and 32 output tokens from agent sessions, in two parts:
  open loop    Poisson arrivals at --rate steps/s: control-plane latency as the gateway states it (last byte of the
               request read to first byte written to the engine), over steps that waited for nothing. Beside it, in the
               same seconds, its floor: three NATS publishes, each sent when the one before has arrived.
  closed loop  --inflight steps at all times: steps/s answered in full.
Simulated engines run fast enough not to be what is measured. Run: python bench/control_plane.py --json FILE
"""

import argparse
import asyncio
import os
import sys
import tempfile
import time
from pathlib import Path
from random import Random

import msgspec
import nats
import orjson
import uvloop
from nats.aio.client import Client as Nats
from nats.aio.msg import Msg
from rich.console import Console
from rich.table import Table

from saga.cli.mesh import Mesh, MeshSettings
from saga.load.client import GatewayClient
from saga.load.figures import Quantiles, quantiles
from saga.load.lean_client import LeanClient
from saga.load.mesh_target import Target, all_workers, first_model, worst_lag
from saga.load.process_cpu import cpu_s, per_step_ms
from saga.load.steady import OUTPUT_TOKENS, PROMPT_TOKENS, SESSION_STEPS, Agents, Driver, Part

FLOOR_HZ = 10
FLOOR_PAYLOAD_BYTES = 512  # about a StepReady of a step that adds 512 tokens
WARM_UP_S = 3.0


class Floor:
    """Three chained publishes over three connections, a few times a second beside the load."""

    def __init__(self, connections: list[Nats]) -> None:
        self._connections = connections
        self._arrived = asyncio.Event()
        self.times_ms: list[float] = []

    async def open(self) -> None:
        """Each connection passes on what the one before sent; the first hears the end."""
        first, second, third = self._connections

        async def second_hop(message: Msg) -> None:
            await second.publish("floor.2", message.data)

        async def third_hop(message: Msg) -> None:
            await third.publish("floor.3", message.data)

        async def home(_: Msg) -> None:
            self._arrived.set()

        await second.subscribe("floor.1", cb=second_hop)
        await third.subscribe("floor.2", cb=third_hop)
        await first.subscribe("floor.3", cb=home)
        for connection in self._connections:
            await connection.flush()
            await connection.flush()

    async def measure(self) -> None:
        """Until cancelled."""
        payload = b"x" * FLOOR_PAYLOAD_BYTES
        while True:
            self._arrived.clear()
            started_s = time.perf_counter()
            await self._connections[0].publish("floor.1", payload)
            await self._arrived.wait()
            self.times_ms.append((time.perf_counter() - started_s) * 1000)
            await asyncio.sleep(1 / FLOOR_HZ)


async def measure(flags: argparse.Namespace, console: Console) -> int:
    """Runs both parts; 0 if no step failed."""
    with tempfile.TemporaryDirectory(prefix="saga-control-plane-") as state_dir:
        settings = MeshSettings(
            workers=flags.workers, profile=flags.profile, speed=flags.speed, system="saga", state_dir=Path(state_dir)
        )
        async with Mesh(settings) as mesh:
            await all_workers(mesh.gateway_url, flags.workers)
            async with GatewayClient(mesh.gateway_url) as gateway:
                model = first_model(await gateway.models(), mesh.gateway_url).id
            cpu_before = cpu_s(mesh.processes)
            await asyncio.sleep(WARM_UP_S)
            # Per real second instead of per step: what the mesh uses with nothing to do.
            cpu_idle = per_step_ms(cpu_before, cpu_s(mesh.processes), int(WARM_UP_S))
            client = LeanClient(mesh.gateway_url)
            driver = Driver(client, Agents(model, flags.seed))
            await driver.open_loop(flags.rate, WARM_UP_S, Random(flags.seed))
            connections = [await nats.connect(mesh.nats_url) for _ in range(3)]
            floor = Floor(connections)
            await floor.open()
            measuring = asyncio.create_task(floor.measure())
            cpu_before = cpu_s(mesh.processes)
            open_loop = await driver.open_loop(flags.rate, flags.seconds, Random(flags.seed + 1))
            cpu_at_rate = per_step_ms(cpu_before, cpu_s(mesh.processes), open_loop.steps)
            measuring.cancel()
            for connection in connections:
                await connection.close()
            lag = await worst_lag(Target(mesh.gateway_url, tuple(mesh.engine_urls)))
            cpu_before = cpu_s(mesh.processes)
            closed_loop = await driver.closed_loop(flags.inflight, flags.seconds)
            cpu_at_full = per_step_ms(cpu_before, cpu_s(mesh.processes), closed_loop.steps)
            client.close()
    floor_ms = quantiles(floor.times_ms)
    show(console, flags, open_loop, closed_loop, floor_ms, lag)
    costs = (
        ("second while idle", cpu_idle),
        (f"step at {flags.rate:g} steps/s", cpu_at_rate),
        ("step at full load", cpu_at_full),
    )
    for when, spent in costs:
        shares = ", ".join(f"{name} {used_ms:.2f}" for name, used_ms in spent.items())
        console.print(f"CPU ms per {when}: {sum(spent.values()):.2f} = {shares}")
    if flags.json is not None:
        document = {
            "format": 1,
            "cores": os.cpu_count(),
            "settings": {name: value for name, value in vars(flags).items() if name != "json"},
            "prompt_tokens": PROMPT_TOKENS,
            "output_tokens": OUTPUT_TOKENS,
            "open_loop": msgspec.to_builtins(open_loop),
            "floor_ms": msgspec.to_builtins(floor_ms),
            "closed_loop": msgspec.to_builtins(closed_loop),
            "cpu_ms_per_s_idle": cpu_idle,
            "cpu_ms_per_step_open_loop": cpu_at_rate,
            "cpu_ms_per_step_closed_loop": cpu_at_full,
            "engine_lag_p99_fraction": lag,
        }
        flags.json.write_bytes(orjson.dumps(document, option=orjson.OPT_INDENT_2) + b"\n")
    return 1 if open_loop.failed or closed_loop.failed else 0


def show(
    console: Console,
    flags: argparse.Namespace,
    open_loop: Part,
    closed_loop: Part,
    floor_ms: Quantiles,
    lag: float | None,
) -> None:
    """Both parts with their targets."""
    console.print(
        f"{flags.workers} engines {flags.profile} at speed {flags.speed:g}, {PROMPT_TOKENS} prompt and {OUTPUT_TOKENS} "
        f"output tokens, sessions of {SESSION_STEPS} steps, everything on {os.cpu_count()} cores"
    )
    table = Table()
    for column in ("", "P50", "P95", "P99", "target"):
        table.add_column(column, justify="left" if not column else "right")

    def row(name: str, measured: Quantiles, target: str) -> None:
        cells = ["-" if value is None else f"{value:.2f}" for value in (measured.p50, measured.p95, measured.p99)]
        table.add_row(name, *cells, target)

    row(f"control plane at {flags.rate:g} steps/s, ms", open_loop.control_ms, "P50 <= 4, P99 <= 15")
    row("its floor: three chained NATS publishes, ms", floor_ms, "")
    row(f"whole answer at {flags.rate:g} steps/s, ms", open_loop.answer_ms, "")
    row(f"control plane with {flags.inflight} in flight, ms", closed_loop.control_ms, "")
    console.print(table)
    console.print(
        f"sustained: {closed_loop.steps_per_s:.1f} steps/s over {closed_loop.elapsed_s:.0f} s (target >= 150); "
        f"steps {open_loop.steps} + {closed_loop.steps}, failed {open_loop.failed} + {closed_loop.failed}; "
        f"waited for nothing {open_loop.waited_for_nothing} of {open_loop.steps}; "
        f"engine lag P99 {'unknown' if lag is None else format(lag, '.1%')} of a step at {flags.rate:g} steps/s"
    )


def main() -> int:
    """Parse the flags and run."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--rate", type=float, default=50.0, help="open-loop steps/s")
    parser.add_argument("--inflight", type=int, default=32, help="closed-loop steps at all times")
    parser.add_argument("--seconds", type=float, default=20.0, help="real seconds of each part")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--profile", default="h100x1-llama3-8b")
    parser.add_argument("--speed", type=float, default=4.0)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", type=Path, metavar="FILE")
    return uvloop.run(measure(parser.parse_args(), Console()))


if __name__ == "__main__":
    sys.exit(main())
