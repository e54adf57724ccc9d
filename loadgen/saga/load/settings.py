"""What `saga bench live` may be told, with the presets: plain defaults, and those of `--demo`.

Not parsing (cli) and not running (bench_live). A flag that is given always beats a preset.
"""

import os
from pathlib import Path

from msgspec import Struct

from saga.cli.sglang import SglangSettings
from saga.load.apis import Api

CODING_SESSIONS = "coding-sessions"
CODING_FITTED = "coding-fitted"
SWE_BENCH = "swe-bench"
WORKLOADS = (CODING_SESSIONS, CODING_FITTED, SWE_BENCH)

DEFAULT_SESSIONS = "../shared/traces/coding-sessions.jsonl.gz"
SYNTHETIC_TASKS = 40


USUAL_SESSIONS = f"SAGA_SESSIONS, or {DEFAULT_SESSIONS}"


def recorded_sessions() -> Path:
    """Where recorded sessions are: SAGA_SESSIONS, else the usual place. There may be none."""
    return Path(os.environ.get("SAGA_SESSIONS") or DEFAULT_SESSIONS)


SHRUNK_PAGE_TOKENS = 16


class BenchSettings(Struct, frozen=True):
    """One benchmark. None: no limit, or what the profile says. Times in recorded seconds, `sessions` a file or None."""

    workload: str = CODING_SESSIONS
    sessions: Path | None = None
    limit: int | None = None
    max_steps: int | None = None
    min_steps: int = 1
    gap_cap_s: float | None = None
    shrink: int = 1
    speed: float = 1.0
    systems: tuple[str, ...] = ("session-affinity", "saga")
    workers: int = 4
    profile: str = "h100x1-llama3-8b"
    page_tokens: int | None = None
    concurrency: int | None = None
    seed: int = 0
    splice: bool = True
    target: str | None = None  # an endpoint that somebody else runs, in place of a mesh
    api: Api = "completions"
    session_header: str | None = None  # in place of SAGA's own headers; empty: none
    target_model: str = ""  # of the target; empty: its first
    ignore_eos: bool = True
    api_key: str = ""
    sglang: SglangSettings | None = None  # real servers instead of simulated engines
    json: Path | None = None


DEMO = BenchSettings(
    limit=60, max_steps=12, min_steps=5, gap_cap_s=10.0, shrink=16, speed=10.0, profile="h100x1-llama3-8b"
)
"""60 sessions of at least 5 steps that fit, chosen by seed, the first 12 steps of each, on 4 engines: 15 an engine, so
that KV is short. Recorded ones, or drawn ones where there is no file of them."""
