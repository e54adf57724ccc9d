"""The prefix cache: a radix tree of KV pages with reference locks, session references and priorities.

Keys are page hash chains, so a page's hash says all that came before it; a node is a run of pages. Eviction takes whole
leaves that no request holds, in the order of EvictionOrder. With a host tier every page is written through to host
memory, so eviction leaves a node behind as host-only. Knows nothing of requests; called by the pool.
"""

from collections.abc import Iterator
from typing import NamedTuple

from saga.engine.eviction import EvictionOrder
from saga.engine.radix_node import Node, common_bytes, parent_of
from saga.engine.settings import Eviction
from saga.kv.pages import HASH_BYTES


class Inserted(NamedTuple):
    """Where an insertion ended and what was new to both tiers."""

    node: Node
    new_pages: int
    parent_tip: bytes
    new_hashes: bytes


class RadixTree:
    """Cached pages. `pages`: on the device; `locked_pages`: those of them that cannot be evicted now."""

    def __init__(self, host_pages: int = 0, eviction: Eviction = "lru") -> None:
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
        self._uses = 0
        self._order = EvictionOrder(eviction)
        self._offer = self._order.offer

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
            common = common_bytes(child.hashes, hashes, offset, end)
            child.used_at = uses
            offset += common
            if child.device:
                device = offset
            if common < len(child.hashes):
                break
            child = child.children.get(hashes[offset : offset + HASH_BYTES])
        return device // HASH_BYTES, offset // HASH_BYTES

    def insert(self, node: Node, hashes: bytes, priority: int = 0) -> Inserted:
        """Put the pages `hashes` on the device below `node`; pages that are there already are shared, not stored twice.

        `node` is on the device. `priority`: of what is new; for what was there see `prioritise`. The host tier may be
        too full afterwards: see `trim_host`.
        """
        self._uses += 1
        above = node
        end = len(hashes)
        node, offset = self._walk(node, hashes, 0, end, host=True)
        fetched = self._fetch(node, above)
        parent_tip = node.tip
        new_hashes = hashes[offset:]
        if new_hashes:
            leaf = Node(node, new_hashes, priority)
            self.prioritise(node, priority)
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

    def insert_host(self, hashes: bytes, priority: int = 0) -> Inserted:
        """Put the pages of a whole prefix into the host tier, as far as neither tier has them; trim it afterwards."""
        self._uses += 1
        node, offset = self._walk(self.root, hashes, 0, len(hashes), host=True)
        parent_tip = node.tip
        new_hashes = hashes[offset:]
        if new_hashes:
            leaf = Node(node, new_hashes, priority)
            leaf.device = False
            self.prioritise(node, priority)
            leaf.used_at = self._uses
            node.children[new_hashes[:HASH_BYTES]] = leaf
            self.total_pages += leaf.pages
            self.changes += 1
            self._order.offer_host(leaf)
            node = leaf
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

    def prioritise(self, node: Node, priority: int) -> None:
        """`node` and all above it matter at least so much; acts on eviction with `priority` only. Never falls again."""
        while node.priority < priority and node.parent is not None:
            node.priority = priority
            node = node.parent

    def before(self, node: Node, pages: int) -> Node:
        """The node that ends so many pages before the end of `node`; one that goes on after that is split."""
        while pages >= node.pages:
            pages -= node.pages
            node = parent_of(node)
        return self._split(node, (node.pages - pages) * HASH_BYTES) if pages else node

    def tag(self, session_id: str, node: Node) -> None:
        """Add a session reference to `node` and its ancestors."""
        self._order.tag(session_id, node)

    def untag(self, session_id: str) -> int:
        """Drop all references of a session and its value; returns how many nodes had one."""
        return self._order.untag(session_id)

    def set_value(self, session_id: str, value: float) -> None:
        """How much keeping the session's pages is worth; see EvictionOrder."""
        self._order.set_value(session_id, value)

    def tagged_sessions(self) -> dict[str, int]:
        """Cached pages that each session references."""
        return self._order.tagged_sessions()

    def evict(self, pages: int) -> list[bytes]:
        """Free at least `pages` device pages if so many are evictable; returns the hashes that are in no tier now."""
        removed = []
        freed = 0
        while freed < pages and (node := self._order.take()) is not None:
            freed += node.pages
            if not self._host_pages:
                removed.append(node.hashes)
            self._leave_device(node)
        if freed:
            self.evicted_pages += freed
            self.changes += 1
        return removed

    def trim_host(self) -> list[bytes]:
        """Make the host tier fit its size: what only it holds goes, leaf by leaf; returns the hashes that went."""
        removed = []
        while self.total_pages > self._host_pages:
            node = self._order.take_host()
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

    def _walk(self, node: Node, hashes: bytes, offset: int, end: int, *, host: bool) -> tuple[Node, int]:
        """Go down along `hashes[offset:end]`, with `host` also where only the host has it; split where it ends."""
        uses = self._uses
        while offset < end:
            child = node.children.get(hashes[offset : offset + HASH_BYTES])
            if child is None or not (host or child.device):
                break
            length = len(child.hashes)
            if offset + length > end or not hashes.startswith(child.hashes, offset):
                length = common_bytes(child.hashes, hashes, offset, end)
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
            node = parent_of(node)
            node.device_children += 1
        self.pages += pages
        self.changes += pages > 0
        return pages

    def _leave_device(self, node: Node) -> None:
        parent = parent_of(node)
        parent.device_children -= 1
        self.pages -= node.pages
        node.device = False
        if self._host_pages:
            self._order.offer_host(node)
        else:
            self._delete(node)
        self._offer(parent)

    def _delete(self, node: Node) -> None:
        parent = parent_of(node)
        del parent.children[node.hashes[:HASH_BYTES]]
        node.parent = None
        self.total_pages -= node.pages
        self._order.forget(node)
        if not parent.device:
            self._order.offer_host(parent)

    def _split(self, node: Node, at: int) -> Node:
        """Cut `node` after `at` bytes of hashes; the new upper part is returned, `node` stays the lower one."""
        parent = parent_of(node)
        upper = Node(parent, node.hashes[:at])
        upper.device = node.device
        upper.device_children = int(node.device)
        upper.locks = node.locks
        upper.used_at = node.used_at
        upper.idle_since_s = node.idle_since_s
        self._order.cut(upper, node)
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
        self._order.check(self.nodes(), self.root)
        for node in self.nodes():
            parent = parent_of(node)
            assert node.hashes
            assert node.pages * HASH_BYTES == len(node.hashes)
            assert parent.children[node.hashes[:HASH_BYTES]] is node
            assert node.locks >= 0
            assert parent is self.root or parent.locks >= node.locks
            assert parent.device or not node.device, "on the device without its prefix"
            assert node.device or not node.locks, "held, but not on the device"
            assert node.device or self._host_pages, "in no tier"
            assert node.device_children == sum(child.device for child in node.children.values())
            total += node.pages
            pages += node.pages if node.device else 0
            locked += node.pages if node.locks else 0
        assert (pages, locked, total) == (self.pages, self.locked_pages, self.total_pages)
        assert not self._host_pages or total <= self._host_pages
