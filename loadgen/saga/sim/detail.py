"""What a run shows beside its figures, for charts: samples over time, and one conversation step by step. Data.

Collected by `observer` when a report wants it, drawn by `html_report`. Times are virtual seconds from the run's start.
"""

from typing import Literal

from msgspec import Struct

Doing = Literal["queued", "waiting", "prefill", "decode", "tool", "human"]


class Sample(Struct, frozen=True, gc=False):
    """One moment. Tuples go by worker, in the order of `RunDetail.workers`, or by tenant, in that of `tenants`."""

    at_s: float
    held_tokens: tuple[int, ...]  # of KV that running requests hold
    cached_tokens: tuple[int, ...]  # of KV that only the cache holds
    running: tuple[int, ...]  # requests in the batch
    waiting: tuple[int, ...]  # requests in the engine's queue
    active: int  # workflows in the active set
    queued: int  # workflows with a step outside it
    service_s: tuple[float, ...]  # modelled engine-seconds delivered so far, by tenant
    at_home: tuple[int, ...] = ()  # admitted steps that wait, outside the engine, for a slot of it


class Span(Struct, frozen=True, gc=False):
    """What one session of the shown conversation did from `start_s` to `end_s`.

    `queued`: its workflow was outside the active set. `waiting`: admitted, no slot yet, or in the engine's queue.
    """

    session: str
    doing: Doing
    start_s: float
    end_s: float
    worker: str = ""  # where, for prefill and decode
    step: int = 0  # of the session, from 0
    cached_share: float = 0.0  # of the prompt, for prefill
    note: str = ""  # the tool's name


class Moved(Struct, frozen=True, gc=False):
    """A step that waited for worker `left` and started on `worker`.

    Seconds as placement expected them; 0 where its policy does not say.
    """

    at_s: float
    session: str
    left: str
    worker: str
    saved_s: float  # of waiting
    prefill_s: float  # engine-seconds of prefilling what the session had at hand where it left
    begins: bool  # its session had run nowhere yet: nothing is left behind


class RunDetail(Struct, frozen=True):
    """One run. `spans` are of conversation `shown`, in order of time."""

    workload: str
    system: str
    cluster: str
    seed: int
    pressure: float | None
    load: float | None
    host_tier: str
    workers: tuple[str, ...]
    tenants: tuple[str, ...]
    kv_tokens: int  # of one worker
    samples: tuple[Sample, ...]
    shown: int
    spans: tuple[Span, ...]
    tct_s: tuple[float, ...]  # of every measured task, sorted
    slowdowns: tuple[float, ...]  # the same tasks' TCT over their own in the KV bound, sorted
    weights: tuple[float, ...] = ()  # of tenants, in their order; empty: not known
    moves: tuple[Moved, ...] = ()  # in order of time
