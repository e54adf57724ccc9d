"""What speaks for and against one worker: broken promises, beats that contradict gateways, comings and goings, a second
worker under its id. Numbers only; `trust.py` decides. Pure.

Broken promises are counted by a cumulative sum of log-likelihood ratios (Page's test) between a worker that breaks at
most HONEST_BREAKS of its promises and one that breaks LIAR_BREAKS: it forgets old sins, and does not mistake a bad
minute for a habit.
"""

from collections import deque
from math import log
from typing import Final, Literal

HONEST_BREAKS: Final = 0.25  # of unexcused promises: messages that were late, deltas that were lost
LIAR_BREAKS: Final = 0.8
BROKEN_WEIGHT: Final = log(LIAR_BREAKS / HONEST_BREAKS)
KEPT_WEIGHT: Final = log((1 - LIAR_BREAKS) / (1 - HONEST_BREAKS))
LIAR_SCORE: Final = 16.0  # 14 broken promises in a row; e**16 promises between two false alarms of the worst honest one
RECENT: Final = 0.02  # least weight of the newest promise in the means
FALSE_BEATS: Final = 5  # in a row
COMEBACKS: Final = 8  # within COMEBACK_WINDOW_S; a new engine counts twice, an answer that was late once
COMEBACK_WINDOW_S: Final = 60.0
RIVAL_BEATS: Final = 3  # of an older incarnation while the newer one beats
RIVAL_QUIET_S: Final = 5.0

Charge = Literal["", "pages_not_there", "false_load", "flaps", "two_workers"]


class Conduct:
    """Of one worker, as one placement saw it."""

    __slots__ = (
        "broken_share", "cached_tokens", "comebacks", "expected_tokens", "false_beats", "judged", "newest_s",
        "rival_beats", "rival_s", "rival_url", "score",
    )  # fmt: skip

    def __init__(self) -> None:
        self.score = 0.0
        self.judged = 0  # promises
        self.broken_share = 0.0  # of the recent ones
        self.expected_tokens = 0.0  # of recent promises
        self.cached_tokens = 0.0
        self.false_beats = 0
        self.comebacks: deque[float] = deque()
        self.rival_beats = 0
        self.rival_s = 0.0  # when an older incarnation was heard last
        self.rival_url = ""
        self.newest_s = 0.0  # when the newest one was

    def promised(self, expected_tokens: int, cached_tokens: int, *, broken: bool) -> None:
        """A promise was judged, and is not excused."""
        self.judged += 1
        self.score = max(0.0, self.score + (BROKEN_WEIGHT if broken else KEPT_WEIGHT))
        weight = max(RECENT, 1.0 / self.judged)
        self.broken_share += weight * (broken - self.broken_share)
        self.expected_tokens += weight * (expected_tokens - self.expected_tokens)
        self.cached_tokens += weight * (min(cached_tokens, expected_tokens) - self.cached_tokens)

    def beat(self, *, contradicted: bool) -> None:
        """It said how much runs there; gateways know of more that has run there for long."""
        self.false_beats = self.false_beats + 1 if contradicted else 0

    def came_back(self, now_s: float, *, anew: bool) -> None:
        """It serves again after it did not. `anew`: with another engine, or another life of it."""
        self.comebacks.extend((now_s, now_s) if anew else (now_s,))
        while len(self.comebacks) > 2 * COMEBACKS:
            self.comebacks.popleft()

    def heard(self, now_s: float) -> None:
        """The newest incarnation under its id."""
        self.newest_s = now_s

    def rival(self, url: str, now_s: float) -> None:
        """An older incarnation under the same id. Its last words may come late; it goes on only if it lives."""
        if now_s - self.rival_s > RIVAL_QUIET_S:
            self.rival_beats = 0
        self.rival_s, self.rival_url = now_s, url
        if now_s - self.newest_s < RIVAL_QUIET_S:
            self.rival_beats += 1

    def charge(self, now_s: float) -> Charge:
        """What it is to be quarantined for; empty: nothing."""
        if self.rival_beats >= RIVAL_BEATS and now_s - self.rival_s < RIVAL_QUIET_S:
            return "two_workers"
        while self.comebacks and now_s - self.comebacks[0] > COMEBACK_WINDOW_S:
            self.comebacks.popleft()
        if len(self.comebacks) >= COMEBACKS:
            return "flaps"
        if self.false_beats >= FALSE_BEATS:
            return "false_load"
        return "pages_not_there" if self.score >= LIAR_SCORE else ""

    def forgive(self) -> None:
        """A new chance."""
        self.score = 0.0
        self.false_beats = 0
        self.comebacks.clear()
        self.rival_beats = 0
