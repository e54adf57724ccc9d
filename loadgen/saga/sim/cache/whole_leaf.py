"""The engine's own radix tree under the trace: LRU by whole leaves, as SGLang evicts. Called by `bench`.

`WholeLeaf` alone is `lru`; with the session tags of `product` it is `saga`.
"""

from typing import Protocol

from saga.engine.radix import RadixTree
from saga.engine.radix_node import Node
from saga.kv.pages import HASH_BYTES
from saga.sim.cache.fitting import Stream
from saga.sim.cache.runs import page_hashes


class Tagging(Protocol):
    """Keeps session tags: told of every call, it opens and closes them in the tree."""

    def started(self, call: int, now_s: float) -> None:
        """A call begins; tags whose time has come are closed first."""
        ...

    def ended(self, call: int, node: Node, now_s: float) -> None:
        """It ended; its pages end with `node`."""
        ...


class Untagged:
    """No session is tagged."""

    def started(self, call: int, now_s: float) -> None:
        """Nothing to do."""

    def ended(self, call: int, node: Node, now_s: float) -> None:
        """Nothing to do."""


class WholeLeaf:
    """One pool. `run` drives a stream through it; `regenerated_pages` and `hit_pages` are the result."""

    def __init__(self, stream: Stream, tree: RadixTree, tagging: Tagging) -> None:
        self._stream = stream
        self._tree = tree
        self._tagging = tagging
        self._nodes: dict[int, Node] = {}  # where running calls end
        self.regenerated_pages = 0
        self.hit_pages = 0

    def run(self) -> None:
        """The whole stream."""
        stream, tree, calls = self._stream, self._tree, self._stream.trace.calls
        segments = stream.trace.segments
        for event in stream.events:
            call = calls[event.call]
            if not event.is_end:
                self._tagging.started(event.call, event.at_s)
                hit, node = self._hold(page_hashes(segments, call.prompt), None)
                self._nodes[event.call] = node
                self.hit_pages += hit
                self.regenerated_pages += max(0, stream.known_pages[event.call] - hit)
                continue
            node = self._nodes.pop(event.call)
            if stream.ends[event.call] != call.prompt:
                _, node = self._hold(page_hashes(segments, stream.ends[event.call]), node)
            self._tagging.ended(event.call, node, event.at_s)
            tree.unlock(node)

    def _hold(self, hashes: bytes, held: Node | None) -> tuple[int, Node]:
        """Lock a chain, of which `held` is locked already, and fill it: (pages that were there, where it ends)."""
        tree = self._tree
        pages = len(hashes) // HASH_BYTES
        node, hit = tree.match(hashes, pages)
        tree.lock(node, above=held)
        missing = pages - hit
        if missing == 0:
            return hit, node
        short = missing - (self._stream.capacity_pages - tree.pages)
        if short > 0:
            tree.evict(short)
        inserted = tree.insert(node, hashes[hit * HASH_BYTES :])
        tree.lock(inserted.node, above=node)
        return hit, inserted.node
