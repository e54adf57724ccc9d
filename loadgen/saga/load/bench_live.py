"""`saga bench live`: the same tasks on each system in turn, in real time; then a table, JSON and an exit code.

Loads the workload, plans it once, then for each system starts a mesh (or uses the target given), replays and measures.
Called by cli. Not the figures themselves (figures) nor how they look (report).
"""

from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from saga.load import swe_bench
from saga.load.client import GatewayClient, Speech
from saga.load.figures import Capacity, Figures, figures
from saga.load.ideal import recorded_ideal
from saga.load.mesh_target import (
    UNKNOWN_TOKENS,
    Engines,
    Target,
    check_systems,
    own_engines,
    own_mesh,
    target_engines,
    target_model,
    worst_lag,
)
from saga.load.plan import Plan
from saga.load.planner import PlanSettings, build_plan
from saga.load.replay import Replay, Replayed, ReplaySettings
from saga.load.report import RunFacts, print_plan, print_table, write_json
from saga.load.settings import CODING_FITTED, SWE_BENCH, SYNTHETIC_TASKS, BenchSettings
from saga.load.sglang_servers import SglangServers
from saga.load.trace import Session, TraceError, read_sessions

Draw = Callable[[int | None, int], list[Session]]
"""Sessions of `coding-fitted` from how many are wanted (None: as many as were recorded) and a seed. The laboratory has
it, which is not known here: whoever calls hands it in."""


async def bench_live(settings: BenchSettings, fitted: Draw, out: Console, progress_to: Console) -> int:
    """Run the benchmark; 0 if every step was answered, else 1. Raises what reading, planning or starting raises."""
    if settings.target is None:
        check_systems(settings.systems)
    sessions, source = load_sessions(settings, fitted)
    results: list[Figures] = []
    async with AsyncExitStack() as stack:
        servers: SglangServers | None = None
        if settings.sglang is not None:
            progress_to.print(f"Starting {settings.workers} SGLang servers: 20 s to minutes ...")
            servers = await stack.enter_async_context(SglangServers(settings.sglang, settings.workers))
        engines = await _engines(settings, servers)
        plan = build_plan(sessions, plan_settings(settings, engines))
        facts = _facts(settings, engines, plan, source)
        print_plan(out, facts, plan)
        for system in settings.systems if settings.target is None else ("target",):
            if servers is not None:
                await servers.forget()
            async with _target(settings, engines, system, servers) as target:
                run = await _replay(settings, engines, plan, sessions, target, system, progress_to)
                lag = await worst_lag(target)
            capacity = Capacity(engines.workers, engines.workers * engines.kv_tokens // engines.shrink)
            results.append(figures(system, run, engines.speed, capacity, lag))
    print_table(out, facts, results)
    if settings.json is not None:
        write_json(settings.json, facts, plan, results)
    return 1 if any(result.steps_failed for result in results) else 0


def load_sessions(settings: BenchSettings, fitted: Draw) -> tuple[list[Session], str]:
    """The workload's sessions and where they come from. Raises TraceError for a file that is missing or damaged."""
    if settings.workload == SWE_BENCH:
        return swe_bench.generate(settings.limit or SYNTHETIC_TASKS, settings.seed), "the published parameters"
    if settings.workload == CODING_FITTED:
        return fitted(settings.limit, settings.seed), "statistics of recorded sessions"
    if settings.sessions is None:
        raise TraceError("coding-sessions needs --sessions FILE (or SAGA_SESSIONS), or take --workload coding-fitted")
    return read_sessions(settings.sessions), settings.sessions.name


def plan_settings(settings: BenchSettings, engines: Engines) -> PlanSettings:
    """What to replay of the sessions on these engines."""
    return PlanSettings(
        context_tokens=engines.context_tokens,
        kv_tokens=engines.kv_tokens or UNKNOWN_TOKENS,
        limit=settings.limit,
        max_steps=settings.max_steps,
        min_steps=settings.min_steps,
        gap_cap_s=settings.gap_cap_s,
        shrink=engines.shrink,
        seed=settings.seed,
    )


async def _engines(settings: BenchSettings, servers: SglangServers | None) -> Engines:
    """What the tasks run on: real servers say so themselves, as does a gateway; simulated engines have a profile."""
    if settings.target is not None:
        return await target_engines(settings, settings.target)
    return own_engines(settings) if servers is None else await servers.engines(settings.shrink)


@asynccontextmanager
async def _target(
    settings: BenchSettings, engines: Engines, system: str, servers: SglangServers | None
) -> AsyncIterator[Target]:
    if settings.target is not None:
        yield Target(settings.target.rstrip("/"))
        return
    async with own_mesh(settings, engines, system, servers.urls if servers is not None else ()) as target:
        yield target


async def _replay(
    settings: BenchSettings,
    engines: Engines,
    plan: Plan,
    sessions: Sequence[Session],
    target: Target,
    system: str,
    progress_to: Console,
) -> Replayed:
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    columns_tail = (TimeRemainingColumn(), TextColumn("{task.fields[failed]} failed"))
    speech = Speech(
        api=settings.api,
        session_header=settings.session_header,
        ignore_eos=settings.ignore_eos,
        exact=settings.target is None and settings.api in ("completions", "chat"),
    )
    model = await target_model(settings, target.gateway_url)
    async with GatewayClient(target.gateway_url, settings.api_key, speech) as client:
        with Progress(*columns, *columns_tail, console=progress_to) as progress:
            bar = progress.add_task(f"{system}: steps", total=plan.steps, failed=0)
            failed = 0

            def on_step(answered: bool) -> None:  # noqa: FBT001 - a callback with one meaning
                nonlocal failed
                failed += not answered
                progress.update(bar, advance=1, failed=failed)

            replay_settings = ReplaySettings(
                model=model.id,
                speed=engines.speed,
                page_tokens=engines.page_tokens,
                concurrency=settings.concurrency,
                splice=settings.splice,
                seed=settings.seed,
                api=settings.api,
            )
            return await Replay(plan, sessions, client, replay_settings, on_step).run()


def _facts(settings: BenchSettings, engines: Engines, plan: Plan, source: str) -> RunFacts:
    return RunFacts(
        workload=settings.workload,
        source=source,
        seed=settings.seed,
        speed=engines.speed,
        shrink=engines.shrink,
        profile=engines.profile,
        workers=engines.workers,
        page_tokens=engines.page_tokens,
        kv_tokens_per_worker=engines.kv_tokens,
        context_tokens=engines.context_tokens,
        concurrency=min(len(plan.tasks), settings.concurrency or len(plan.tasks)),
        gap_cap_s=settings.gap_cap_s,
        splice=settings.splice,
        recorded_blocks_hit_rate=recorded_ideal(plan),
    )
