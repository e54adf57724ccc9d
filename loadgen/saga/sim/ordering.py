"""Whether two ways of measuring put systems into the same order, as far as the first tells them apart.

Pure arithmetic on mean task completion times. Called by bench/live_vs_sim.py.
"""

from collections.abc import Mapping
from itertools import combinations
from typing import Final

from msgspec import Struct

NOISE: Final = 0.05  # of the faster one's time: how much one other first placement moves a mean over some tasks


class Pair(Struct, frozen=True):
    """Two systems that the first measurement tells apart. Ratios are the slower one's time over the faster one's."""

    faster: str
    slower: str
    ratio: float
    other_ratio: float  # as the second measurement has it; below 1: the other way round

    @property
    def agrees(self) -> bool:
        """Whether the second has them in the same order."""
        return self.other_ratio > 1.0


def pairs_apart(tct_s: Mapping[str, float], other_tct_s: Mapping[str, float], noise: float = NOISE) -> list[Pair]:
    """All pairs more than `noise` apart by `tct_s`, the fastest first. Raises KeyError for a system that the second
    does not have."""
    ranked = sorted(tct_s, key=lambda name: (tct_s[name], name))
    return [
        Pair(faster, slower, ratio, other_tct_s[slower] / other_tct_s[faster])
        for faster, slower in combinations(ranked, 2)
        if (ratio := tct_s[slower] / tct_s[faster]) > 1.0 + noise
    ]


def told(tct_s: Mapping[str, float]) -> str:
    """Systems and times in one line, the fastest first."""
    return ", ".join(f"{name} {tct_s[name]:,.0f} s" for name in sorted(tct_s, key=lambda name: (tct_s[name], name)))
