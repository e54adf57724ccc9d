"""The engine's waiting queue: first come, first served, or higher priority first where priorities are enabled.

A retracted request goes to the back of its class, as in SGLang. Called by EngineCore.
"""

import bisect
from collections.abc import Iterator

from saga.engine.request import EngineRequest


class WaitingQueue:
    """Requests that do not run yet, in the order in which they will be tried."""

    def __init__(self, *, by_priority: bool) -> None:
        self._by_priority = by_priority
        self._entries: list[tuple[int, int, EngineRequest]] = []
        self._added = 0

    def add(self, request: EngineRequest) -> None:
        """Queue a request behind those that come before it."""
        self._added += 1
        rank = -request.priority if self._by_priority else 0
        bisect.insort(self._entries, (rank, self._added, request))

    def head(self) -> EngineRequest | None:
        """The next one to try."""
        return self._entries[0][2] if self._entries else None

    def pop(self) -> EngineRequest:
        """Take the next one out."""
        return self._entries.pop(0)[2]

    def remove(self, request: EngineRequest) -> None:
        """Take one out, wherever it stands."""
        self._entries = [entry for entry in self._entries if entry[2] is not request]

    def __len__(self) -> int:
        return len(self._entries)

    def __iter__(self) -> Iterator[EngineRequest]:
        return (entry[2] for entry in self._entries)
