"""The KV pool: whole pages, shared between the prefix cache and the requests that run.

Accounts for each page once: in the tree (cached, perhaps locked) or private to one request. Allocating evicts as
needed, never more than is evictable. Called by EngineCore; tells what it stored and removed as effects, where a page
counts as stored while the device or the host tier has it. Also integrates what its room was used for.
"""

from operator import mul
from typing import Final

from saga.engine.events import Effect, Removed, Stored
from saga.engine.host_tier import HostTier
from saga.engine.radix import RadixTree
from saga.engine.radix_node import Node
from saga.engine.request import EngineRequest
from saga.engine.settings import Eviction
from saga.engine.shared_tier import TierLink
from saga.kv.pages import HASH_BYTES

_HIGHEST_PRIORITY: Final = (1 << 63) - 1


class KvPool:
    """Pages of one engine. Effects of what it does are appended to `effects`, which its owner empties."""

    def __init__(
        self, capacity_pages: int, page_tokens: int, host: HostTier | None = None, eviction: Eviction = "lru"
    ) -> None:
        self.capacity_pages = capacity_pages
        self.page_tokens = page_tokens
        self.host = host
        self.shared: TierLink | None = None
        """To a tier that other engines read, too; what is new to the host tier is written there."""
        self._eviction: Eviction = eviction
        self._by_priority = eviction == "priority"
        self.tree = self._new_tree()
        self.private_pages = 0
        self.reused_page_s = 0.0
        """Page-seconds that cached pages lay idle on the device before a request that started took them."""
        self.effects: list[Effect] = []
        self._evicted_before = 0
        self._now_s = 0.0
        self._in_use_page_s = 0.0

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

    @property
    def evicted_pages(self) -> int:
        """Pages evicted from the device, in all."""
        return self._evicted_before + self.tree.evicted_pages

    def in_use_page_s(self, now_s: float) -> float:
        """Integral of the pages that requests held, up to `now_s`; exact when it was told of every moment: `at`."""
        held_pages = self.tree.locked_pages + self.private_pages
        return self._in_use_page_s + held_pages * max(0.0, now_s - self._now_s)

    def at(self, now_s: float) -> None:
        """What follows happens at `now_s`. A time before the last (engines that share a pool) is taken as that."""
        if now_s > self._now_s:
            self._in_use_page_s += (self.tree.locked_pages + self.private_pages) * (now_s - self._now_s)
            self._now_s = now_s

    def most_pages(self, request: EngineRequest) -> int:
        """Pages of a request's prefix that may be cached: all but the page of its last token."""
        return (request.fill_tokens - 1) // self.page_tokens

    def attach(self, request: EngineRequest) -> None:
        """Give a request the longest prefix, on the device, of what it must fill; all but its last token at most."""
        fill_tokens = request.fill_tokens
        hashes = request.output.page_hashes(fill_tokens)
        node, pages = self.tree.match(hashes, (fill_tokens - 1) // self.page_tokens)
        self.tree.lock(node)
        request.node = node
        request.tree_pages = pages
        request.prefilled_tokens = request.held_tokens = pages * self.page_tokens

    def detach(self, request: EngineRequest) -> None:
        """Take back an `attach`: the request cannot start yet."""
        if request.node is not None:
            self.tree.unlock(request.node)
        request.node = None
        request.tree_pages = request.held_tokens = request.prefilled_tokens = 0

    def hosted_pages(self, request: EngineRequest) -> int:
        """Pages by which the prefix of an attached request goes on in the host tier."""
        if self.host is None:
            return 0
        fill_tokens = request.fill_tokens
        hashes = request.output.page_hashes(fill_tokens)
        most = (fill_tokens - 1) // self.page_tokens
        return max(0, self.tree.peek(hashes, most)[1] - request.tree_pages)

    def start(self, request: EngineRequest) -> None:
        """An attached request starts: count how long what it takes lay idle, and load back what the host has of it.

        The caller has seen to it that there is room.
        """
        node = request.node
        while node is not None and node.locks == 1:
            self.reused_page_s += node.pages * (self._now_s - node.idle_since_s)
            node = node.parent
        if self.host is None or request.node is None:
            return
        fill_tokens = request.fill_tokens
        hashes = request.output.page_hashes(fill_tokens)
        most = (fill_tokens - 1) // self.page_tokens
        last, pages = self.tree.match_host(request.node, hashes, request.tree_pages, most)
        loads = pages - request.tree_pages
        if loads <= 0:
            return
        self._free(loads)
        self.host.load(self.tree.fetch(last, request.node))
        self.tree.lock(last, above=request.node)
        request.node = last
        request.tree_pages = pages
        request.held_tokens = request.prefilled_tokens = pages * self.page_tokens

    def take(self, pages: list[int], at_s: list[float] | None = None, *, least_free: int = 0) -> None:
        """So many more pages become private to requests, who see to their own books; they are to be had.

        Each time at least `least_free` pages are free before, as far as eviction can see to it.
        Now, or one after the other at those times, none before the last that the pool was told of.
        """
        total = sum(pages)
        if at_s is not None:
            held_s = at_s[-1] * total - sum(map(mul, pages, at_s))
            self.at(at_s[-1])
            self._in_use_page_s += held_s
        wanted = max(total, total - pages[-1] + least_free) if pages else least_free
        if wanted > self.free_pages:
            self._free(min(wanted, self.available_pages))
        self.private_pages += total

    def grow(self, request: EngineRequest, tokens: int, *, spare_pages: int = 0) -> bool:
        """Make room for `tokens` tokens in all; False, and nothing changes, when there is not enough to be had.

        Before that so many spare pages are free besides, as far as eviction can see to it.
        """
        short_tokens = tokens - request.held_tokens
        if short_tokens <= 0:
            return True
        pages = -(-short_tokens // self.page_tokens)
        if pages > self.available_pages:
            return False
        if pages + spare_pages > self.free_pages:
            self._free(min(pages + spare_pages, self.available_pages))
        self.private_pages += pages
        request.private_pages += pages
        request.held_tokens += pages * self.page_tokens
        return True

    def cache(self, request: EngineRequest, tokens: int) -> None:
        """Hand the request's full pages among its first `tokens` tokens to the tree; it goes on holding them."""
        if request.node is None:
            return
        full_pages = tokens // self.page_tokens
        if full_pages > request.tree_pages:
            self._store(request, request.node, tokens, full_pages)
        if self._by_priority:
            self._prioritise(request, request.node, full_pages)

    def _store(self, request: EngineRequest, above: Node, tokens: int, full_pages: int) -> None:
        """The pages after `above`, where the request's part of the tree ends, become part of the tree."""
        grown = full_pages - request.tree_pages
        hashes = request.output.page_hashes(tokens)[request.tree_pages * HASH_BYTES : full_pages * HASH_BYTES]
        inserted = self.tree.insert(above, hashes, request.priority)
        self.tree.lock(inserted.node, above=above)
        # Pages that others had stored meanwhile are the same KV twice: ours are freed.
        request.node = inserted.node
        request.tree_pages = full_pages
        request.private_pages -= grown
        self.private_pages -= grown
        if inserted.new_hashes:
            first_page = full_pages - inserted.new_pages
            self.effects.append(
                Stored(request.rid, inserted.parent_tip, inserted.new_hashes, first_page, request.session_id)
            )
            if self.host is not None:
                self.host.write(inserted.new_pages, self._now_s)
                self.effects.extend(map(Removed, self.tree.trim_host()))
            if self.shared is not None:
                self.shared.write(inserted.new_hashes, self._now_s)

    def receive(self, request: EngineRequest, pages: int) -> None:
        """The first `pages` pages of a request that waits are in the host tier now: read from a shared one."""
        hashes = request.output.page_hashes(request.fill_tokens)[: pages * HASH_BYTES]
        inserted = self.tree.insert_host(hashes, request.priority)
        if inserted.new_hashes:
            first_page = pages - inserted.new_pages
            self.effects.append(
                Stored(request.rid, inserted.parent_tip, inserted.new_hashes, first_page, request.session_id)
            )
            self.effects.extend(map(Removed, self.tree.trim_host()))

    def _prioritise(self, request: EngineRequest, node: Node, full_pages: int) -> None:
        """Pages that a request computed or shares matter as much as it does; its prompt, once it says more, one more.

        As in SGLang, so that eviction drops what was said before what was asked.
        """
        self.tree.prioritise(node, request.priority)
        prompt_pages = request.prompt_tokens // self.page_tokens
        if 0 < prompt_pages < full_pages:
            prompt = self.tree.before(node, full_pages - prompt_pages)
            self.tree.prioritise(prompt, min(request.priority + 1, _HIGHEST_PRIORITY))

    def release(self, request: EngineRequest) -> None:
        """Take back what the request holds; what is in the tree stays cached."""
        if request.node is not None:
            self.tree.unlock(request.node, self._now_s)
        self.private_pages -= request.private_pages
        request.node = None
        request.tree_pages = request.private_pages = request.held_tokens = request.prefilled_tokens = 0

    def clear(self) -> None:
        """Drop all cached pages; only without requests."""
        self._evicted_before += self.tree.evicted_pages
        self.tree = self._new_tree()

    def _new_tree(self) -> RadixTree:
        return RadixTree(self.host.pages if self.host is not None else 0, self._eviction)

    def _free(self, pages: int) -> None:
        """Evict until that many pages are free."""
        missing = pages - self.free_pages
        if missing > 0:
            self.effects.extend(map(Removed, self.tree.evict(missing)))

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
