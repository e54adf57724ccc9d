"""Tokens of the last minute: a sliding window, by the second. What it has taken in it forgets late, never early."""

from collections import OrderedDict
from math import floor
from typing import Final

WINDOW_S: Final = 60


class Minute:
    """At any time at least what was added within the last 60 s, at most what was within 61."""

    __slots__ = ("_seconds", "tokens")

    def __init__(self) -> None:
        self._seconds: OrderedDict[int, int] = OrderedDict()  # at most 62
        self.tokens = 0

    def add(self, now_s: float, tokens: int) -> None:
        """So many, now."""
        second = floor(now_s)
        if second not in self._seconds:  # nobody may ever ask: most tenants have no limit
            self.forget(now_s)
        self._seconds[second] = self._seconds.get(second, 0) + tokens
        self.tokens += tokens

    def take_back(self, at_s: float, tokens: int) -> None:
        """So many of those added then were never used."""
        second = floor(at_s)
        if second in self._seconds:
            self._seconds[second] -= tokens
            self.tokens -= tokens

    def forget(self, now_s: float) -> None:
        """What is older than a minute is gone."""
        while self._seconds:
            second, tokens = next(iter(self._seconds.items()))
            if second + 1 + WINDOW_S > now_s:
                return
            del self._seconds[second]
            self.tokens -= tokens

    def free_in_s(self, now_s: float, tokens: int) -> float:
        """Until so many of them are gone; a minute when there are not so many."""
        for second, there in self._seconds.items():
            if tokens <= 0:
                break
            tokens -= there
            if tokens <= 0:
                return max(0.0, second + 1 + WINDOW_S - now_s)
        return 0.0 if tokens <= 0 else float(WINDOW_S)
