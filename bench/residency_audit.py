"""Is the residency index right, how fresh is it, and how soon is it right again after a death?

    python bench/residency_audit.py [--engine simulated|sglang] [--requests 600] [--rounds 3] [--seed 1] [--json FILE]

One engine with a KV pool that a dozen sessions overflow, its worker agent as a process, a NATS server, and the index as
placement has it. After a random workload every claim is compared with the engine's own account and with
`cached_tokens` of probes; then the stream of events, the agent and the engine are killed in turn, `--rounds` times.
An agent returns when its process starts, which then has to load; an engine when it answers.
Goals: nothing wrong, staleness P99 <= 1 s, right again within 5 s. `sglang` is a real server: needs `make sglang-cpu`.
Exit code 1 when a goal is missed.
"""

import argparse
import asyncio
import json
import math
import sys
import tempfile
from pathlib import Path

import msgspec
from rich.console import Console
from rich.table import Table

from saga.cli.sglang import ports_for
from saga.runtime.nats_server import NatsServer

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "tests" / "support"))
from audited_engine import SimulatedServer  # noqa: E402 - beside the tests that use them too
from residency_audit import Audit, Scene  # noqa: E402
from sglang_server import MODEL, SglangServer, settings  # noqa: E402

STALENESS_P99_S, RIGHT_AGAIN_S = 1.0, 5.0
KV_TOKENS = 4_096
SPEED = 5.0
PROBES = 40


class Figures(msgspec.Struct, kw_only=True):
    """Of one run."""

    engine: str
    requests: int
    audit: Audit
    after_deaths: Audit
    batches: int
    staleness_s: dict[str, float]
    right_again_s: dict[str, list[float]]

    @property
    def reached(self) -> bool:
        """Whether every goal is."""
        slowest_s = max(map(max, self.right_again_s.values()))
        right = self.audit.wrong == self.after_deaths.wrong == 0
        return right and self.staleness_s["p99"] <= STALENESS_P99_S and slowest_s <= RIGHT_AGAIN_S


def percentile(values: list[float], share: float) -> float:
    """The smallest value that `share` of them do not exceed."""
    return sorted(values)[max(0, math.ceil(share * len(values)) - 1)]


async def measure(engine_kind: str, requests: int, rounds: int, seed: int) -> Figures:
    """One run."""
    with tempfile.TemporaryDirectory(prefix="saga-audit-") as name:
        folder = Path(name)
        nats = NatsServer(folder / "nats")
        await nats.start()
        try:
            ports = ports_for(1)[0]
            sizes = {"page_tokens": 16, "kv_tokens": KV_TOKENS}
            server = (
                SglangServer(settings(**sizes), ports, folder)
                if engine_kind == "sglang"
                else SimulatedServer(ports, folder, speed=SPEED, model_name="audited", **sizes)
            )
            async with server as engine, Scene(engine, nats.url, folder, seed) as scene:
                return await _measure(scene, engine_kind, requests, rounds)
        finally:
            await nats.stop()


async def _measure(scene: Scene, engine_kind: str, requests: int, rounds: int) -> Figures:
    await scene.workload.run(scene.engine, requests)
    audit = await scene.audit(PROBES)
    stale_s = list(scene.listener.staleness_s)
    again_s: dict[str, list[float]] = {"event stream": [], "agent": [], "engine": []}
    for _ in range(rounds):
        again_s["event stream"].append(await scene.event_stream_dies())
        from_hello_s = await scene.agent_dies()
        again_s["agent"].append(scene.agent_start_s[-1] + from_hello_s)
        again_s["engine"].append(await scene.engine_dies())
        await scene.workload.run(scene.engine, 10)
    after = await scene.audit(PROBES // 2)
    scene.listener.index.check()
    shares = {"p50": 0.5, "p99": 0.99, "max": 1.0}
    return Figures(
        engine=engine_kind,
        requests=len(scene.workload.said),
        audit=audit,
        after_deaths=after,
        batches=len(stale_s),
        staleness_s={name: round(percentile(stale_s, share), 4) for name, share in shares.items()},
        right_again_s={name: [round(each, 2) for each in values] for name, values in again_s.items()},
    )


def show(figures: Figures) -> None:
    """A table of them."""
    table = Table(title=f"residency audit, {figures.engine} engine, {figures.requests} requests", title_justify="left")
    for name in ("figure", "found", "goal"):
        table.add_column(name, justify="left" if name == "figure" else "right")
    for when, audit in (("after the workload", figures.audit), ("after the deaths", figures.after_deaths)):
        table.add_row(f"{when}: pages claimed, evicted before", f"{audit.claimed_pages}, {audit.evicted_pages}", "")
        table.add_row(f"{when}: probes, tokens they found cached", f"{audit.probes}, {audit.probed_hit_tokens}", "")
        table.add_row(
            f"{when}: pages claimed in vain, not claimed", f"{audit.claimed_in_vain}, {audit.not_claimed}", "0"
        )
        table.add_row(
            f"{when}: probes with less, more than claimed", f"{audit.probed_shorter}, {audit.probed_longer}", "0"
        )
    stale = figures.staleness_s
    table.add_row(
        f"staleness of {figures.batches} deltas, P50, P99, max",
        ", ".join(f"{1e3 * stale[name]:.0f}" for name in ("p50", "p99", "max")) + " ms",
        f"P99 {STALENESS_P99_S:.0f} s",
    )
    for victim, values in figures.right_again_s.items():
        found = ", ".join(f"{each:.2f}" for each in values)
        table.add_row(f"right again after the {victim} returned", f"{found} s", f"{RIGHT_AGAIN_S:.0f} s")
    Console(width=110).print(table)


def main() -> int:
    """Measures and prints."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--engine", choices=("simulated", "sglang"), default="simulated")
    parser.add_argument("--requests", type=int, default=600)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    if options.engine == "sglang" and not MODEL.is_dir():
        print("there is no SGLang to audit: make sglang-cpu", file=sys.stderr)
        return 2
    figures = asyncio.run(measure(options.engine, options.requests, options.rounds, options.seed))
    show(figures)
    if options.json:
        options.json.write_text(json.dumps(msgspec.to_builtins(figures), indent=1) + "\n")
    return int(not figures.reached)


if __name__ == "__main__":
    sys.exit(main())
