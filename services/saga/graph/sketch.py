"""A quantile sketch of durations: counts in logarithmic buckets, so every quantile is within 2 % of a value seen. Pure.

Bounded (at most MAX_BUCKETS), mergeable, and forgetful: beyond MAX_WEIGHT old samples count half, so that it follows
change. The tail is kept as it is; nothing is fitted. Ours rather than `ddsketch` (which brings numpy and protobuf).
"""

import math
from bisect import bisect_left
from itertools import accumulate
from typing import Final

import msgspec

RELATIVE_ERROR: Final = 0.02
SMALLEST_S: Final = 0.001  # anything shorter counts as this
LARGEST_S: Final = 30 * 24 * 3600.0
MAX_WEIGHT: Final = 4_096.0
MAX_BUCKETS: Final = 256
_GAMMA: Final = (1 + RELATIVE_ERROR) / (1 - RELATIVE_ERROR)
_LOG_GAMMA: Final = math.log(_GAMMA)


def bucket_of(value_s: float) -> int:
    """The bucket of a duration, in seconds."""
    return math.ceil(math.log(min(max(value_s, SMALLEST_S), LARGEST_S) / SMALLEST_S) / _LOG_GAMMA)


def value_of(bucket: int) -> float:
    """The duration, in seconds, that stands for a bucket: within RELATIVE_ERROR of all in it."""
    return SMALLEST_S * math.exp(bucket * _LOG_GAMMA) * 2 / (1 + _GAMMA) if bucket else SMALLEST_S


class Sketch(msgspec.Struct, gc=False):
    """Weights by bucket, lowest first; `samples` counts all ever added."""

    weights: dict[int, float] = {}
    weight: float = 0.0
    samples: int = 0

    def add(self, value_s: float) -> None:
        """One more duration, in seconds."""
        bucket = bucket_of(value_s)
        weights = self.weights
        if bucket in weights:
            weights[bucket] += 1.0
        else:  # rare: there are few buckets, and many samples
            weights[bucket] = 1.0
            self.weights = dict(sorted(weights.items()))
        self.weight += 1.0
        self.samples += 1
        if self.weight > MAX_WEIGHT:
            self._age()
        if len(self.weights) > MAX_BUCKETS:
            self._collapse()

    def _age(self) -> None:
        # A lone old outlier is dropped after some halvings, a tail that recurs stays.
        self.weights = {bucket: half for bucket, w in self.weights.items() if (half := w / 2) >= 1 / 16}
        self.weight = sum(self.weights.values())

    def _collapse(self) -> None:
        """Join the two lowest buckets: short durations may blur, the tail may not."""
        lowest, next_lowest = sorted(self.weights)[:2]
        self.weights[next_lowest] += self.weights.pop(lowest)


def mixed(sketches: list[Sketch], enough: float) -> Sketch:
    """The first sketch, filled up from the next ones in turn until it has `enough` weight, or all are used.

    Only to be read: a sketch that has enough alone is returned as it is.
    """
    mix = Sketch()
    for sketch in sketches:
        if sketch.weight >= enough and not mix.weights:
            return sketch
        wanted = sketch.weight if mix.weight == 0.0 else min(sketch.weight, enough - mix.weight)
        if wanted <= 0:
            continue
        share = wanted / sketch.weight
        for bucket, weight in sketch.weights.items():
            mix.weights[bucket] = mix.weights.get(bucket, 0.0) + weight * share
        mix.weight += wanted
        mix.samples = max(mix.samples, sketch.samples)
        if mix.weight >= enough:
            break
    return mix


def quantiles(sketch: Sketch, wanted: tuple[float, ...]) -> list[float]:
    """Durations, in seconds, below which these ascending shares of the weight lie. Raises ValueError when empty."""
    if not sketch.weights:
        raise ValueError("an empty sketch has no quantiles")
    ascending = sorted(sketch.weights)
    below = list(accumulate(map(sketch.weights.__getitem__, ascending)))
    last = len(ascending) - 1
    return [value_of(ascending[min(last, bisect_left(below, share * below[last] - 1e-9))]) for share in wanted]
