"""The prefix cache: a radix tree of KV pages with reference locks and session references.

Keys are page hash chains, so a page's hash says all that came before it; a node is a run of pages. Eviction takes whole
leaves that no request holds: fewest session references first, then the lowest value, then least recently used. That is
SGLang's order with --enable-session-radix-cache, and plain LRU without sessions. With a host tier every page is written
through to host memory, so eviction leaves a node behind as host-only. Knows nothing of requests; called by the pool.
"""

import heapq
from collections.abc import Iterator
from typing import NamedTuple

from saga.kv.pages import HASH_BYTES


class Node:
    """A run of pages below its parent. `locks`: requests that hold it or anything below it."""

    __slots__ = (
        "children",
        "device",
        "device_children",
        "hashes",
        "idle_since_s",
        "locks",
        "pages",
        "parent",
        "sessions",
        "used_at",
    )

    def __init__(self, parent: "Node | None", hashes: bytes) -> None:
        self.parent = parent
        self.hashes = hashes
        self.pages = len(hashes) // HASH_BYTES
        self.children: dict[bytes, Node] = {}
        self.device = True
        """Whether its pages are on the device; if not, the host tier has them."""
        self.device_children = 0
        self.locks = 0
        self.used_at = 0
        self.idle_since_s = 0.0
        """When the last request let go of it; means nothing while `locks`."""
        self.sessions: set[str] = set()

    @property
    def tip(self) -> bytes:
        """Hash of its last page; b"" for the root."""
        return self.hashes[-HASH_BYTES:]


class Inserted(NamedTuple):
    """Where an insertion ended and what was new to both tiers."""

    node: Node
    new_pages: int
    parent_tip: bytes
    new_hashes: bytes


class RadixTree:
    """Cached pages. `pages`: on the device; `locked_pages`: those of them that cannot be evicted now."""

    def __init__(self, host_pages: int = 0) -> None:
        """`host_pages`: size of the host tier, larger than the device's; 0: none."""
        self.root = Node(None, b"")
        self.pages = 0
        self.locked_pages = 0
        self.total_pages = 0
        """In either tier; with a host tier all of them are in it."""
        self.evicted_pages = 0
        """From the device, in all."""
        self.changes = 0
        """Rises whenever a match could come out otherwise than before."""
        self._host_pages = host_pages
        self._tagged: dict[str, dict[Node, None]] = {}
        self._values: dict[str, float] = {}
        self._uses = 0
        self._order = 0
        # Entries may be stale: keys only rise between pushes (use), and whatever lowers one pushes anew.
        self._heap: list[tuple[int, float, int, int, Node]] = []
        self._host_heap: list[tuple[int, int, Node]] = []

    @property
    def evictable_pages(self) -> int:
        """Device pages that eviction could free, leaf by leaf."""
        return self.pages - self.locked_pages

    def match(self, hashes: bytes, max_pages: int) -> tuple[Node, int]:
        """(deepest node, pages) of the longest prefix of `hashes` on the device, at most `max_pages`; marks it as used.

        A node that matches in part is split, so that the returned node ends exactly where the match does.
        """
        self._uses += 1
        node, offset = self._walk(self.root, hashes, 0, min(len(hashes), max_pages * HASH_BYTES), host=False)
        return node, offset // HASH_BYTES

    def match_host(self, node: Node, hashes: bytes, pages: int, max_pages: int) -> tuple[Node, int]:
        """As `match`, from `node` at `pages` on, through the host tier."""
        end = min(len(hashes), max_pages * HASH_BYTES)
        node, offset = self._walk(node, hashes, pages * HASH_BYTES, end, host=True)
        return node, offset // HASH_BYTES

    def peek(self, hashes: bytes, max_pages: int) -> tuple[int, int]:
        """(pages on the device, pages in either tier) of the longest prefix; marks it as used but splits nothing."""
        self._uses = uses = self._uses + 1
        child = self.root.children.get(hashes[:HASH_BYTES])
        if child is None:
            return 0, 0
        offset = device = 0
        end = min(len(hashes), max_pages * HASH_BYTES)
        while child is not None and offset < end:
            common = _common_bytes(child.hashes, hashes, offset, end)
            child.used_at = uses
            offset += common
            if child.device:
                device = offset
            if common < len(child.hashes):
                break
            child = child.children.get(hashes[offset : offset + HASH_BYTES])
        return device // HASH_BYTES, offset // HASH_BYTES

    def insert(self, node: Node, hashes: bytes) -> Inserted:
        """Put the pages `hashes` on the device below `node`; pages that are there already are shared, not stored twice.

        `node` is on the device. The host tier may be too full afterwards: see `trim_host`.
        """
        self._uses += 1
        above = node
        end = len(hashes)
        node, offset = self._walk(node, hashes, 0, end, host=True)
        fetched = self._fetch(node, above)
        parent_tip = node.tip
        new_hashes = hashes[offset:]
        if new_hashes:
            leaf = Node(node, new_hashes)
            leaf.used_at = self._uses
            node.children[new_hashes[:HASH_BYTES]] = leaf
            node.device_children += 1
            self.pages += leaf.pages
            self.total_pages += leaf.pages
            self.changes += 1
            node = leaf
        if new_hashes or fetched:
            self._offer(node)
        return Inserted(node, len(new_hashes) // HASH_BYTES, parent_tip, new_hashes)

    def fetch(self, node: Node, above: Node) -> int:
        """Put `node` and its ancestors below `above`, which is on the device, on the device; returns their pages."""
        pages = self._fetch(node, above)
        self._offer(node)
        return pages

    def lock(self, node: Node, above: Node | None = None) -> None:
        """Hold `node` and its ancestors, up to but without `above` (which the caller holds already)."""
        while node is not above and (parent := node.parent) is not None:
            if node.locks == 0:
                self.locked_pages += node.pages
            node.locks += 1
            node = parent

    def unlock(self, node: Node, now_s: float | None = None) -> None:
        """Let go of `node` and its ancestors, and mark them as used; idle from `now_s` on, or from when they were."""
        self._uses += 1
        uses = self._uses
        while (parent := node.parent) is not None:
            node.locks -= 1
            node.used_at = uses
            if node.locks == 0:
                self.locked_pages -= node.pages
                if now_s is not None:
                    node.idle_since_s = now_s
                if not node.device_children:
                    self._offer(node)
            node = parent

    def tag(self, session_id: str, node: Node) -> None:
        """Add a session reference to `node` and its ancestors."""
        tagged = self._tagged.setdefault(session_id, {})
        while node is not self.root and session_id not in node.sessions:
            node.sessions.add(session_id)
            tagged[node] = None
            node = _parent(node)

    def untag(self, session_id: str) -> int:
        """Drop all references of a session and its value; returns how many nodes had one."""
        tagged = self._tagged.pop(session_id, {})
        self._values.pop(session_id, None)
        for node in tagged:
            node.sessions.discard(session_id)
            self._offer(node)
        return len(tagged)

    def set_value(self, session_id: str, value: float) -> None:
        """How much keeping the session's pages is worth: higher goes later, among equal reference counts. Default 0."""
        if self._values.get(session_id, 0.0) != value:
            self._values[session_id] = value
            for node in self._tagged.get(session_id, ()):
                self._offer(node)

    def evict(self, pages: int) -> list[bytes]:
        """Free at least `pages` device pages if so many are evictable; returns the hashes that are in no tier now."""
        removed = []
        freed = 0
        while freed < pages and self._heap:
            references, value, used_at, _, node = heapq.heappop(self._heap)
            if node.parent is None or node.locks or node.device_children or not node.device:
                continue
            if (references, value, used_at) != (len(node.sessions), self._value(node), node.used_at):
                self._offer(node)
                continue
            freed += node.pages
            if not self._host_pages:
                removed.append(node.hashes)
            self._leave_device(node)
        if freed:
            self.evicted_pages += freed
            self.changes += 1
        return removed

    def trim_host(self) -> list[bytes]:
        """Make the host tier fit its size: what only it holds goes, LRU leaf first; returns the hashes that went."""
        removed = []
        while self.total_pages > self._host_pages:
            used_at, _, node = heapq.heappop(self._host_heap)
            if node.parent is None or node.device or node.children:
                continue
            if used_at != node.used_at:
                self._offer_host(node)
                continue
            removed.append(node.hashes)
            self._delete(node)
        if removed:
            self.changes += 1
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

    def _walk(self, node: Node, hashes: bytes, offset: int, end: int, *, host: bool) -> tuple[Node, int]:
        """Go down along `hashes[offset:end]`, with `host` also where only the host has it; split where it ends."""
        uses = self._uses
        while offset < end:
            child = node.children.get(hashes[offset : offset + HASH_BYTES])
            if child is None or not (host or child.device):
                break
            length = len(child.hashes)
            if offset + length > end or not hashes.startswith(child.hashes, offset):
                length = _common_bytes(child.hashes, hashes, offset, end)
                if length < len(child.hashes):
                    child = self._split(child, length)
            child.used_at = uses
            node = child
            offset += length
        return node, offset

    def _fetch(self, node: Node, above: Node) -> int:
        pages = 0
        while node is not above and not node.device:
            node.device = True
            pages += node.pages
            node = _parent(node)
            node.device_children += 1
        self.pages += pages
        self.changes += pages > 0
        return pages

    def _leave_device(self, node: Node) -> None:
        parent = _parent(node)
        parent.device_children -= 1
        self.pages -= node.pages
        node.device = False
        if self._host_pages:
            self._offer_host(node)
        else:
            self._delete(node)
        self._offer(parent)

    def _delete(self, node: Node) -> None:
        parent = _parent(node)
        del parent.children[node.hashes[:HASH_BYTES]]
        node.parent = None
        self.total_pages -= node.pages
        for session_id in node.sessions:
            tagged = self._tagged[session_id]
            del tagged[node]
            if not tagged:
                del self._tagged[session_id]
        if not parent.device:
            self._offer_host(parent)

    def _offer(self, node: Node) -> None:
        """Make a device leaf that nobody holds a candidate for eviction."""
        if node.locks or node.device_children or not node.device or node.parent is None:
            return
        self._order += 1
        heapq.heappush(self._heap, (len(node.sessions), self._value(node), node.used_at, self._order, node))

    def _offer_host(self, node: Node) -> None:
        """Make a leaf that only the host has a candidate for eviction from there."""
        if not node.children:
            self._order += 1
            heapq.heappush(self._host_heap, (node.used_at, self._order, node))

    def _value(self, node: Node) -> float:
        if not self._values or not node.sessions:
            return 0.0
        return max(self._values.get(session_id, 0.0) for session_id in node.sessions)

    def _split(self, node: Node, at: int) -> Node:
        """Cut `node` after `at` bytes of hashes; the new upper part is returned, `node` stays the lower one."""
        parent = _parent(node)
        upper = Node(parent, node.hashes[:at])
        upper.device = node.device
        upper.device_children = int(node.device)
        upper.locks = node.locks
        upper.used_at = node.used_at
        upper.idle_since_s = node.idle_since_s
        upper.sessions = set(node.sessions)
        for session_id in upper.sessions:
            self._tagged[session_id][upper] = None
        node.used_at = self._uses  # as in SGLang: the rest of a node that is cut counts as used now
        parent.children[upper.hashes[:HASH_BYTES]] = upper
        node.parent = upper
        node.hashes = node.hashes[at:]
        node.pages -= upper.pages
        upper.children[node.hashes[:HASH_BYTES]] = node
        return upper

    def check(self) -> None:
        """Assert that counts, links and references agree with the tree."""
        pages = locked = total = 0
        candidates = {(id(entry[-1]), *entry[:3]) for entry in self._heap}
        host_candidates = {id(entry[-1]) for entry in self._host_heap}
        tagged: dict[str, dict[Node, None]] = {}
        for node in self.nodes():
            parent = _parent(node)
            assert node.hashes
            assert node.pages * HASH_BYTES == len(node.hashes)
            assert parent.children[node.hashes[:HASH_BYTES]] is node
            assert node.locks >= 0
            assert parent is self.root or parent.locks >= node.locks
            assert parent is self.root or parent.sessions >= node.sessions
            assert parent.device or not node.device, "on the device without its prefix"
            assert node.device or not node.locks, "held, but not on the device"
            assert node.device or self._host_pages, "in no tier"
            assert node.device_children == sum(child.device for child in node.children.values())
            if node.device and not node.locks and not node.device_children:
                assert any(entry[0] == id(node) for entry in candidates), "an evictable leaf is no candidate"
                ours = (len(node.sessions), self._value(node), node.used_at)
                assert any(e[0] == id(node) and e[1:] <= ours for e in candidates), "a candidate comes too late"
            assert node.device or node.children or id(node) in host_candidates, "a host leaf is no candidate"
            total += node.pages
            pages += node.pages if node.device else 0
            locked += node.pages if node.locks else 0
            for session_id in node.sessions:
                tagged.setdefault(session_id, {})[node] = None
        assert (pages, locked, total) == (self.pages, self.locked_pages, self.total_pages)
        assert not self._host_pages or total <= self._host_pages
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
