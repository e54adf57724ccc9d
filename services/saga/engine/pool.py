"""The KV pool: whole pages, shared between the prefix cache and the requests that run.

Accounts for each page once: in the tree (cached, perhaps locked) or private to one request. Allocating evicts as
needed, never more than is evictable. Called by EngineCore; tells what it stored and removed as effects.
"""

from saga.engine.events import Effect, Removed, Stored
from saga.engine.radix import RadixTree
from saga.engine.request import EngineRequest
from saga.kv.pages import HASH_BYTES


class KvPool:
    """Pages of one engine. Effects of what it does are appended to `effects`, which its owner empties."""

    def __init__(self, capacity_pages: int, page_tokens: int) -> None:
        self.capacity_pages = capacity_pages
        self.page_tokens = page_tokens
        self.tree = RadixTree()
        self.private_pages = 0
        self.evicted_pages = 0
        self.effects: list[Effect] = []

    @property
    def free_pages(self) -> int:
        """Pages that hold nothing."""
        return self.capacity_pages - self.tree.pages - self.private_pages

    @property
    def available_pages(self) -> int:
        """Pages that can be had: free ones and those of evictable cache."""
        return self.capacity_pages - self.tree.locked_pages - self.private_pages

    @property
    def used_tokens(self) -> int:
        """Tokens of room that running requests hold; evictable cache is not used."""
        return (self.tree.locked_pages + self.private_pages) * self.page_tokens

    def attach(self, request: EngineRequest) -> None:
        """Give a request the longest cached prefix of what it must fill, all but the last token of it at most."""
        fill_tokens = request.fill_tokens
        hashes = request.output.page_hashes(fill_tokens)
        node, pages = self.tree.match(hashes, (fill_tokens - 1) // self.page_tokens)
        self.tree.lock(node)
        request.node = node
        request.tree_pages = pages
        request.prefilled_tokens = request.held_tokens = pages * self.page_tokens

    def grow(self, request: EngineRequest, tokens: int) -> bool:
        """Make room for `tokens` tokens in all; False, and nothing changes, when there is not enough to be had."""
        short_tokens = tokens - request.held_tokens
        if short_tokens <= 0:
            return True
        pages = -(-short_tokens // self.page_tokens)
        missing = pages - self.free_pages
        if missing > 0:
            if pages > self.available_pages:
                return False
            for hashes in self.tree.evict(missing):
                self.evicted_pages += len(hashes) // HASH_BYTES
                self.effects.append(Removed(hashes))
        self.private_pages += pages
        request.private_pages += pages
        request.held_tokens += pages * self.page_tokens
        return True

    def cache(self, request: EngineRequest, tokens: int) -> None:
        """Hand the request's full pages among its first `tokens` tokens to the tree; it goes on holding them."""
        if request.node is None:
            return
        full_pages = tokens // self.page_tokens
        grown = full_pages - request.tree_pages
        if grown <= 0:
            return
        hashes = request.output.page_hashes(tokens)[request.tree_pages * HASH_BYTES : full_pages * HASH_BYTES]
        inserted = self.tree.insert(request.node, hashes)
        self.tree.lock(inserted.node, above=request.node)
        if inserted.new_hashes:
            first_page = full_pages - inserted.new_pages
            self.effects.append(
                Stored(request.rid, inserted.parent_tip, inserted.new_hashes, first_page, request.session_id)
            )
        # Pages that others had stored meanwhile are the same KV twice: ours are freed.
        request.node = inserted.node
        request.tree_pages = full_pages
        request.private_pages -= grown
        self.private_pages -= grown

    def release(self, request: EngineRequest) -> None:
        """Take back what the request holds; what is in the tree stays cached."""
        if request.node is not None:
            self.tree.unlock(request.node)
        self.private_pages -= request.private_pages
        request.node = None
        request.tree_pages = request.private_pages = request.held_tokens = request.prefilled_tokens = 0

    def clear(self) -> None:
        """Drop all cached pages; only without requests."""
        self.tree = RadixTree()

    def check(self, holders: list[EngineRequest]) -> None:
        """Assert that every page is accounted for once, given all requests that may hold pages."""
        self.tree.check()
        assert self.free_pages >= 0, "more pages in use than there are"
        assert self.private_pages == sum(request.private_pages for request in holders)
        locks: dict[int, int] = {}
        for request in holders:
            depth = 0
            node = request.node
            while node is not None and node is not self.tree.root:
                locks[id(node)] = locks.get(id(node), 0) + 1
                depth += node.pages
                node = node.parent
            assert depth == request.tree_pages
            assert request.held_tokens == (request.tree_pages + request.private_pages) * self.page_tokens
            assert request.private_pages >= 0
        for node in self.tree.nodes():
            assert node.locks == locks.get(id(node), 0), "a lock without a request, or the reverse"
