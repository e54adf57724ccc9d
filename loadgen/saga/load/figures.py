"""The figures of one replay: task times, hit rate, regenerated tokens, control-plane latency, pressure, and what makes
it invalid.

Pure arithmetic over what replay recorded. Not the table (report). Called by bench_live once per system.
"""

from collections import Counter
from collections.abc import Sequence
from itertools import pairwise

from msgspec import Struct

from saga.load.replay import Replayed

MAX_LAG_FRACTION = 0.05


class Quantiles(Struct, frozen=True):
    """Mean and nearest-rank percentiles; None where nothing was measured."""

    count: int
    mean: float | None = None
    p50: float | None = None
    p95: float | None = None
    p99: float | None = None


class Capacity(Struct, frozen=True):
    """KV of all workers together, in tokens as sent (shrunk), and how many workers; 0: unknown."""

    workers: int
    kv_tokens: int


class Figures(Struct, frozen=True):
    """What one system did. Times marked `_s` are recorded (engine) seconds unless they say `real`; rates are fractions.

    A task is the replayed part of one session: TCT runs from the submission of its first step to its last answer, and
    includes queueing, tool and think time. Tasks with a failed step are counted, and left out of TCT.
    """

    system: str
    valid: bool
    invalid_because: str
    tasks: int
    tasks_failed: int
    steps: int
    steps_failed: int
    tct_s: Quantiles
    ttft_s: Quantiles
    hit_rate: float | None
    ideal_hit_rate: float | None
    prompt_tokens: int
    cached_tokens: int
    regenerated_tokens: int
    steps_per_real_s: float
    control_ms: Quantiles
    steps_waited: dict[str, int]
    refused_wait_real_s: float
    prompt_length_mismatches: int
    pressure_mean: float | None
    pressure_peak: float | None
    steps_by_worker: dict[str, int]
    engine_lag_p99_fraction: float | None
    generator_late_real_ms: Quantiles
    elapsed_real_s: float
    errors: tuple[str, ...]


def figures(system: str, run: Replayed, speed: float, capacity: Capacity, lag_p99: float | None) -> Figures:
    """The figures of one run. `lag_p99`: largest P99 of the engines' lag, as a fraction of a step; None if unknown."""
    answered = [step for step in run.steps if not step.answer.error and step.ideal_tokens >= 0]
    counted = [step for step in answered if step.answer.cached_tokens >= 0]
    prompt_tokens = sum(step.prompt_tokens for step in counted)
    cached_tokens = sum(step.answer.cached_tokens for step in counted)
    failed = [step for step in run.steps if step.answer.error]
    waited = Counter(step.answer.waited or "unknown" for step in answered)
    undelayed = [step.answer for step in answered if step.answer.waited == "none" and step.answer.control_ms >= 0]
    elapsed_s = run.ended_s - run.started_s
    held_mean, held_peak = _held(run)
    too_late = lag_p99 is not None and lag_p99 > MAX_LAG_FRACTION
    return Figures(
        system=system,
        valid=not too_late,
        invalid_because=f"engine lag P99 is {lag_p99:.1%} of a step (limit {MAX_LAG_FRACTION:.0%})" if too_late else "",
        tasks=len(run.tasks),
        tasks_failed=sum(task.failed_steps > 0 for task in run.tasks),
        steps=len(run.steps),
        steps_failed=len(failed),
        tct_s=quantiles([(task.answered_s - task.submitted_s) * speed for task in run.tasks if not task.failed_steps]),
        ttft_s=quantiles([(step.answer.first_s - step.answer.sent_s) * speed for step in answered]),
        hit_rate=cached_tokens / prompt_tokens if prompt_tokens else None,
        ideal_hit_rate=sum(step.ideal_tokens for step in counted) / prompt_tokens if prompt_tokens else None,
        prompt_tokens=prompt_tokens,
        cached_tokens=cached_tokens,
        regenerated_tokens=sum(max(0, step.ideal_tokens - step.answer.cached_tokens) for step in counted),
        steps_per_real_s=len(answered) / elapsed_s if elapsed_s > 0 else 0.0,
        control_ms=quantiles([answer.control_ms for answer in undelayed]),
        steps_waited=dict(sorted(waited.items())),
        refused_wait_real_s=sum(step.answer.refused_wait_s for step in run.steps),
        prompt_length_mismatches=sum(step.answer.prompt_tokens not in (0, step.prompt_tokens) for step in answered),
        pressure_mean=held_mean / capacity.kv_tokens if capacity.kv_tokens else None,
        pressure_peak=held_peak / capacity.kv_tokens if capacity.kv_tokens else None,
        steps_by_worker=dict(sorted(Counter(step.answer.worker or "unknown" for step in answered).items())),
        engine_lag_p99_fraction=lag_p99,
        generator_late_real_ms=quantiles([late_s * 1000 for late_s in run.late_s]),
        elapsed_real_s=elapsed_s,
        errors=tuple(sorted({step.answer.error for step in failed})[:5]),
    )


def quantiles(values: Sequence[float]) -> Quantiles:
    """Nearest-rank percentiles: each is a value that was measured."""
    if not values:
        return Quantiles(0)
    ordered = sorted(values)

    def rank(fraction: float) -> float:
        return ordered[min(len(ordered) - 1, max(0, -(-int(fraction * 1000) * len(ordered) // 1000) - 1))]

    return Quantiles(len(ordered), sum(ordered) / len(ordered), rank(0.5), rank(0.95), rank(0.99))


def _held(run: Replayed) -> tuple[float, int]:
    """Time mean and peak of the tokens in open conversations: the active working set, shared prefixes counted each
    time.
    """
    held = peak = 0
    area = 0.0
    changes = [(run.started_s, 0), *run.held, (run.ended_s, 0)]
    for (at_s, change), (next_s, _) in pairwise(changes):
        held += change
        peak = max(peak, held)
        area += held * max(0.0, next_s - at_s)
    elapsed_s = run.ended_s - run.started_s
    return (area / elapsed_s if elapsed_s > 0 else 0.0), peak
