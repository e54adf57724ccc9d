"""The same tasks live and simulated: `python bench/live_vs_sim.py [--json FILE]`, two to three minutes.

Live: processes, NATS, simulated engines in real time behind HTTP, driven as by `saga bench live`. Simulated: the same
plan through `saga.sim`, with the delays that the services recorded in that very run. Goals: mean TCT within 10 %, hit
rate within 2 points, and of several systems the same order wherever the laboratory has them more than 5 % apart
(`--workers 8 --limit 80 --systems round-robin,least-loaded,prefix-aware,session-affinity,saga`; `--only-simulated` for
a look at what it will say). A live run whose engines were late (`lag`) says little about any of them.
"""

import argparse
import asyncio
import os
import re
import shutil
import sys
import tempfile
from pathlib import Path
from statistics import mean

import aiohttp
import orjson
from msgspec import Struct, to_builtins
from rich import box
from rich.console import Console
from rich.table import Table

from saga.contract.ids import RootId, TenantId, scoped
from saga.engine.profile import Profile, load_profile
from saga.load.bench_live import load_sessions, plan_settings
from saga.load.client import GatewayClient
from saga.load.figures import MAX_LAG_FRACTION, Capacity, Figures, figures
from saga.load.mesh_target import Engines, Target, check_systems, first_model, own_engines, own_mesh, worst_lag
from saga.load.plan import Plan
from saga.load.planner import build_plan
from saga.load.replay import Replay, Replayed, ReplaySettings
from saga.load.settings import CODING_FITTED, CODING_SESSIONS, SWE_BENCH, WORKLOADS, BenchSettings, recorded_sessions
from saga.load.trace import Session
from saga.sim import fitted_sessions
from saga.sim.measured import Measured, measure
from saga.sim.ordering import pairs_apart, told
from saga.sim.planned import PlannedResult, PlannedRun, simulate_plan
from saga.sim.world import Delays

TCT_WITHIN = 0.10
HIT_RATE_WITHIN = 0.02
TENANT = TenantId("default")  # of a mesh without a file of tenants


class Overheads(Struct, frozen=True):
    """One-way and per-step times of a live run, in real seconds: means, with what they were measured from."""

    message_s: float  # one hop of a step's way to its grant
    engine_s: float  # one way between gateway and engine, chunks and lateness of the engine's timer included
    client_s: float  # per step: HTTP to the gateway and back, parsing, hashing, the load generator itself
    measured: Measured
    engine_own_s: float  # of a step, as the engines measured it


class Comparison(Struct, frozen=True):
    """One system. Times in engine seconds. `assumed`: with the delays that the laboratory uses elsewhere."""

    system: str
    live_tct_s: float
    sim_tct_s: float
    assumed_tct_s: float
    live_hit_rate: float
    sim_hit_rate: float
    assumed_hit_rate: float
    lag: float
    passed: bool
    live: Figures
    overheads: Overheads

    @property
    def tct_off(self) -> float:
        """Simulated over live, less one."""
        return self.sim_tct_s / self.live_tct_s - 1

    @property
    def hit_rate_off(self) -> float:
        """Simulated less live."""
        return self.sim_hit_rate - self.live_hit_rate


async def compare(settings: BenchSettings, progress_to: Console) -> list[Comparison]:
    """Each system in turn."""
    sessions, _ = load_sessions(settings, fitted_sessions.generate)
    engines = own_engines(settings)
    plan = build_plan(sessions, plan_settings(settings, engines))
    peak_tokens = sum(task.peak_tokens for task in plan.tasks)
    kv_tokens = engines.workers * engines.kv_tokens // engines.shrink
    progress_to.print(
        f"{len(plan.tasks)} tasks of {plan.steps} steps; largest contexts together {peak_tokens / kv_tokens:.2f} x KV; "
        f"{engines.workers} x {engines.profile}, speed {engines.speed:g}, shrink {engines.shrink}"
    )
    return [await _compare(settings, engines, plan, sessions, system, progress_to) for system in settings.systems]


async def _compare(
    settings: BenchSettings, engines: Engines, plan: Plan, sessions: list[Session], system: str, progress_to: Console
) -> Comparison:
    folder = Path(tempfile.mkdtemp(prefix="saga-recordings-"))
    os.environ["SAGA_RECORD"] = str(folder)  # the mesh's processes inherit it
    try:
        async with own_mesh(settings, engines, system) as target:
            progress_to.print(f"{system}: live ...")
            run = await _replay(settings, engines, plan, sessions, target)
            lag = await worst_lag(target) or 0.0
            engine_own_s = await _engine_seconds(target) / engines.speed
        overheads = _overheads(run, measure(folder), engine_own_s)
    finally:
        del os.environ["SAGA_RECORD"]
        shutil.rmtree(folder, ignore_errors=True)
    progress_to.print(f"{system}: simulated ...")
    live = figures(system, run, engines.speed, Capacity(engines.workers, 0), lag)

    starts_s = {
        task.session_id: overheads.measured.starts_s[RootId(scoped(TENANT, task.session_id))] for task in plan.tasks
    }

    def simulated(delays: Delays, client_s: float) -> PlannedResult:
        return simulate_plan(
            plan,
            sessions,
            PlannedRun(
                system=system,
                profile=_profile(settings, engines),
                workers=engines.workers,
                speed=engines.speed,
                delays=delays,
                client_s=client_s,
                starts_s=starts_s if settings.concurrency is None else None,
                concurrency=settings.concurrency,
                seed=settings.seed,
            ),
        )

    sim = simulated(Delays(overheads.message_s, overheads.engine_s), overheads.client_s)
    assumed = simulated(Delays(), 0.0)
    live_tct_s, live_hit_rate = live.tct_s.mean or 0.0, live.hit_rate or 0.0
    return Comparison(
        system=system,
        live_tct_s=live_tct_s,
        sim_tct_s=sim.mean_tct_s,
        assumed_tct_s=assumed.mean_tct_s,
        live_hit_rate=live_hit_rate,
        sim_hit_rate=sim.hit_rate,
        assumed_hit_rate=assumed.hit_rate,
        lag=lag,
        passed=live.steps_failed == sim.failures == 0
        and abs(sim.mean_tct_s / live_tct_s - 1) <= TCT_WITHIN
        and abs(sim.hit_rate - live_hit_rate) <= HIT_RATE_WITHIN,
        live=live,
        overheads=overheads,
    )


def simulated_alone(settings: BenchSettings) -> dict[str, float]:
    """Mean TCT by system, with assumed delays."""
    sessions, _ = load_sessions(settings, fitted_sessions.generate)
    engines = own_engines(settings)
    plan = build_plan(sessions, plan_settings(settings, engines))
    found = {}
    for system in settings.systems:
        run = PlannedRun(
            system=system,
            profile=_profile(settings, engines),
            workers=engines.workers,
            speed=engines.speed,
            delays=Delays(),
            client_s=0.0,
            concurrency=settings.concurrency,
            seed=settings.seed,
        )
        result = simulate_plan(plan, sessions, run)
        found[system] = result.mean_tct_s
        print(f"{system}: {result.mean_tct_s:,.1f} s, hit rate {result.hit_rate:.1%}, {result.failures} failures")
    return found


def _profile(settings: BenchSettings, engines: Engines) -> Profile:
    """As the engines of the mesh have it."""
    return load_profile(settings.profile).with_page_tokens(engines.page_tokens).shrunk(engines.shrink)


async def _replay(
    settings: BenchSettings, engines: Engines, plan: Plan, sessions: list[Session], target: Target
) -> Replayed:
    async with GatewayClient(target.gateway_url) as client:
        model = first_model(await client.models(), target.gateway_url)
        replay = ReplaySettings(
            model=model.id,
            speed=engines.speed,
            page_tokens=engines.page_tokens,
            concurrency=settings.concurrency,
            splice=settings.splice,
            seed=settings.seed,
        )
        return await Replay(plan, sessions, client, replay, lambda _: None).run()


async def _engine_seconds(target: Target) -> float:
    """Mean engine time of a request, arrival to end, over all engines."""
    total_s = count = 0.0
    async with aiohttp.ClientSession() as http:
        for url in target.engine_urls:
            async with http.get(f"{url}/metrics") as response:
                text = await response.text()
            for name, value in re.findall(
                r"^sglang:e2e_request_latency_seconds_(sum|count)\S* (\S+)$", text, re.MULTILINE
            ):
                if name == "sum":
                    total_s += float(value)
                else:
                    count += float(value)
    return total_s / count if count else 0.0


def _overheads(run: Replayed, measured: Measured, engine_own_s: float) -> Overheads:
    """Beside engine and queue: the client's view of a step less the gateway's, the gateway's less the engine's."""
    answered = [step.answer for step in run.steps if not step.answer.error]
    client_view_s = mean(answer.last_s - answer.sent_s - answer.refused_wait_s for answer in answered)
    undelayed = [answer.control_ms / 1000 for answer in answered if answer.waited == "none" and answer.control_ms >= 0]
    hops_s = sum(hop.mean_s for hop in measured.hops.values())
    handling_s = max(0.0, mean(undelayed) - hops_s) if undelayed else 0.0  # parsing and hashing before the core's turn
    outside_s = max(0.0, client_view_s - measured.control_s - measured.engine_s)
    return Overheads(
        message_s=measured.message_s,
        engine_s=max(0.0, measured.engine_s - engine_own_s) / 2,
        client_s=outside_s + handling_s,
        measured=measured,
        engine_own_s=engine_own_s,
    )


def show(out: Console, comparisons: list[Comparison]) -> None:
    """The table, and what lies behind it."""
    table = Table(box=box.SIMPLE, pad_edge=False, padding=(0, 1, 0, 0))
    for column in ("system", "TCT live", "sim", "diff", "hit live", "sim", "diff", "lag", "goal"):
        table.add_column(column, justify="left" if column in ("system", "goal") else "right", no_wrap=True)
    for one in comparisons:
        table.add_row(
            one.system,
            f"{one.live_tct_s:,.1f}",
            f"{one.sim_tct_s:,.1f}",
            f"{one.tct_off:+.1%}",
            f"{one.live_hit_rate:.1%}",
            f"{one.sim_hit_rate:.1%}",
            f"{100 * one.hit_rate_off:+.1f} pt",
            f"{one.lag:.1%}",
            "PASS" if one.passed else "FAIL",
        )
    out.print(table)
    out.print(
        f"Goals: mean TCT within {TCT_WITHIN:.0%}, hit rate within {100 * HIT_RATE_WITHIN:g} points. TCT in engine s."
    )
    for one in comparisons:
        over = one.overheads
        hops = ", ".join(
            f"{name} {1000 * hop.mean_s:.2f} (median {1000 * hop.median_s:.2f})"
            for name, hop in over.measured.hops.items()
        )
        out.print(
            f"{one.system}: ms one way: {hops}; mean message {1000 * over.message_s:.2f}, gateway to engine "
            f"{1000 * over.engine_s:.2f}; per step outside of both {1000 * over.client_s:.2f}. "
            f"With the assumed delays (message {1000 * Delays().message_s:g}, engine {1000 * Delays().engine_s:g}, "
            f"client 0) the simulator says "
            f"{one.assumed_tct_s:,.1f} s, {one.assumed_hit_rate:.1%}."
        )
        if one.lag > MAX_LAG_FRACTION:
            out.print(
                f"{one.system}: engine lag {one.lag:.1%} of a step: the machine was too slow, repeat it on a quiet one."
            )


def show_order(out: Console, simulated: dict[str, float], live: dict[str, float]) -> None:
    """Systems by mean TCT, there and here, and the pairs on which they disagree."""
    pairs = pairs_apart(simulated, live)
    agree = sum(pair.agrees for pair in pairs)
    out.print(f"Order simulated: {told(simulated)}\nOrder live: {told(live)}", soft_wrap=True)
    out.print(f"Pairs that the laboratory tells apart: {len(pairs)}; {agree} of them in the same order live.")
    for pair in pairs:
        if not pair.agrees:
            out.print(f"{pair.faster} before {pair.slower}: simulated {pair.ratio:.2f}, live {pair.other_ratio:.2f}")


def _settings(flags: argparse.Namespace) -> BenchSettings:
    return BenchSettings(
        workload=flags.workload,
        sessions=flags.sessions if flags.workload == CODING_SESSIONS else None,
        limit=flags.limit,
        max_steps=flags.max_steps,
        min_steps=1 if flags.workload == SWE_BENCH else flags.min_steps,
        gap_cap_s=flags.gap_cap,
        shrink=flags.shrink,
        speed=flags.speed,
        systems=tuple(flags.systems.split(",")),
        workers=flags.workers,
        profile=flags.profile,
        concurrency=flags.concurrency,
        seed=flags.seed,
    )


def main() -> int:
    """0 whenever it ran."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    sessions = recorded_sessions()
    usual = CODING_SESSIONS if sessions.is_file() else CODING_FITTED
    parser.add_argument("--workload", choices=WORKLOADS, default=usual)
    parser.add_argument("--sessions", type=Path, default=sessions, metavar="FILE")
    parser.add_argument("--systems", default="session-affinity,saga", metavar="A,B", help="of `saga up --system`")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--limit", type=int, default=20, help="tasks")
    parser.add_argument("--max-steps", type=int, default=12, help="of each")
    parser.add_argument("--min-steps", type=int, default=5)
    parser.add_argument("--gap-cap", type=float, default=10.0, metavar="S")
    parser.add_argument("--shrink", type=int, default=16)
    parser.add_argument("--speed", type=float, default=5.0)
    parser.add_argument("--profile", default="h100x1-llama3-8b")
    parser.add_argument("--concurrency", type=int, help="tasks at once (default all)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", type=Path, metavar="FILE")
    parser.add_argument("--only-simulated", action="store_true", help="no live run: what the laboratory says")
    flags = parser.parse_args()
    settings = _settings(flags)
    check_systems(settings.systems)
    if flags.only_simulated:
        Console().print(f"Order simulated: {told(simulated_alone(settings))}", soft_wrap=True)
        return 0
    comparisons = asyncio.run(compare(settings, Console(stderr=True)))
    show(Console(), comparisons)
    if len(comparisons) > 1:
        show_order(
            Console(), {c.system: c.sim_tct_s for c in comparisons}, {c.system: c.live_tct_s for c in comparisons}
        )
    if flags.json is not None:
        flags.json.write_bytes(orjson.dumps(to_builtins(comparisons), option=orjson.OPT_INDENT_2) + b"\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
