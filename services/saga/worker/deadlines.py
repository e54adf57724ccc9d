"""Deadlines by key, the earliest first: what the lease and tag tables use to know when to act. Pure."""

import heapq
from typing import Generic, TypeVar

KeyT = TypeVar("KeyT", bound=str)

NEVER_S = float("inf")


class Deadlines(Generic[KeyT]):
    """One deadline per key. Moving one later costs nothing until it would have fired. Memory is O(keys)."""

    __slots__ = ("_at", "_heap")

    def __init__(self) -> None:
        self._at: dict[KeyT, float] = {}
        self._heap: list[tuple[float, KeyT]] = []

    def set(self, key: KeyT, at_s: float) -> None:
        """Give the key this deadline, whatever it had."""
        known = self._at.get(key)
        self._at[key] = at_s
        if known is None or at_s < known:
            heapq.heappush(self._heap, (at_s, key))
            if len(self._heap) > 2 * len(self._at) + 64:
                self._rebuild()

    def drop(self, key: KeyT) -> None:
        """No deadline any more; nothing happens when there was none."""
        self._at.pop(key, None)

    def at_s(self, key: KeyT) -> float:
        """When the key is due; NEVER_S without a deadline."""
        return self._at.get(key, NEVER_S)

    def not_before_s(self) -> float:
        """Nothing is due before this; as cheap as can be, and often earlier than `next_s`."""
        return self._heap[0][0] if self._heap else NEVER_S

    def next_s(self) -> float:
        """When to look again: the earliest deadline."""
        self._settle()
        return self._heap[0][0] if self._heap else NEVER_S

    def pop_due(self, now_s: float) -> list[KeyT]:
        """The keys whose deadline has come, earliest first; they have none any more."""
        due = []
        while self.next_s() <= now_s:
            _, key = heapq.heappop(self._heap)
            del self._at[key]
            due.append(key)
        return due

    def clear(self) -> None:
        """Forget all."""
        self._at.clear()
        self._heap.clear()

    def _settle(self) -> None:
        """Bring the true earliest to the top: entries of dropped keys go, entries of moved keys move."""
        heap, at = self._heap, self._at
        while heap:
            listed_s, key = heap[0]
            true_s = at.get(key)
            if true_s is None or true_s < listed_s:
                heapq.heappop(heap)
            elif true_s > listed_s:
                heapq.heapreplace(heap, (true_s, key))
            else:
                return

    def _rebuild(self) -> None:
        self._heap = [(at_s, key) for key, at_s in self._at.items()]
        heapq.heapify(self._heap)
