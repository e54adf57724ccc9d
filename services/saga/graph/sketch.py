"""A quantile sketch of durations: counts in logarithmic buckets, so every quantile is within 2 % of a value seen. Pure.

Bounded by the range of durations, mergeable at any weight, and forgetful: beyond MAX_WEIGHT old samples count half, and
when nearly all recent samples lie on one side of the median, what is old counts next to nothing. The tail is kept as it
is; nothing is fitted. Why it is ours and of no library: docs/adr/0009-quantile-sketch.md.
"""

import math
from bisect import bisect_left
from itertools import accumulate, compress
from typing import Final

import msgspec

RELATIVE_ERROR: Final = 0.02
SMALLEST_S: Final = 0.001  # anything shorter counts as this
LARGEST_S: Final = 30 * 24 * 3600.0  # anything longer, too
MAX_WEIGHT: Final = 4_096
UNIT: Final = 16  # parts that a new sample counts; halved away after five halvings
_GAMMA: Final = (1 + RELATIVE_ERROR) / (1 - RELATIVE_ERROR)
_LOG_GAMMA: Final = math.log(_GAMMA)
MAX_BUCKETS: Final = math.ceil(math.log(LARGEST_S / SMALLEST_S) / _LOG_GAMMA) + 1
# Drift: a mean over some 64 samples of their side of the median. At ease it stays within 0.5; a jump of the whole
# distribution takes it beyond 0.8 in 103 samples. Samples that one session gives in a row are alike and count less: of
# one session alone it takes 823.
_LEAN_RATE: Final = 1 / 64
_SAME_SOURCE_RATE: Final = 1 / 512
_DRIFTED: Final = 0.8
_DRIFTED_WEIGHT: Final = 4  # samples that all before a drift count as
_EDITION_SHARE: Final = 8  # a new edition after 1/8 more weight, and a few samples
_FEW: Final = 24
_DRIFT_EDITIONS: Final = 8  # so that whoever puts up with some sees it
_NEGLIGIBLE: Final = 0.005


def bucket_of(value_s: float) -> int:
    """The bucket of a duration, in seconds. Not a number counts as the shortest."""
    if value_s > SMALLEST_S:
        return math.ceil(math.log(min(value_s, LARGEST_S) / SMALLEST_S) / _LOG_GAMMA)
    return 0


def value_of(bucket: int) -> float:
    """The duration, in seconds, that stands for a bucket: within RELATIVE_ERROR of all in it."""
    return SMALLEST_S * math.exp(bucket * _LOG_GAMMA) * 2 / (1 + _GAMMA) if bucket else SMALLEST_S


VALUES_S: Final = tuple(map(value_of, range(MAX_BUCKETS)))


class Sketch(msgspec.Struct, gc=False, array_like=True):
    """Counts by bucket from `low` on, in parts of UNIT; `samples` counts all ever added."""

    low: int = 0
    counts: list[int] = []
    total: int = 0  # sum of counts
    samples: int = 0
    median: int = 0  # its bucket, as of the latest edition
    source: int = 0  # who gave the last sample
    lean: float = 0.0  # of late samples, to the side of the median that they lie on
    edition: int = 0  # grows when a reader should look again
    until: int = 1  # samples at which the next edition is due

    @property
    def weight(self) -> float:
        """Samples, of which old ones count less."""
        return self.total / UNIT

    def add(self, value_s: float, source: int = 0) -> None:
        """One more duration, in seconds, and who gave it; 0: nobody that gives others, too."""
        self.add_bucket(bucket_of(value_s), source)

    def add_bucket(self, bucket: int, source: int = 0) -> None:
        """One more duration, by its bucket."""
        index = bucket - self.low
        if 0 <= index < len(self.counts):
            self.counts[index] += UNIT
        else:
            self._widen(bucket)
        self.total += UNIT
        self.samples += 1
        side = (bucket > self.median) - (bucket < self.median)
        self.lean += (_SAME_SOURCE_RATE if source and source == self.source else _LEAN_RATE) * (side - self.lean)
        self.source = source
        if self.samples >= self.until:
            self._publish()
        elif not -_DRIFTED < self.lean < _DRIFTED:
            self._drifted()

    def _widen(self, bucket: int) -> None:
        if not self.counts:
            self.low, self.counts = bucket, [UNIT]
        elif bucket < self.low:
            self.counts[:0] = [UNIT, *[0] * (self.low - bucket - 1)]
            self.low = bucket
        else:
            self.counts += [0] * (bucket - self.low - len(self.counts)) + [UNIT]

    def _publish(self) -> None:
        """A new edition: with its median, and without what is too old."""
        if self.total > MAX_WEIGHT * UNIT:
            self._age(1)
        self.median = self.low + bisect_left(list(accumulate(self.counts)), self.total / 2)
        self.edition += 1
        self.until = self.samples + 1 + (self.total // UNIT + _FEW) // _EDITION_SHARE

    def _drifted(self) -> None:
        self._age(max(0, (self.total // (_DRIFTED_WEIGHT * UNIT)).bit_length() - 1))
        self.lean = 0.0
        self.edition += _DRIFT_EDITIONS
        self._publish()

    def _age(self, halvings: int) -> None:
        # A lone old outlier is dropped after some halvings, a tail that recurs stays.
        counts = [count >> halvings for count in self.counts]
        first = next((index for index, count in enumerate(counts) if count), 0)
        while counts and not counts[-1]:
            counts.pop()
        self.low += first
        self.counts = counts[first:]
        self.total = sum(self.counts)


class Mix(msgspec.Struct, frozen=True, gc=False):
    """A distribution over buckets from `low` on: weights that need not sum to 1, but to `total`."""

    low: int
    weights: list[float]
    total: float


def blended(prior: Mix | None, *parts: tuple[Sketch, float]) -> Mix | None:
    """What sketches say, from the widest to the narrowest, each with the samples that all before it count as.

    None: nothing is known. The prior's weights stay as they are and what comes is scaled to them: that is quickest.
    """
    low, weights, total = (prior.low, prior.weights, prior.total) if prior is not None else (0, [], 0.0)
    own = False
    for sketch, prior_weight in parts:
        if not sketch.total:
            continue
        prior_parts = prior_weight * UNIT
        if prior_parts < _NEGLIGIBLE * sketch.total or not weights:
            low, weights, total, own = sketch.low, [*map(float, sketch.counts)], float(sketch.total), True
            continue
        if not own:
            weights, own = weights.copy(), True
        scale = total / prior_parts
        total += sketch.total * scale
        if sketch.low < low:
            weights[:0] = [0.0] * (low - sketch.low)
            low = sketch.low
        first = sketch.low - low
        if first + len(sketch.counts) > len(weights):
            weights += [0.0] * (first + len(sketch.counts) - len(weights))
        counts = sketch.counts
        for index in compress(range(len(counts)), counts):
            weights[first + index] += counts[index] * scale
    return Mix(low, weights, total) if own else prior


def quantiles(known: Sketch | Mix, wanted: tuple[float, ...]) -> list[float]:
    """Durations, in seconds, below which these ascending shares of the weight lie. Raises ValueError when empty."""
    weights = known.counts if isinstance(known, Sketch) else known.weights
    if not weights:
        raise ValueError("an empty sketch has no quantiles")
    below = list(accumulate(weights))
    whole = below[-1]
    last = len(below) - 1
    return [
        VALUES_S[known.low + min(last, bisect_left(below, max(share, 1e-9) * whole * (1 - 1e-9)))] for share in wanted
    ]
