"""What the whole mesh adds to a request, against the engine asked directly in the same run; and requests a second.

    python bench/gateway_overhead.py [--seconds 4] [--rounds 4] [--json FILE]

40 sessions whose prompts of about 1,100 tokens grow each turn, 8 output tokens, streamed, four engines that answer at
once (a simulated one at great speed), everything on this machine: client, gateway, admission, placement, graph, worker
agents, NATS. At concurrency 1 and 32, in turns with the same requests to the engines themselves, so that both see the
same machine. Wall time is what a client feels, and others share the cores: so CPU time per request stands beside it,
with the rate that it would allow on the machine's cores alone, and how much of the cores others used meanwhile.
"""

import argparse
import asyncio
import json
import os
import sys
import tempfile
import time
from itertools import cycle
from pathlib import Path

import uvloop

from saga.cli.mesh import Mesh, MeshSettings
from saga.load.client import GatewayClient
from saga.load.figures import quantiles
from saga.load.lean_client import LeanClient
from saga.load.mesh_target import all_workers, first_model
from saga.load.process_cpu import cpu_s, per_step_ms

SESSIONS = 40
TURNS = 12
PROMPT_TOKENS = 1_100
TURN_TOKENS = 64
OUTPUT_TOKENS = 8
CONCURRENCY = (1, 32)
GOALS = "goals of the mesh: added P50 <= 2 ms, P99 <= 6 ms; >= 800 requests/s at 32"


class Sessions:
    """Whose turn it is: the one idle longest, a new one after twelve turns."""

    def __init__(self, model: str, run: str, output_tokens: int = OUTPUT_TOKENS) -> None:
        self._output_tokens = output_tokens
        self._model = model
        self._run = run
        self._idle = [(number, 0) for number in range(SESSIONS)]
        self._born = SESSIONS

    def next(self) -> tuple[tuple[int, int], dict[str, str], bytes]:
        """(session and turn, headers, body)."""
        session, turn = self._idle.pop(0)
        name = f"{self._run}-{session}"
        text = f"{name} " + "word " * ((PROMPT_TOKENS + TURN_TOKENS * turn) // 5)
        body = {
            "model": self._model,
            "messages": [{"role": "user", "content": text}],
            "max_tokens": self._output_tokens,
            "stream": True,
        }
        headers = {"X-Saga-Session": name} | ({"X-Saga-Final": "1"} if turn == TURNS - 1 else {})
        return (session, turn), headers, json.dumps(body).encode()

    def over(self, session: int, turn: int) -> None:
        """It has its answer."""
        if turn + 1 < TURNS:
            self._idle.append((session, turn + 1))
        else:
            self._idle.append((self._born, 0))
            self._born += 1


class Way:
    """One way to an answer, and what was seen of it."""

    def __init__(self, urls: list[str], model: str, name: str, output_tokens: int = OUTPUT_TOKENS) -> None:
        self._clients = [LeanClient(url) for url in urls]
        self._next = cycle(self._clients)
        self._sessions = Sessions(model, name, output_tokens)
        self.times_ms: dict[int, list[float]] = {one: [] for one in CONCURRENCY}
        self.per_s: dict[int, list[float]] = {one: [] for one in CONCURRENCY}
        self.failed = 0

    async def part(self, concurrency: int, seconds: float) -> int:
        """So many at all times; returns how many were answered."""
        times_ms: list[float] = []
        began_s = time.monotonic()

        async def user() -> None:
            while time.monotonic() < began_s + seconds:
                (session, turn), headers, body = self._sessions.next()
                asked_s = time.perf_counter()
                try:
                    answer = await next(self._next).post("/v1/chat/completions", headers, body)
                except OSError:
                    self.failed += 1
                else:
                    self.failed += not answer.complete
                    times_ms.append(1000.0 * (time.perf_counter() - asked_s))
                self._sessions.over(session, turn)

        async with asyncio.TaskGroup() as group:
            for _ in range(concurrency):
                group.create_task(user())
        self.times_ms.setdefault(concurrency, []).extend(times_ms)
        self.per_s.setdefault(concurrency, []).append(len(times_ms) / (time.monotonic() - began_s))
        return len(times_ms)

    def close(self) -> None:
        """No more."""
        for client in self._clients:
            client.close()


async def measure(flags: argparse.Namespace) -> int:
    """All rounds, and what they say."""
    with tempfile.TemporaryDirectory(prefix="saga-overhead-") as state_dir:
        settings = MeshSettings(workers=flags.workers, speed=flags.speed, state_dir=Path(state_dir))
        async with Mesh(settings) as mesh:
            await all_workers(mesh.gateway_url, flags.workers)
            async with GatewayClient(mesh.gateway_url) as gateway:
                model = first_model(await gateway.models(), mesh.gateway_url).id
            paths = {
                "direct": Way(list(mesh.engine_urls), model, "d"),
                "mesh": Way([mesh.gateway_url], model, "m"),
            }
            for path in paths.values():
                await path.part(8, 2.0)
                path.times_ms = {one: [] for one in CONCURRENCY}
                path.per_s = {one: [] for one in CONCURRENCY}
            spent: dict[int, list[dict[str, float]]] = {one: [] for one in CONCURRENCY}
            others: list[float] = []
            for _ in range(flags.rounds):
                for concurrency in CONCURRENCY:
                    await paths["direct"].part(concurrency, flags.seconds)
                    before, busy_before_s, began_s = cpu_s(mesh.processes), busy_s(), time.monotonic()
                    answered = await paths["mesh"].part(concurrency, flags.seconds)
                    after, busy_after_s, elapsed_s = cpu_s(mesh.processes), busy_s(), time.monotonic() - began_s
                    spent[concurrency].append(per_step_ms(before, after, answered))
                    ours_s = sum(after.values()) - sum(before.values())
                    others.append((busy_after_s - busy_before_s - ours_s) / elapsed_s)
            for path in paths.values():
                path.close()
    return told(paths, spent, others, flags)


def busy_s() -> float:
    """CPU seconds that all processes of the machine have used; 0 where nobody tells."""
    try:
        user, nice, system, _idle, _io, irq, softirq, *_ = map(int, Path("/proc/stat").read_text().split()[1:9])
    except (OSError, ValueError):
        return 0.0
    return (user + nice + system + irq + softirq) / os.sysconf("SC_CLK_TCK")


def told(
    paths: dict[str, "Way"],
    spent: dict[int, list[dict[str, float]]],
    others: list[float],
    flags: argparse.Namespace,
) -> int:
    """Print and write it; 0 when nothing failed."""
    document: dict[str, object] = {"cores": os.cpu_count(), "others_cores": max(others)}
    print(f"{'':18s} {'P50 ms':>8s} {'P99 ms':>8s} {'requests/s':>11s}   added P50, P99")
    for concurrency in CONCURRENCY:
        of = {name: quantiles(path.times_ms[concurrency]) for name, path in paths.items()}
        for name, path in paths.items():
            seen, rates = of[name], sorted(path.per_s[concurrency])
            p50, p99 = seen.p50 or 0.0, seen.p99 or 0.0
            added = (p50 - (of["direct"].p50 or 0.0), p99 - (of["direct"].p99 or 0.0))
            shown = f"   {added[0]:+.2f}, {added[1]:+.2f}" if name != "direct" else ""
            rate = rates[len(rates) // 2]
            print(f"{name:8s} at {concurrency:2d} {p50:12.2f} {p99:8.2f} {rate:11.0f}{shown} (best {rates[-1]:.0f})")
            document[f"{name}-{concurrency}"] = {"p50_ms": p50, "p99_ms": p99, "per_s": rates, "added_ms": added}
        rounds = spent[concurrency]
        names = sorted({name for one in rounds for name in one})
        costs = {name: sorted(one.get(name, 0.0) for one in rounds)[len(rounds) // 2] for name in names}
        most = sorted(costs.items(), key=lambda item: -item[1])
        all_ms = sum(costs.values())
        alone = 1000.0 * (os.cpu_count() or 1) / all_ms
        print(f"    CPU ms per request: {all_ms:.2f} = " + ", ".join(f"{n} {ms:.2f}" for n, ms in most))
        print(f"    which would be {alone:.0f} requests/s on {os.cpu_count()} cores that nobody else uses")
        document[f"cpu_ms-{concurrency}"] = costs
    print(f"others used {min(others):.1f} to {max(others):.1f} of {os.cpu_count()} cores meanwhile; {GOALS}")
    failed = sum(path.failed for path in paths.values())
    if failed:
        print(f"{failed} requests failed")
    if flags.json is not None:
        flags.json.write_text(json.dumps(document, indent=1) + "\n")
    return 1 if failed else 0


def main() -> int:
    """Parse the flags and run."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--seconds", type=float, default=4.0, help="of each part")
    parser.add_argument("--rounds", type=int, default=4)
    parser.add_argument("--workers", type=int, default=4)
    parser.add_argument("--speed", type=float, default=500.0)
    parser.add_argument("--json", type=Path)
    return uvloop.run(measure(parser.parse_args()))


if __name__ == "__main__":
    sys.exit(main())
