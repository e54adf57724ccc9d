"""Ten minutes of a live mesh at 80 % of what it can do: memory of every process, leases, failed steps.

    python bench/soak_live.py [--seconds 600] [--workers 2] [--speed 0.1] [--json FILE]

Starts a mesh of its own (the processes of `saga up`), finds out in closed loop how many steps a second its engines
answer, then lets four times as many users send 80 % of that, at random, from sessions of ten steps; a step that is due
before its user's last one is answered is left out, so that a machine with other things to do does not pile them up.
Engines are so slow that they limit, not the cores. Every ten seconds the resident memory of each process is read.
Verdict: by the least-squares line through the second half, as bytes for each step answered meanwhile. What remembers
the past up to a number that ten minutes do not reach still grows here: ids of ended steps (20,000), what the leading
placement and admission keep of recent steps for `saga why` (10,000 stories, of some 4 and 2 KiB), pages of engines that
are not full. `make soak` shows that they end. So a process leaks if it grows by more than --most-bytes a step. NATS is
told and not judged: it keeps its streams, limited by age and size, on disk and as much of them in memory as it likes.
Exit code 1 for a leak, a failed step, a lease without an end, or a process that died.
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
import orjson
import uvloop
from rich.console import Console
from rich.table import Table

from saga.cli.mesh import Mesh, MeshSettings
from saga.load.client import GatewayClient
from saga.load.lean_client import LeanClient
from saga.load.mesh_metrics import ANY_PORT, leases_of
from saga.load.mesh_target import Target, all_workers, first_model, worst_lag
from saga.load.process_memory import Memory, sampled
from saga.load.steady import OUTPUT_TOKENS, PROMPT_TOKENS, SESSION_STEPS, Agents, Driver, Part

LOAD = 0.8
NATS = "nats"
PEAK_FOR_S = 30.0
SETTLE_S = 15.0
MORE_USERS = 4  # than were in flight at the peak: as many would be busy half of the time, and leave out a fifth


async def measure(flags: argparse.Namespace, console: Console) -> int:
    """0 if nothing leaked or failed."""
    with tempfile.TemporaryDirectory(prefix="saga-soak-") as state_dir:
        settings = MeshSettings(
            workers=flags.workers,
            profile=flags.profile,
            speed=flags.speed,
            state_dir=Path(state_dir),
            env={"placement": ANY_PORT},
            ready_within_s=120.0,
        )
        async with Mesh(settings) as mesh:
            await all_workers(mesh.gateway_url, flags.workers)
            async with GatewayClient(mesh.gateway_url) as gateway:
                model = first_model(await gateway.models(), mesh.gateway_url).id
            client = LeanClient(mesh.gateway_url)
            driver = Driver(client, Agents(model, flags.seed))
            await driver.closed_loop(flags.inflight, PEAK_FOR_S / 3)
            peak = await driver.closed_loop(flags.inflight, PEAK_FOR_S)
            rate = LOAD * peak.steps_per_s
            console.print(f"peak {peak.steps_per_s:.1f} steps/s; {flags.seconds:.0f} s at {rate:.1f}")
            sampling = asyncio.create_task(sampled(lambda: mesh.processes, flags.every))
            soaked = await driver.paced(MORE_USERS * flags.inflight, rate, flags.seconds, Random(flags.seed))
            sampling.cancel()
            memory = await sampling
            client.close()
            await asyncio.sleep(SETTLE_S)
            leases = await leases_of(mesh)
            lag = await worst_lag(Target(mesh.gateway_url, tuple(mesh.engine_urls)))
            restarts = {name: count for name, count in mesh.restarts.items() if count}
    return _verdict(flags, console, peak, soaked, memory, leases, lag, restarts)


def _verdict(
    flags: argparse.Namespace,
    console: Console,
    peak: Part,
    soaked: Part,
    memory: list[Memory],
    leases: dict[str, float],
    lag: float | None,
    restarts: dict[str, int],
) -> int:
    table = Table()
    for column in ("process", "RSS at 1 min, MiB", "half way", "end", "2nd half, MiB/h", "bytes/step", ""):
        table.add_column(column, justify="left" if column in ("process", "") else "right")
    leaks = []
    for one in memory:
        per_step = one.slope_bytes_per_s / max(1e-9, soaked.steps_per_s)
        grows = per_step > flags.most_bytes and one.name != NATS
        leaks += [one.name] * grows
        mib = [f"{one.at(share) / 2**20:.1f}" for share in (60.0 / flags.seconds, 0.5, 1.0)]
        slope = f"{one.slope_bytes_per_s * 3_600 / 2**20:.1f}"
        table.add_row(one.name, *mib, slope, f"{per_step:.0f}", "grows" if grows else "")
    leaked = leases["granted"] - sum(value for end, value in leases.items() if end != "granted")
    failed = soaked.failed + peak.failed
    console.print(table)
    told = ", ".join(f"{end} {value:.0f}" for end, value in leases.items())
    answers = soaked.answer_ms
    share = soaked.steps_per_s / peak.steps_per_s
    console.print(f"{soaked.steps_per_s:.1f} steps/s, {share:.0%} of the peak")
    console.print(f"steps {soaked.steps}, failed {failed}; answers P50 {answers.p50:.0f} ms, P99 {answers.p99:.0f} ms")
    console.print(f"leases: {told}; leaked {leaked:.0f}; processes that died: {restarts or 'none'}")
    console.print(f"memory: {'grows without end: ' + ', '.join(leaks) if leaks else 'no leak'}")
    if flags.json is not None:
        document = {
            "format": 1,
            "at": time.strftime("%Y-%m-%dT%H:%MZ", time.gmtime()),
            "cores": os.cpu_count(),
            "settings": {name: value for name, value in vars(flags).items() if name != "json"},
            "step": {"prompt_tokens": PROMPT_TOKENS, "output_tokens": OUTPUT_TOKENS, "session_steps": SESSION_STEPS},
            "peak": msgspec.to_builtins(peak),
            "soaked": msgspec.to_builtins(soaked),
            "memory": [msgspec.to_builtins(one) for one in memory],
            "leases": leases,
            "leaked": leaked,
            "engine_lag_p99_fraction": lag,
            "restarts": restarts,
        }
        flags.json.write_bytes(orjson.dumps(document, option=orjson.OPT_INDENT_2) + b"\n")
    return 1 if leaks or failed or leaked or leases["live"] or restarts else 0


def main() -> int:
    """Parse the flags and run."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--seconds", type=float, default=600.0)
    parser.add_argument("--every", type=float, default=10.0, help="seconds between two looks at memory")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--profile", default="h100x1-llama3-8b")
    parser.add_argument("--speed", type=float, default=0.1, help="of the engines; so slow that they limit")
    parser.add_argument(
        "--inflight", type=int, default=24, help="users, who send all the time while the peak is looked for"
    )
    parser.add_argument("--most-bytes", type=float, default=6_144.0, help="a step, of growth in the second half")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", type=Path, metavar="FILE")
    return uvloop.run(measure(parser.parse_args(), Console()))


if __name__ == "__main__":
    sys.exit(main())
