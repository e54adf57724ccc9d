"""The prefix cache: a radix tree of KV pages with reference locks and session references.

Keys are page hash chains, so a page's hash says all that came before it; a node is a run of pages. Eviction takes whole
leaves that no request holds, fewest session references first, then least recently used: SGLang's order with
--enable-session-radix-cache, plain LRU without sessions. Knows nothing of requests or time; called by EngineCore.
"""

import heapq
from collections.abc import Iterator
from typing import NamedTuple

from saga.kv.pages import HASH_BYTES


class Node:
    """A run of pages below its parent. `locks`: requests that hold it or anything below it."""

    __slots__ = ("children", "hashes", "locks", "parent", "sessions", "used_at")

    def __init__(self, parent: "Node | None", hashes: bytes) -> None:
        self.parent = parent
        self.hashes = hashes
        self.children: dict[bytes, Node] = {}
        self.locks = 0
        self.used_at = 0
        self.sessions: set[str] = set()

    @property
    def pages(self) -> int:
        """Pages in this node alone."""
        return len(self.hashes) // HASH_BYTES

    @property
    def tip(self) -> bytes:
        """Hash of its last page; b"" for the root."""
        return self.hashes[-HASH_BYTES:]


class Inserted(NamedTuple):
    """Where an insertion ended and what was new."""

    node: Node
    new_pages: int
    parent_tip: bytes
    new_hashes: bytes


class RadixTree:
    """Cached pages. `pages`: all of them; `locked_pages`: those that cannot be evicted now."""

    def __init__(self) -> None:
        self.root = Node(None, b"")
        self.pages = 0
        self.locked_pages = 0
        self._tagged: dict[str, set[Node]] = {}
        self._uses = 0
        self._order = 0
        # Entries may be stale: keys only rise between pushes (use) except when a tag is dropped, which pushes anew.
        self._heap: list[tuple[int, int, int, Node]] = []

    @property
    def evictable_pages(self) -> int:
        """Pages that eviction could free, leaf by leaf."""
        return self.pages - self.locked_pages

    def match(self, hashes: bytes, max_pages: int) -> tuple[Node, int]:
        """(deepest node, pages) of the longest cached prefix of `hashes`, at most `max_pages`; marks it as used.

        A node that matches in part is split, so that the returned node ends exactly where the match does.
        """
        self._uses += 1
        node = self.root
        offset = 0
        end = min(len(hashes), max_pages * HASH_BYTES)
        while offset < end:
            child = node.children.get(hashes[offset : offset + HASH_BYTES])
            if child is None:
                break
            common = _common_bytes(child.hashes, hashes, offset, end)
            if common < len(child.hashes):
                child = self._split(child, common)
            child.used_at = self._uses
            node = child
            offset += common
        return node, offset // HASH_BYTES

    def insert(self, node: Node, hashes: bytes) -> Inserted:
        """Put the pages `hashes` below `node`; pages that are there already are shared, not stored twice."""
        self._uses += 1
        offset = 0
        end = len(hashes)
        while offset < end:
            child = node.children.get(hashes[offset : offset + HASH_BYTES])
            if child is None:
                break
            common = _common_bytes(child.hashes, hashes, offset, end)
            if common < len(child.hashes):
                child = self._split(child, common)
            child.used_at = self._uses
            node = child
            offset += common
        parent_tip = node.tip
        new_hashes = hashes[offset:]
        if new_hashes:
            leaf = Node(node, new_hashes)
            leaf.used_at = self._uses
            node.children[new_hashes[:HASH_BYTES]] = leaf
            self.pages += leaf.pages
            self._offer(leaf)
            node = leaf
        return Inserted(node, len(new_hashes) // HASH_BYTES, parent_tip, new_hashes)

    def lock(self, node: Node, above: Node | None = None) -> None:
        """Hold `node` and its ancestors, up to but without `above` (which the caller holds already)."""
        stop = above or self.root
        while node is not stop:
            if node.locks == 0:
                self.locked_pages += node.pages
            node.locks += 1
            node = _parent(node)

    def unlock(self, node: Node) -> None:
        """Let go of `node` and its ancestors, and mark them as used."""
        self._uses += 1
        while node is not self.root:
            node.locks -= 1
            node.used_at = self._uses
            if node.locks == 0:
                self.locked_pages -= node.pages
                self._offer(node)
            node = _parent(node)

    def tag(self, session_id: str, node: Node) -> None:
        """Add a session reference to `node` and its ancestors."""
        tagged = self._tagged.setdefault(session_id, set())
        while node is not self.root and session_id not in node.sessions:
            node.sessions.add(session_id)
            tagged.add(node)
            node = _parent(node)

    def untag(self, session_id: str) -> int:
        """Drop all references of a session; returns how many nodes had one."""
        tagged = self._tagged.pop(session_id, set())
        for node in tagged:
            node.sessions.discard(session_id)
            self._offer(node)
        return len(tagged)

    def evict(self, pages: int) -> list[bytes]:
        """Free at least `pages` pages if so many are evictable; returns the page hashes of each leaf taken."""
        removed = []
        freed = 0
        while freed < pages and self._heap:
            references, used_at, _, node = heapq.heappop(self._heap)
            if node.parent is None or node.locks or node.children:
                continue
            if (references, used_at) != (len(node.sessions), node.used_at):
                self._offer(node)
                continue
            freed += node.pages
            removed.append(node.hashes)
            self._delete(node)
        return removed

    def nodes(self) -> Iterator[Node]:
        """All nodes but the root, parents before children."""
        stack = list(self.root.children.values())
        while stack:
            node = stack.pop()
            yield node
            stack.extend(node.children.values())

    def tagged_sessions(self) -> dict[str, int]:
        """Cached pages that each session references."""
        return {session: sum(node.pages for node in nodes) for session, nodes in self._tagged.items() if nodes}

    def _delete(self, node: Node) -> None:
        parent = _parent(node)
        del parent.children[node.hashes[:HASH_BYTES]]
        node.parent = None
        self.pages -= node.pages
        for session_id in node.sessions:
            tagged = self._tagged[session_id]
            tagged.discard(node)
            if not tagged:
                del self._tagged[session_id]
        self._offer(parent)

    def _offer(self, node: Node) -> None:
        """Make a leaf that nobody holds a candidate for eviction."""
        if node.parent is None or node.locks or node.children:
            return
        self._order += 1
        heapq.heappush(self._heap, (len(node.sessions), node.used_at, self._order, node))

    def _split(self, node: Node, at: int) -> Node:
        """Cut `node` after `at` bytes of hashes; the new upper part is returned, `node` stays the lower one."""
        parent = _parent(node)
        upper = Node(parent, node.hashes[:at])
        upper.locks = node.locks
        upper.used_at = node.used_at
        upper.sessions = set(node.sessions)
        for session_id in upper.sessions:
            self._tagged[session_id].add(upper)
        parent.children[upper.hashes[:HASH_BYTES]] = upper
        node.parent = upper
        node.hashes = node.hashes[at:]
        upper.children[node.hashes[:HASH_BYTES]] = node
        return upper

    def check(self) -> None:
        """Assert that counts, links and references agree with the tree."""
        pages = locked = 0
        candidates = {id(entry[3]) for entry in self._heap}
        tagged: dict[str, set[Node]] = {}
        for node in self.nodes():
            parent = _parent(node)
            assert node.hashes
            assert parent.children[node.hashes[:HASH_BYTES]] is node
            assert node.locks >= 0
            assert parent is self.root or parent.locks >= node.locks
            assert parent is self.root or parent.sessions >= node.sessions
            assert node.locks or node.children or id(node) in candidates, "an evictable leaf is no candidate"
            pages += node.pages
            locked += node.pages if node.locks else 0
            for session_id in node.sessions:
                tagged.setdefault(session_id, set()).add(node)
        assert (pages, locked) == (self.pages, self.locked_pages)
        assert tagged == {session: nodes for session, nodes in self._tagged.items() if nodes}


def _parent(node: Node) -> Node:
    if node.parent is None:
        raise AssertionError("a deleted node or the root has no parent")
    return node.parent


def _common_bytes(ours: bytes, theirs: bytes, offset: int, end: int) -> int:
    """Bytes of whole hashes that `ours` shares with `theirs[offset:end]`; hashes chain, so a match has no holes."""
    length = min(len(ours), end - offset)
    if ours[:length] == theirs[offset : offset + length]:
        return length
    low, high = 0, length // HASH_BYTES  # the first `low` hashes match, the first `high` do not
    while high - low > 1:
        middle = (low + high) // 2
        at = (middle - 1) * HASH_BYTES
        if ours[at : at + HASH_BYTES] == theirs[offset + at : offset + at + HASH_BYTES]:
            low = middle
        else:
            high = middle
    return low * HASH_BYTES
