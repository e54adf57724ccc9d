"""Which cached leaf goes first: fewest session references, then the policy's own key, then least recently used.

SGLang's order with --enable-session-radix-cache, and the bare policy's without sessions. The policy's key is, for
`priority`, the node's priority as with --radix-eviction-policy priority; for `lru`, what sessions are worth keeping as
with our plugin, and nothing if nobody says so. Knows neither pages nor tiers' sizes; called by the RadixTree alone.
"""

import heapq
from collections.abc import Iterable
from typing import Final

from saga.engine.radix_node import Node, parent_of
from saga.engine.settings import Eviction

_Entry = tuple[int, float, int, int, Node]
_SPARE: Final = 4_096  # entries that are left alone


class EvictionOrder:
    """Candidates of both tiers in order, and the session references that the order depends on."""

    def __init__(self, eviction: Eviction) -> None:
        self._by_priority = eviction == "priority"
        self._tagged: dict[str, dict[Node, None]] = {}
        self._values: dict[str, float] = {}
        self._offers = 0
        # Entries may be stale: keys only rise between pushes (use), and whatever lowers one pushes anew.
        self._heap: list[_Entry] = []
        self._tidy_at = _SPARE
        self._host_heap: list[tuple[int, int, int, Node]] = []

    # Candidates.

    def offer(self, node: Node) -> None:
        """Make it a candidate, if it is a device leaf that nobody holds."""
        if node.locks or node.device_children or not node.device or node.parent is None:
            return
        self._offers += 1
        heapq.heappush(self._heap, (len(node.sessions), self._worth(node), node.used_at, self._offers, node))
        if len(self._heap) > self._tidy_at:
            self._tidy()

    def _tidy(self) -> None:
        """Drop entries that `take` would pass over, and of each candidate all but the one that comes first: with room
        in the cache nothing is taken, and every use of a leaf leaves one behind. The order of what is left is the same.
        """
        first: dict[Node, tuple[bool, _Entry]] = {}
        for entry in self._heap:
            node = entry[-1]
            if node.parent is None or node.locks or node.device_children or not node.device:
                continue
            stale = entry[:3] != (len(node.sessions), self._worth(node), node.used_at)
            known = first.get(node)
            if known is None or (stale, entry[:4]) < (known[0], known[1][:4]):
                first[node] = (stale, entry)
        self._heap = [entry for _, entry in first.values()]
        heapq.heapify(self._heap)
        self._tidy_at = 2 * len(self._heap) + _SPARE

    def take(self) -> Node | None:
        """The device leaf to evict next, no candidate any more; None when there is none."""
        heap = self._heap
        while heap:
            references, worth, used_at, _, node = heapq.heappop(heap)
            if node.parent is None or node.locks or node.device_children or not node.device:
                continue
            if (references, worth, used_at) != (len(node.sessions), self._worth(node), node.used_at):
                self.offer(node)
                continue
            return node
        return None

    def offer_host(self, node: Node) -> None:
        """Make it a candidate for leaving the host tier, if it is a leaf; only the host has it."""
        if not node.children:
            self._offers += 1
            rank = node.priority if self._by_priority else 0
            heapq.heappush(self._host_heap, (rank, node.used_at, self._offers, node))

    def take_host(self) -> Node:
        """The leaf to drop next from the host tier; the caller knows that there is one. By policy and use alone."""
        while True:
            rank, used_at, _, node = heapq.heappop(self._host_heap)
            if node.parent is None or node.device or node.children:
                continue
            if used_at != node.used_at or (self._by_priority and rank != node.priority):
                self.offer_host(node)
                continue
            return node

    def _worth(self, node: Node) -> float:
        if self._by_priority:
            return node.priority
        if not self._values or not node.sessions:
            return 0.0
        return max(self._values.get(session_id, 0.0) for session_id in node.sessions)

    # Session references.

    def tag(self, session_id: str, node: Node) -> None:
        """Add a session reference to `node` and its ancestors."""
        tagged = self._tagged.setdefault(session_id, {})
        while node.parent is not None and session_id not in node.sessions:
            node.sessions.add(session_id)
            tagged[node] = None
            node = node.parent

    def untag(self, session_id: str) -> int:
        """Drop all references of a session and its value; returns how many nodes had one."""
        tagged = self._tagged.pop(session_id, {})
        self._values.pop(session_id, None)
        for node in tagged:
            node.sessions.discard(session_id)
            self.offer(node)
        return len(tagged)

    def set_value(self, session_id: str, value: float) -> None:
        """How much keeping the session's pages is worth: higher goes later, among equal reference counts. Default 0.

        Has no effect with `priority`: an engine has one policy.
        """
        if self._values.get(session_id, 0.0) != value:
            self._values[session_id] = value
            for node in self._tagged.get(session_id, ()):
                self.offer(node)

    def cut(self, upper: Node, node: Node) -> None:
        """`upper` was cut off the top of `node`: it has the same references and the same priority."""
        upper.priority = node.priority
        upper.sessions = set(node.sessions)
        for session_id in upper.sessions:
            self._tagged[session_id][upper] = None

    def forget(self, node: Node) -> None:
        """It is deleted."""
        for session_id in node.sessions:
            tagged = self._tagged[session_id]
            del tagged[node]
            if not tagged:
                del self._tagged[session_id]

    def tagged_sessions(self) -> dict[str, int]:
        """Cached pages that each session references."""
        return {session: sum(node.pages for node in nodes) for session, nodes in self._tagged.items() if nodes}

    def check(self, nodes: Iterable[Node], root: Node) -> None:
        """Assert that candidates and references agree with the tree's nodes."""
        candidates = {(id(entry[-1]), *entry[:3]) for entry in self._heap}
        host_candidates = {id(entry[-1]) for entry in self._host_heap}
        tagged: dict[str, dict[Node, None]] = {}
        for node in nodes:
            parent = parent_of(node)
            assert parent is root or parent.sessions >= node.sessions
            assert not self._by_priority or parent is root or parent.priority >= node.priority
            if node.device and not node.locks and not node.device_children:
                assert any(entry[0] == id(node) for entry in candidates), "an evictable leaf is no candidate"
                ours = (len(node.sessions), self._worth(node), node.used_at)
                assert any(e[0] == id(node) and e[1:] <= ours for e in candidates), "a candidate comes too late"
            assert node.device or node.children or id(node) in host_candidates, "a host leaf is no candidate"
            for session_id in node.sessions:
                tagged.setdefault(session_id, {})[node] = None
        assert tagged == {session: nodes for session, nodes in self._tagged.items() if nodes}
