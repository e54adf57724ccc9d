"""Virtual time: what happens when. Keyed (time, sequence), so that a run depends on nothing but its seed.

Not a world: it knows no cores and no messages. Called by everything in `saga.sim` that acts later.
"""

from collections.abc import Callable
from heapq import heappop, heappush
from typing import Any

Act = Callable[[Any], None]


class Agenda:
    """A heap of acts. `now_s` is the virtual clock; it only moves inside `run`."""

    __slots__ = ("_heap", "_sequence", "now_s", "stopped")

    def __init__(self) -> None:
        self.now_s = 0.0
        self.stopped = False
        self._heap: list[tuple[float, int, Act, Any]] = []
        self._sequence = 0

    def at(self, at_s: float, act: Act, argument: Any) -> None:  # noqa: ANN401 - handed to `act` as it is
        """Call `act(argument)` then; of two at one time, the one asked for first is first. The past counts as now."""
        self._sequence = sequence = self._sequence + 1
        heappush(self._heap, (at_s, sequence, act, argument))

    def after(self, delay_s: float, act: Act, argument: Any) -> None:  # noqa: ANN401 - as above
        """The same, `delay_s` from now."""
        self._sequence = sequence = self._sequence + 1
        heappush(self._heap, (self.now_s + delay_s, sequence, act, argument))

    def stop(self) -> None:
        """Let `run` return after the act that runs now."""
        self.stopped = True

    def run(self, until_s: float) -> bool:
        """Act until stopped (True), or until nothing is left before `until_s` (False)."""
        heap = self._heap
        while not self.stopped and heap and heap[0][0] <= until_s:
            at_s, _, act, argument = heappop(heap)
            self.now_s = max(self.now_s, at_s)
            act(argument)
        return self.stopped
