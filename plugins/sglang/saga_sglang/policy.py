"""The eviction policy `saga`: the least valued first, the least recently used first among equals.

SGLang asks it for a key of each evictable leaf when it must free KV (`mem_cache/evict_policy.py`, smaller goes first),
in the scheduler's process and in its time. With session tags on, SGLang puts (referenced, number of sessions) before
this key, so values decide among leaves of as many sessions. Without a live agent the key is LRU's.
"""

import time
from collections.abc import Callable
from typing import Any, Final

from saga_sglang.ring import RingReader

STALE_AFTER_S: Final = 10.0  # without a beat of the agent: what it said may no longer be so
LOOK_EVERY_S: Final = 0.005  # so that one eviction sees one state, and looking costs nothing per leaf
UNVALUED: Final = 0.0  # as the simulated engine has it
_NOTHING: Final[dict[str, float]] = {}


class SagaStrategy:
    """As SGLang's EvictionStrategy, which it is not derived from: this package imports no SGLang."""

    def __init__(self, reader: RingReader, full: int, clock: Callable[[], float] = time.monotonic) -> None:
        """`full`: index of a node's data about full attention, where SGLang keeps the sessions that end there."""
        self._reader = reader
        self._full = full
        self._clock = clock
        self._values = _NOTHING
        self._look_s = 0.0

    def get_priority(self, node: Any) -> tuple[float, float]:  # noqa: ANN401 - a node of SGLang's tree
        """(value, last access) of a leaf: the highest of its sessions' values."""
        now_s = self._clock()
        if now_s >= self._look_s:
            self._look(now_s)
        if not self._values:
            return UNVALUED, node.last_access_time
        sessions = node.component_data[self._full].session_ids
        if not sessions:
            return UNVALUED, node.last_access_time
        told = self._values
        return max(told.get(session, UNVALUED) for session in sessions), node.last_access_time

    def _look(self, now_s: float) -> None:
        self._look_s = now_s + LOOK_EVERY_S
        self._reader.read()
        alive = now_s - self._reader.beat_s() < STALE_AFTER_S
        self._values = self._reader.values if alive else _NOTHING
