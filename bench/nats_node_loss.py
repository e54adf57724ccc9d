"""How long service pauses when one NATS node of three dies: `python bench/nats_node_loss.py [--rounds 3]`.

A mesh of two simulated engines on three NATS nodes, everything that JetStream keeps on each, gets 20 short streamed
steps a second, open loop. Killed with SIGKILL, and kept away for as long as is watched, is the node that leads the
stream of step ends; then it comes back, and once all three are level again the next round begins. The pause is the
longest time that any step sent in the 25 s after a kill waited for its first token, less the median of calm times; the
stream's is the time until somebody else leads it. Figure to reach: 10 s for clients, no failed step.
"""

import argparse
import asyncio
import contextlib
import json
import os
import statistics
import sys
import tempfile
import time
from pathlib import Path

import aiohttp
from nats.js.errors import APIError
from recovery import Load

from saga.cli.mesh import Mesh, MeshSettings
from saga.runtime.bus_nats import NatsBus
from saga.runtime.errors import StartError

sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "support"))
from nats_cluster import NODES, Cluster

STREAM = "STEPS-main"
LIMIT_S = 10.0
WATCH_S = 25.0
LEVEL_WITHIN_S = 60.0


async def bus_of(cluster: Cluster) -> NatsBus:
    """Once the nodes have chosen who leads them."""
    async with asyncio.timeout(LEVEL_WITHIN_S):
        while True:
            with contextlib.suppress(StartError):
                return await NatsBus.connect(cluster.url, name="bench", replicas=NODES)


async def leads(bus: NatsBus) -> str:
    """The node that leads the stream; empty while none does, or none says so."""
    try:
        info = await bus._client.jetstream().stream_info(STREAM)  # noqa: SLF001 - a bus has no need to know
    except (APIError, OSError, TimeoutError):
        return ""
    return (info.cluster.leader or "") if info.cluster is not None else ""


async def level(bus: NatsBus) -> None:
    """Returns when both followers have all that the stream has."""
    async with asyncio.timeout(LEVEL_WITHIN_S):
        while True:
            with contextlib.suppress(APIError, OSError, TimeoutError):
                info = await bus._client.jetstream().stream_info(STREAM)  # noqa: SLF001 - as above
                followers = info.cluster.replicas or [] if info.cluster is not None else []
                if len(followers) == NODES - 1 and all(one.current and not one.offline for one in followers):
                    return
            await asyncio.sleep(0.2)


async def lose(cluster: Cluster, load: Load, calm_s: float) -> dict[str, float]:
    """One round."""
    bus = await bus_of(cluster)
    try:
        await level(bus)
        leader = await leads(bus)
    finally:
        await bus.close()
    failed, killed_s = load.failed, time.monotonic()
    await cluster.kill(cluster.node_named(leader))
    bus = await bus_of(cluster)
    try:
        while (await leads(bus)) in ("", leader):  # noqa: ASYNC110 - nobody tells
            await asyncio.sleep(0.1)
        elected_s = time.monotonic() - killed_s
    finally:
        await bus.close()
    await asyncio.sleep(max(0.0, killed_s + WATCH_S - time.monotonic()))
    waits = [wait_s for sent_s, wait_s in load.waits if killed_s - 1.0 < sent_s < killed_s + WATCH_S]
    waits += [time.monotonic() - sent_s for sent_s in load.waiting.values() if sent_s > killed_s - 1.0]
    await cluster.start()
    return {"pause_s": max(waits) - calm_s, "elected_s": elected_s, "failed_steps": load.failed - failed}


async def measure(rounds: int) -> list[dict[str, float]]:
    """All rounds."""
    with tempfile.TemporaryDirectory(prefix="saga-node-loss-") as folder:
        cluster = Cluster(Path(folder))
        try:
            await cluster.start()
            await (await bus_of(cluster)).close()
            settings = MeshSettings(workers=2, page_tokens=16, state_dir=Path(folder) / "mesh", nats_url=cluster.url)
            timeout, many = aiohttp.ClientTimeout(total=60), aiohttp.TCPConnector(limit=0)
            async with (
                Mesh(settings, environ=os.environ | {"SAGA_NATS_REPLICAS": str(NODES)}) as mesh,
                aiohttp.ClientSession(timeout=timeout, connector=many) as http,
            ):
                async with http.get(f"{mesh.gateway_url}/v1/models") as response:
                    model = (await response.json())["data"][0]["id"]
                load = Load(mesh.gateway_url, model, http)
                running = asyncio.create_task(load.run())
                await asyncio.sleep(8.0)
                calm_s = statistics.median(wait_s for _, wait_s in load.waits)
                seen = [await lose(cluster, load, calm_s) for _ in range(rounds)]
                running.cancel()
                await asyncio.gather(running, return_exceptions=True)
        finally:
            await cluster.close()
    return seen


def main() -> int:
    """Prints a line a round; exit code 1 if a step failed, or a pause was longer than it may be."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", type=Path)
    flags = parser.parse_args()
    seen = asyncio.run(measure(flags.rounds))
    for one in seen:
        print(
            f"clients paused {one['pause_s']:.2f} s (limit {LIMIT_S:g} s), the stream had a new leader after "
            f"{one['elected_s']:.2f} s, {one['failed_steps']:.0f} steps failed"
        )
    if flags.json is not None:
        flags.json.write_text(json.dumps(seen, indent=1) + "\n")
    return int(any(one["failed_steps"] or one["pause_s"] > LIMIT_S for one in seen))


if __name__ == "__main__":
    sys.exit(main())
