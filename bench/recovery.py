"""How long service pauses when a process is killed: `python bench/recovery.py [--rounds N] [--json FILE]`.

A mesh of two simulated engines gets 20 short streamed steps a second, open loop. Each victim is killed with SIGKILL in
each round; the pause is the longest time that any step sent in the 12 s after a kill waited for its first token, less
the median of calm times. Figures to reach: 2 s for every service, 10 s for NATS, no failed step.
"""

import argparse
import asyncio
import json
import statistics
import sys
import tempfile
import time
from pathlib import Path

import aiohttp
import msgspec

from saga.cli.mesh import Mesh, MeshSettings
from saga.contract.subjects import kv_bucket
from saga.runtime.bus_nats import NatsBus
from saga.runtime.leader import Lease

VICTIMS = ("engine-0", "worker-0", "graph", "placement", "admission", "nats")
LIMIT_S = {"nats": 10.0}
RATE_PER_S = 20.0
WATCH_S = 12.0


class Load:
    """An open loop of short steps, with the time each waited for its first token."""

    def __init__(self, url: str, model: str, http: aiohttp.ClientSession) -> None:
        self._url, self._model, self._http = url, model, http
        self.waits: list[tuple[float, float]] = []  # sent at, seconds to the first token
        self.waiting: dict[int, float] = {}  # steps without a first token yet: sent at
        self.failed = 0
        self._number = 0

    async def run(self) -> None:
        """Until cancelled."""
        async with asyncio.TaskGroup() as group:
            while True:
                self._number += 1
                group.create_task(self._step(self._number))
                await asyncio.sleep(1 / RATE_PER_S)

    async def _step(self, number: int) -> None:
        sent_s = self.waiting[number] = time.monotonic()
        body = {"model": self._model, "prompt": f"{number} " * 200, "max_tokens": 8, "stream": True}
        headers = {"X-Saga-Session": f"s{number % 40}"}
        try:
            async with self._http.post(f"{self._url}/v1/completions", json=body, headers=headers) as response:
                first = await response.content.readline()
                self.waits.append((sent_s, time.monotonic() - sent_s))
                del self.waiting[number]
                rest = await response.content.read()
                if response.status != 200 or b"[DONE]" not in first + rest or b'"error"' in first + rest:
                    self.failed += 1
        except (aiohttp.ClientError, TimeoutError):
            self.waiting.pop(number, None)
            self.failed += 1


async def leader(mesh: Mesh, service: str) -> str:
    """The process that leads."""
    bus = await NatsBus.connect(mesh.nats_url, name="bench", cell=mesh.settings.cell)
    try:
        entry = await (await bus.kv(kv_bucket(mesh.settings.cell, "leaders"))).get(service)
        return msgspec.msgpack.decode(entry.value, type=Lease).holder if entry else f"{service}-0"
    finally:
        await bus.close()


async def measure(rounds: int) -> dict[str, dict[str, object]]:
    """Kill each victim `rounds` times under load."""
    results: dict[str, dict[str, object]] = {}
    with tempfile.TemporaryDirectory(prefix="saga-recovery-") as folder:
        settings = MeshSettings(workers=2, page_tokens=16, state_dir=Path(folder))
        async with (
            Mesh(settings) as mesh,
            aiohttp.ClientSession(
                timeout=aiohttp.ClientTimeout(total=60), connector=aiohttp.TCPConnector(limit=0)
            ) as http,
        ):
            async with http.get(f"{mesh.gateway_url}/v1/models") as response:
                model = (await response.json())["data"][0]["id"]
            load = Load(mesh.gateway_url, model, http)
            running = asyncio.create_task(load.run())
            await asyncio.sleep(4.0)
            calm_s = statistics.median(wait_s for _, wait_s in load.waits)
            for victim in VICTIMS:
                pauses, failed_before = [], load.failed
                for _ in range(rounds):
                    name = await leader(mesh, victim) if victim in ("placement", "admission") else victim
                    killed_s = time.monotonic()
                    mesh.kill(name)
                    await asyncio.sleep(WATCH_S)
                    await mesh.wait_ready(30)
                    pauses.append(max(w for sent_s, w in load.waits if sent_s > killed_s - 1.0) - calm_s)
                results[victim] = {
                    "rounds": rounds,
                    "pause_s": {"median": statistics.median(pauses), "max": max(pauses)},
                    "limit_s": LIMIT_S.get(victim, 2.0),
                    "failed_steps": load.failed - failed_before,
                }
            running.cancel()
            await asyncio.gather(running, return_exceptions=True)
    return results


def main() -> int:
    """Prints a table; exit code 1 if a step failed."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    results = asyncio.run(measure(args.rounds))
    print(f"{'killed':<12}{'pause median':>14}{'pause max':>12}{'limit':>8}{'failed steps':>14}")
    for victim, result in results.items():
        pause = result["pause_s"]
        assert isinstance(pause, dict)
        print(
            f"{victim:<12}{pause['median']:>12.2f} s{pause['max']:>10.2f} s{result['limit_s']:>6.0f} s"
            f"{result['failed_steps']:>14}"
        )
    if args.json:
        args.json.write_text(json.dumps(results, indent=1) + "\n")
    return int(any(result["failed_steps"] for result in results.values()))


if __name__ == "__main__":
    sys.exit(main())
