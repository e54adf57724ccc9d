"""Session tags as SGLang keeps them with --enable-session-radix-cache.

A tag is opened by hand or by its first request, given to a request's KV when the request ends, and dropped at close.
A request that began before a close must not tag anything after it: hence generations. Called by EngineCore.
"""

from saga.engine.radix import RadixTree
from saga.engine.radix_node import Node


class SessionTags:
    """Open session tags. With `enabled` False nothing is ever tagged, which leaves plain LRU."""

    def __init__(self, *, enabled: bool) -> None:
        self.enabled = enabled
        self._generations: dict[str, int] = {}
        self._opened = 0

    def open(self, session_id: str) -> int:
        """Begin a tag, anew if it is open; returns its generation."""
        self._opened += 1
        self._generations[session_id] = self._opened
        return self._opened

    def join(self, session_id: str) -> int:
        """The generation that a new request of the session belongs to; opens it implicitly. 0: no session."""
        if not session_id or not self.enabled:
            return 0
        return self._generations.get(session_id) or self.open(session_id)

    def close(self, session_id: str, tree: RadixTree) -> int:
        """Drop a tag; returns how many nodes lost a reference. Unknown ones are ignored."""
        self._generations.pop(session_id, None)
        return tree.untag(session_id)

    def value(self, session_id: str, value: float, tree: RadixTree) -> None:
        """Set what an open session's KV is worth keeping; ignored for others."""
        if session_id in self._generations:
            tree.set_value(session_id, value)

    def tag(self, session_id: str, generation: int, node: Node, tree: RadixTree) -> None:
        """Reference a finished request's KV, unless its session was closed or reopened since it arrived."""
        if generation and self._generations.get(session_id) == generation:
            tree.tag(session_id, node)

    @property
    def open_ids(self) -> list[str]:
        """Tags open now."""
        return list(self._generations)
