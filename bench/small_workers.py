"""Recorded sessions on two small workers with idle engines: where single sessions fill a good part of a worker.

The plan of `saga bench live` (16 recorded sessions, 10 steps each, gaps up to 20 s, all begun at once) in virtual time,
over several choices of sessions and sizes of KV: mean TCT, its 95th percentile, and tokens prefilled though they had
been cached once, means over the choices; beside them the same without the leeway of `admission/leeway.py`.
`--engine-speed 16` makes the engine as fast, beside the gaps, as the tiny model on a CPU in sglang_retention.py.
Needs recorded sessions; says so and ends otherwise.
Run: python bench/small_workers.py [--seeds 16] [--kv-tokens 8192,12288] [--systems A,B] [--gap-cap 4] [--limit 16]
[--engine-speed 1] [--json FILE]
"""

import argparse
import sys
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from statistics import mean

import msgspec
import orjson
from rich.console import Console
from rich.table import Table

from saga.engine.profile import load_profile
from saga.load.bench_live import load_sessions, plan_settings
from saga.load.mesh_target import own_engines
from saga.load.planner import build_plan
from saga.load.settings import BenchSettings, recorded_sessions
from saga.sim import fitted_sessions
from saga.sim.planned import PlannedRun, simulate_plan
from saga.sim.world import Delays

SYSTEMS = "session-affinity,saga-no-leeway,saga"
POOLS = "4096,8192,12288,16384,24576"
SHRINK = 16


class Replayed(msgspec.Struct, frozen=True):
    """One replay. TCT in seconds, mean and 95th percentile over its sessions."""

    kv_tokens: int
    system: str
    seed: int
    mean_tct_s: float
    p95_tct_s: float
    regenerated_tokens: int
    failures: int


def replay(
    sessions: Path, kv_tokens: int, system: str, seed: int, gap_cap_s: float, times: float, limit: int
) -> Replayed:
    """`kv_tokens` of each worker, after shrinking. `times`: as fast as the profile says."""
    settings = BenchSettings(
        sessions=sessions, limit=limit, max_steps=10, gap_cap_s=gap_cap_s, shrink=SHRINK, workers=2, seed=seed
    )
    chosen, _ = load_sessions(settings, fitted_sessions.generate)
    engines = msgspec.structs.replace(own_engines(settings), kv_tokens=kv_tokens * SHRINK)
    profile = load_profile(settings.profile).with_page_tokens(engines.page_tokens).shrunk(SHRINK)
    run = PlannedRun(
        system=system,
        profile=msgspec.structs.replace(
            profile,
            kv_tokens=kv_tokens,
            peak_flops=times * profile.peak_flops,
            mem_bytes_per_s=times * profile.mem_bytes_per_s,
            overhead_s=profile.overhead_s / times,
        ),
        workers=engines.workers,
        speed=engines.speed,
        delays=Delays(),
        client_s=0.0,
        seed=seed,
    )
    result = simulate_plan(build_plan(chosen, plan_settings(settings, engines)), chosen, run)
    tct_s = sorted(result.tct_s)
    return Replayed(
        kv_tokens=kv_tokens,
        system=system,
        seed=seed,
        mean_tct_s=result.mean_tct_s,
        p95_tct_s=tct_s[int(0.95 * len(tct_s))],
        regenerated_tokens=result.regenerated_tokens,
        failures=result.failures,
    )


def main() -> int:
    """0 if every task of every system ended."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--sessions", type=Path, default=recorded_sessions())
    parser.add_argument("--seeds", type=int, default=16, help="choices of sessions")
    parser.add_argument("--kv-tokens", default=POOLS, help="of each worker")
    parser.add_argument("--systems", default=SYSTEMS)
    parser.add_argument("--gap-cap", type=float, default=20.0, help="longest gap, seconds")
    parser.add_argument("--limit", type=int, default=16, help="sessions")
    parser.add_argument("--engine-speed", type=float, default=1.0, help="times as fast as the profile")
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--json", type=Path)
    flags = parser.parse_args()
    if not flags.sessions.exists():
        print(f"{flags.sessions} is missing: left out")
        return 0
    cases = [
        (flags.sessions, int(kv_tokens), system, seed, flags.gap_cap, flags.engine_speed, flags.limit)
        for kv_tokens in flags.kv_tokens.split(",")
        for system in flags.systems.split(",")
        for seed in range(flags.seeds)
    ]
    with ProcessPoolExecutor(flags.jobs) as workers:
        runs = list(workers.map(replay, *zip(*cases, strict=True)))
    _show(runs)
    if flags.json is not None:
        flags.json.write_bytes(orjson.dumps(msgspec.to_builtins(runs), option=orjson.OPT_INDENT_2) + b"\n")
    return 1 if any(run.failures for run in runs) else 0


def _show(runs: list[Replayed]) -> None:
    table = Table(title="Recorded sessions on two small workers, means over choices of sessions")
    for column in ("KV of each", "system", "mean TCT s", "P95 s", "regenerated", "choices"):
        table.add_column(column, justify="left" if column == "system" else "right")
    groups: dict[tuple[int, str], list[Replayed]] = {}
    for run in runs:
        groups.setdefault((run.kv_tokens, run.system), []).append(run)
    for (kv_tokens, system), group in groups.items():
        table.add_row(
            f"{kv_tokens:,}",
            system,
            f"{mean(run.mean_tct_s for run in group):,.1f}",
            f"{mean(run.p95_tct_s for run in group):,.1f}",
            f"{mean(run.regenerated_tokens for run in group):,.0f}",
            str(len(group)),
        )
    Console().print(table)


if __name__ == "__main__":
    sys.exit(main())
