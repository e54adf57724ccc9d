"""Sums over the last minute, by name, in buckets of one second."""

from collections import deque
from typing import Final

WINDOW_S: Final = 60
MAX_NAMES: Final = 4_096  # in one second; further ones are not counted


class Minute:
    """Amounts by name that are forgotten after a minute."""

    def __init__(self, window_s: int = WINDOW_S) -> None:
        self._window_s = window_s
        self._buckets: deque[tuple[int, dict[str, float]]] = deque()
        self.sums: dict[str, float] = {}

    def count(self, name: str, now_s: float, amount: float = 1.0) -> None:
        """So much more of it, now."""
        second = int(now_s)
        if not self._buckets or self._buckets[-1][0] < second:
            self.forget(now_s)
            self._buckets.append((second, {}))
        bucket = self._buckets[-1][1]
        if name in bucket or len(bucket) < MAX_NAMES:
            bucket[name] = bucket.get(name, 0.0) + amount
            self.sums[name] = self.sums.get(name, 0.0) + amount

    def forget(self, now_s: float) -> None:
        """Drop what is older than a minute."""
        while self._buckets and self._buckets[0][0] <= now_s - self._window_s:
            for name, amount in self._buckets.popleft()[1].items():
                left = self.sums[name] - amount
                if left > 1e-9 and self._buckets:
                    self.sums[name] = left
                else:
                    self.sums.pop(name, None)
        if not self._buckets:
            self.sums.clear()

    @property
    def total(self) -> float:
        """Of all names."""
        return sum(self.sums.values())
