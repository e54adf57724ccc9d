"""What `saga bench cache` saves, as this report reads it. Data."""

from msgspec import Struct


class CacheResult(Struct, frozen=True):
    """One policy at one capacity. `causal_gap_closed`: from LRU (0) to the best causal policy (1)."""

    policy: str
    capacity_tokens: int
    regenerated_tokens: int
    oracle_regenerated_tokens: int
    belady_ratio: float | None
    causal_gap_closed: float | None
    best_causal_regenerated_tokens: int | None = None


class CacheReport(Struct, frozen=True):
    """The file of `saga bench cache`."""

    results: tuple[CacheResult, ...]
