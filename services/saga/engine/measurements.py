"""Times of a real server as JSON lines: facts first, then one line per measured prefill or decode, then the end.

Written by `bench/gpu/measure.py`, read back here, and turned into `fitting`'s points. A file that breaks off or tells
of a failed request is refused: a fit to half of a measurement looks like a fit.
"""

from collections.abc import Sequence
from statistics import median
from typing import Annotated

import msgspec
from msgspec import Meta, Struct

from saga.engine.model_shape import ModelShape
from saga.engine.profile import Profile
from saga.engine.timing import IterationLoad, prefill_pairs

PREFILL = "prefill"
PREFILL_CACHED = "prefill after cached"
DECODE = "decode"
LEAST_POINTS = {PREFILL: 4, DECODE: 4}  # different ones; prefill after cached tokens may be left out
MEAN_OUTPUT_TOKENS = 300  # as in the other profiles: nothing that a server could tell
COSTS = (
    *("weight_bytes", "kv_bytes_per_token", "flops_per_token", "attention_flops_per_pair", "mean_output_tokens"),
    *("expert_weight_bytes", "experts", "experts_per_token"),
)
"""Constants of a profile that its model has on any machine."""

Seconds = Annotated[float, Meta(gt=0)]
Count = Annotated[int, Meta(ge=1)]


class MeasurementError(ValueError):
    """Measurements that nothing should be fitted to; the message says which line, what is wrong and what to do."""


class Facts(Struct, frozen=True, tag_field="kind", tag="facts", forbid_unknown_fields=True):
    """What the server says of itself and its machine."""

    sglang: str
    model: str
    gpu: str
    gpus: Count
    gpu_bytes: Annotated[int, Meta(ge=0)]
    """Memory of each GPU; 0: nobody could tell."""
    kv_tokens: Count
    context_tokens: Count
    page_tokens: Count
    chunk_tokens: Count
    max_running: Count
    tensor_parallel: Count
    kv_element_bytes: Count
    attention: str
    shape: ModelShape | None = None
    """None: no dense model in 16 bits, so the costs of a token must come from elsewhere."""
    loaded_weight_bytes: float = 0.0
    """On one GPU, as the server counted them."""


class PrefillTime(Struct, frozen=True, tag_field="kind", tag="prefill", forbid_unknown_fields=True):
    """One prompt alone, from its first chunk to its first token."""

    prompt_tokens: Count
    cached_tokens: Annotated[int, Meta(ge=0)]
    seconds: Seconds


class DecodeTime(Struct, frozen=True, tag_field="kind", tag="decode", forbid_unknown_fields=True):
    """So many passes of requests that all decode, each with a prompt of `prompt_tokens` and no others beside them."""

    batch: Count
    prompt_tokens: Count
    passes: Count
    seconds: Seconds


class Failure(Struct, frozen=True, tag_field="kind", tag="failure", forbid_unknown_fields=True):
    """A request that was not answered as it should be."""

    what: str
    error: str


class End(Struct, frozen=True, tag_field="kind", tag="end", forbid_unknown_fields=True):
    """The last line: how many times are above it, and what was left out for lack of room or time."""

    times: int
    left_out: tuple[str, ...] = ()


Time = PrefillTime | DecodeTime
Line = Facts | PrefillTime | DecodeTime | Failure | End


class Measurements(Struct, frozen=True):
    """A whole file."""

    facts: Facts
    times: tuple[Time, ...]
    left_out: tuple[str, ...] = ()


class Pass(Struct, frozen=True):
    """Equal iterations, as the engine would have made them."""

    load: IterationLoad
    count: int = 1


class Point(Struct, frozen=True):
    """One setting, the median of its repetitions, and the iterations that took that long."""

    group: str
    name: str
    seconds: float
    passes: tuple[Pass, ...]
    tokens: int
    """Prefilled, or said by each request."""


def read(text: bytes) -> Measurements:
    """A file's content. Raises MeasurementError."""
    lines = text.splitlines()
    if not lines:
        raise MeasurementError("no measurements: the file is empty")
    decoder = msgspec.json.Decoder(Line)
    facts: Facts | None = None
    times: list[Time] = []
    for number, raw in enumerate(lines, start=1):
        try:
            line = decoder.decode(raw)
        except msgspec.MsgspecError as error:  # a half written last line too
            raise MeasurementError(f"line {number} is no measurement: {error}") from None
        match line:
            case Facts():
                if facts is not None:
                    raise MeasurementError(f"line {number}: a second line of facts; one file for each server")
                facts = line
            case Failure():
                raise MeasurementError(f"line {number}: {line.what} failed: {line.error}; measure again")
            case End():
                return _whole(facts, times, line, rest=len(lines) - number)
            case _:
                times.append(line)
    raise MeasurementError(f"the file breaks off after {len(times)} times, without its last line; measure again")


def _whole(facts: Facts | None, times: list[Time], end: End, rest: int) -> Measurements:
    if facts is None:
        raise MeasurementError("no line of facts: which server, model and GPU was it?")
    if rest:
        raise MeasurementError(f"{rest} lines after the last one; one file for each measurement")
    if end.times != len(times):
        raise MeasurementError(f"{end.times} times were measured and {len(times)} are here; measure again")
    return Measurements(facts, tuple(times), end.left_out)


class Hardware(Struct, frozen=True):
    """One GPU, by its data sheet."""

    peak_flops: float
    mem_bytes_per_s: float
    hbm_bytes: float


def base_profile(facts: Facts, name: str, hardware: Hardware, costs: Profile | None = None) -> Profile:
    """All constants that are not fitted; efficiencies 1, overhead 0, no host tier.

    `costs`: a profile of the same model, whose costs of a token are taken; without it they follow from the shape.
    Raises MeasurementError when there is neither.
    """
    kv_tokens = facts.kv_tokens // facts.page_tokens * facts.page_tokens
    if kv_tokens == 0:
        raise MeasurementError(f"{facts.kv_tokens} tokens of KV are less than a page of {facts.page_tokens}")
    return Profile(
        name=name,
        model=facts.model,
        context_tokens=min(facts.context_tokens, kv_tokens),
        page_tokens=facts.page_tokens,
        max_running=facts.max_running,
        chunk_tokens=max(1, facts.chunk_tokens // facts.page_tokens) * facts.page_tokens,
        kv_tokens=kv_tokens,
        hbm_bytes=hardware.hbm_bytes * facts.gpus,
        peak_flops=hardware.peak_flops * facts.gpus,
        mem_bytes_per_s=hardware.mem_bytes_per_s * facts.gpus,
        mfu=1.0,
        mbu=1.0,
        overhead_s=0.0,
        **(_costs_of_shape(facts) if costs is None else {field: getattr(costs, field) for field in COSTS}),
    )


def _costs_of_shape(facts: Facts) -> dict[str, float]:
    shape = facts.shape
    if shape is None:
        raise MeasurementError(f"the shape of {facts.model} is unknown; name a profile that has its costs (--base)")
    return {
        "weight_bytes": shape.weight_bytes,
        "kv_bytes_per_token": shape.kv_bytes_per_token(facts.kv_element_bytes, facts.tensor_parallel),
        "flops_per_token": shape.flops_per_token,
        "attention_flops_per_pair": shape.attention_flops_per_pair,
        "mean_output_tokens": MEAN_OUTPUT_TOKENS,
    }


def points(times: Sequence[Time], chunk_tokens: int) -> list[Point]:
    """One point per setting. Raises MeasurementError when a group has too few different ones."""
    settings: dict[tuple[str, int, int, int], list[float]] = {}
    for time in times:
        if isinstance(time, DecodeTime):
            key = (DECODE, time.batch, time.prompt_tokens, time.passes)
        else:
            group = PREFILL_CACHED if time.cached_tokens else PREFILL
            key = (group, time.prompt_tokens, time.cached_tokens, 0)
        settings.setdefault(key, []).append(time.seconds)
    for group, least in LEAST_POINTS.items():
        found = sum(key[0] == group for key in settings)
        if found < least:
            raise MeasurementError(f"{found} different {group} times, at least {least} are needed")
    return [_point(key, median(seconds), chunk_tokens) for key, seconds in settings.items()]


def _point(key: tuple[str, int, int, int], seconds: float, chunk_tokens: int) -> Point:
    group, first, second, passes = key
    if group == DECODE:
        # A pass attends to the prompt and all that was said; over the passes that grows by one token each time.
        mean_tokens = second + (passes + 1) / 2
        load = IterationLoad(decodes=first, context_tokens=round(first * mean_tokens))
        return Point(group, f"{first} x {second:,}", seconds, (Pass(load, passes),), passes)
    name = f"{first - second:,} after {second:,}" if second else f"{first:,}"
    return Point(group, name, seconds, _chunks(first, second, chunk_tokens), first - second)


def _chunks(prompt_tokens: int, cached_tokens: int, chunk_tokens: int) -> tuple[Pass, ...]:
    starts = range(cached_tokens, prompt_tokens, chunk_tokens)
    sizes = [(start, min(chunk_tokens, prompt_tokens - start)) for start in starts]
    return tuple(
        Pass(IterationLoad(prefill_tokens=size, prefill_pairs=prefill_pairs(start, size), prefill_context_tokens=start))
        for start, size in sizes
    )
