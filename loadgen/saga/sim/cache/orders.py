"""The two ends of the scale: least recently used by page, and the oracle. Run in `paged`."""

from bisect import bisect_right
from collections.abc import Sequence

from saga.sim.cache.fitting import Stream
from saga.sim.cache.paged import NEVER_S


class PagedLru:
    """Least recently used page first."""

    def __init__(self, stream: Stream) -> None:
        self._used = [0] * len(stream.trace.segments.pages)
        self._uses = 0

    def started(self, call: int, now_s: float) -> Sequence[int]:
        """Use counts from the end of a call on."""
        del call, now_s
        return ()

    def ended(self, call: int, path: list[int], now_s: float, used_share: float) -> None:
        """All of its pages were used now."""
        del call, now_s, used_share
        self._uses += 1
        for segment in path:
            self._used[segment] = self._uses

    def evicted(self, segment: int, pages: int) -> None:
        """Changes nothing."""

    def rank(self, segment: int, now_s: float) -> tuple[float, float]:
        """As Order."""
        del now_s
        return self._used[segment], NEVER_S


class Belady:
    """The oracle: the page whose next use lies farthest ahead goes first.

    A page is used no later than any page behind it, so the farthest use is always at the end of a chain and leaf first
    costs nothing. Pages are of one size and those in use are asked for all the time, so this is Belady's rule for
    requests of several pages, which is optimal. One thing it leaves out: pages of an answer that were cached before
    cost nothing to have again (they are decoded, not prefilled).
    """

    def __init__(self, stream: Stream) -> None:
        segments = stream.trace.segments
        self._uses: list[list[int]] = [[] for _ in segments.pages]
        starts = (event.call for event in stream.events if not event.is_end)
        for number, call in enumerate(starts):
            for segment in segments.path(stream.trace.calls[call].prompt):
                self._uses[segment].append(number)
        self._started = -1

    def started(self, call: int, now_s: float) -> Sequence[int]:
        """One call further."""
        del call, now_s
        self._started += 1
        return ()

    def ended(self, call: int, path: list[int], now_s: float, used_share: float) -> None:
        """Nothing new."""

    def evicted(self, segment: int, pages: int) -> None:
        """Changes nothing."""

    def rank(self, segment: int, now_s: float) -> tuple[float, float]:
        """As Order."""
        del now_s
        uses = self._uses[segment]
        at = bisect_right(uses, self._started)
        return (-uses[at] if at < len(uses) else -NEVER_S), NEVER_S
