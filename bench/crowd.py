"""2,048 workflows at once on a mesh of 8 simulated engines: whether all are answered and no lease is left behind.

Starts a mesh of its own (the processes of `saga up`), lets all workflows begin together, each with a few steps that
extend one another, and then asks placement what became of every lease it granted. Everything shares this machine's
cores, so the times say nothing about a cluster's. Run: python bench/crowd.py --json FILE
"""

import argparse
import asyncio
import os
import sys
import tempfile
from pathlib import Path

import msgspec
import orjson
import uvloop
from rich.console import Console

from saga.cli.mesh import Mesh, MeshSettings
from saga.load.client import GatewayClient
from saga.load.crowd import Crowd, Outcome, Shape
from saga.load.mesh_metrics import ANY_PORT, leases_of, metrics_of
from saga.load.mesh_target import all_workers, first_model
from saga.load.process_cpu import cpu_s, per_step_ms
from saga.runtime.descriptors import lift_file_limit

SETTLED_WITHIN_S = 15.0
TOLD = ("workflows", "active_workflows", "waiting_steps")


async def measure(flags: argparse.Namespace, console: Console) -> int:
    """0 if every workflow was answered in full and every lease has ended."""
    lift_file_limit()
    shape = Shape(workflows=flags.workflows, steps=flags.steps, first_tokens=flags.first_tokens, gap_s=flags.gap)
    with tempfile.TemporaryDirectory(prefix="saga-crowd-") as state_dir:
        settings = MeshSettings(
            workers=flags.workers,
            profile=flags.profile,
            speed=flags.speed,
            state_dir=Path(state_dir),
            env={"placement": ANY_PORT, "admission": ANY_PORT},
            ready_within_s=120.0,
        )
        async with Mesh(settings) as mesh:
            await all_workers(mesh.gateway_url, flags.workers)
            async with GatewayClient(mesh.gateway_url) as client:
                model = first_model(await client.models(), mesh.gateway_url).id
                watching = asyncio.create_task(_watch(mesh))
                cpu_before = cpu_s(mesh.processes)
                outcome = await Crowd(client, model, shape, flags.seed).run()
                cpu = per_step_ms(cpu_before, cpu_s(mesh.processes), max(1, outcome.steps))
                watching.cancel()
            leases = await _settled(mesh)
            restarts = {name: count for name, count in mesh.restarts.items() if count}
    leaked = leases["granted"] - sum(value for end, value in leases.items() if end not in ("granted", "live"))
    show(console, flags, outcome, leases, leaked)
    shares = ", ".join(f"{name} {used_ms:.2f}" for name, used_ms in cpu.items())
    console.print(f"CPU ms per step: {sum(cpu.values()):.2f} = {shares}; processes that died: {restarts or 'none'}")
    if flags.json is not None:
        document = {
            "format": 1,
            "cores": os.cpu_count(),
            "settings": {name: value for name, value in vars(flags).items() if name != "json"},
            "outcome": msgspec.to_builtins(outcome),
            "leases": leases,
            "leaked": leaked,
            "cpu_ms_per_step": cpu,
            "restarts": restarts,
        }
        flags.json.write_bytes(orjson.dumps(document, option=orjson.OPT_INDENT_2) + b"\n")
    return 0 if outcome.completed == outcome.workflows and not leaked and not restarts else 1


async def _watch(mesh: Mesh) -> None:
    """A line to stderr now and then: such a run takes minutes."""
    while True:
        await asyncio.sleep(15.0)
        both = [await metrics_of(mesh, f"admission-{number}") for number in range(2)]
        told = {name: sum(metrics[f"saga_admission_{name}"] for metrics in both) for name in TOLD}
        sys.stderr.write(f"{told}\n")


async def _settled(mesh: Mesh) -> dict[str, float]:
    """What placement says of leases, once none is out or some stay out for too long."""
    for _ in range(int(2 * SETTLED_WITHIN_S)):
        leases = await leases_of(mesh)
        if leases["live"] == 0:
            break
        await asyncio.sleep(0.5)
    return leases


def show(
    console: Console, flags: argparse.Namespace, outcome: Outcome, leases: dict[str, float], leaked: float
) -> None:
    """What there is to say."""
    done = outcome.completed / outcome.workflows
    console.print(
        f"{outcome.workflows} workflows of {flags.steps} steps, from {flags.first_tokens} tokens on; {flags.workers} "
        f"engines {flags.profile} at speed "
        f"{flags.speed:g}, everything on {os.cpu_count()} cores: {done:.2%} completed (target 100 %), {outcome.steps} "
        f"steps in {outcome.elapsed_s:.0f} s, {outcome.most_open} workflows open at once"
    )
    console.print(
        f"steps told to come again: {outcome.refused_steps}; waited for: {outcome.waited}; "
        f"errors: {outcome.errors or 'none'}"
    )
    for name, times in (("workflow", outcome.tct_s), ("step", outcome.step_s)):
        cells = ["-" if value is None else f"{value:.1f}" for value in (times.p50, times.p95, times.p99)]
        console.print(f"{name} P50, P95, P99: {', '.join(cells)} s")
    told = ", ".join(f"{end} {value:.0f}" for end, value in leases.items())
    console.print(f"leases: {told}; leaked {leaked:.0f} (target 0)")


def main() -> int:
    """Parse the flags and run."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--workflows", type=int, default=2_048)
    parser.add_argument("--steps", type=int, default=4, help="of each")
    parser.add_argument("--first-tokens", type=int, default=8_192, help="of its first prompt: how much KV is short")
    parser.add_argument("--gap", type=float, default=1.0, help="mean seconds between two of its steps")
    parser.add_argument("--workers", type=int, default=8)
    parser.add_argument("--profile", default="h100x1-llama3-8b")
    parser.add_argument("--speed", type=float, default=4.0)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", type=Path, metavar="FILE")
    return uvloop.run(measure(parser.parse_args(), Console()))


if __name__ == "__main__":
    sys.exit(main())
