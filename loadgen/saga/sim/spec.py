"""What a run is asked for and what it tells: `RunSpec` in, `RunRecord` out. Data, made by `bench` and `runner`."""

from pathlib import Path
from typing import Literal

from msgspec import Struct

from saga.sim.detail import Moved, Sample, Span
from saga.sim.ledger import TaskRecord

HostTier = Literal["off", "on", "shared"]
"""KV in host memory, too; `shared`: and behind it in a tier that all engines of the cluster share."""
HORIZON_S = 7 * 86_400.0
ROUNDS = 3.0  # conversations per user: one to warm up, one to measure, one to drain
TASKS = 500


class RunSpec(Struct, frozen=True):
    """What to run. Exactly one of `pressure` and `per_min` (open loop, tasks a minute) is set."""

    workload: str
    system: str
    cluster: str
    seed: int
    pressure: float | None = None
    per_min: float | None = None
    workers: int | None = None
    tasks: int | None = None  # conversations; None: `rounds` per user, and at least `least_tasks`
    least_tasks: int = TASKS
    rounds: float = ROUNDS
    sessions: Path | None = None
    skip_bad: bool = False  # leave out lines of `sessions` that do not parse
    horizon_s: float = HORIZON_S
    host_tier: HostTier = "off"
    detail: bool = False  # with samples and the story of one conversation, for a report


class Detail(Struct, frozen=True):
    """What an observer saw; see `saga.sim.detail`."""

    workers: tuple[str, ...]
    tenants: tuple[str, ...]
    weights: tuple[float, ...]
    kv_tokens: int
    samples: tuple[Sample, ...]
    shown: int
    spans: tuple[Span, ...]
    moves: tuple[Moved, ...] = ()


class RunRecord(Struct, frozen=True):
    """What came of it. Times in virtual seconds; totals over all steps unless they say measured."""

    users: int
    conversations: int
    dropped_sessions: int
    measured: tuple[TaskRecord, ...]
    ttft_s: tuple[float, ...]  # of measured steps
    prompt_tokens: int  # of measured steps
    cached_tokens: int  # of measured steps
    regenerated_tokens: int
    loaded_back_tokens: int  # from host KV tiers, what those had read from a shared one included
    useful_kv_share: float  # of KV capacity x time: in use, or idle and hit again before eviction
    tasks_per_min: float
    failures: int
    refusals: int
    steps: int
    retractions: int
    unstable: bool
    ended_s: float
    detail: Detail | None = None
    prefetches: int = 0  # requests without output
    service_gap_s: float | None = None  # between tenants; None with one
    busy_shares: tuple[float, ...] = ()  # of the time of measurement, by worker: its engine ran something
    done_s: tuple[float, ...] = ()  # of that time, by worker: modelled engine-seconds of prefill and decode
    moves: int = 0  # steps stolen from where their session had run
    moved_prefill_s: float = 0.0  # engine-seconds of prefilling what they had there
    moved_saved_s: float = 0.0  # of waiting, as expected when they moved
    begun_elsewhere: int = 0  # first steps of sessions that started elsewhere than where they waited: no moves
    shared_loaded_tokens: int = 0  # from a shared KV tier to host tiers
