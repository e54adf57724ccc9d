"""All page chains of a trace as one tree of segments: runs of pages that every access takes whole or not at all. Data.

The trace is known beforehand, so the tree is built once and no policy ever splits a segment; a policy may hold a part
of one, its first pages. Built by `access`, read by all caches here.
"""

from array import array
from collections.abc import Iterable, Sequence

from msgspec import Struct

Run = tuple[int, int]
"""(first page id, pages): consecutive ids are consecutive pages; equal ids after equal pages are equal KV."""


class Segments(Struct, frozen=True):
    """Parallel lists by segment; 0 is the root, which has no pages. A parent comes before its children."""

    parent: list[int]
    pages: list[int]
    depth_pages: list[int]  # pages from the root to its end
    first_page: list[int]  # its pages are numbered from here, over the whole tree

    def path(self, segment: int) -> list[int]:
        """From this segment up to the root, which is left out."""
        found = []
        parent = self.parent
        while segment:
            found.append(segment)
            segment = parent[segment]
        return found


class Growing:
    """A node of the tree while it is built. Its end never moves: a cut makes a new node above it."""

    __slots__ = ("children", "first", "named", "pages", "parent")

    def __init__(self, parent: "Growing | None", first: int, pages: int) -> None:
        self.parent = parent
        self.first = first
        self.pages = pages
        self.children: dict[int, Growing] = {}
        self.named = False  # an access ends here


class TreeBuilder:
    """Grows by chains, then freezes."""

    def __init__(self) -> None:
        self.root = Growing(None, 0, 0)

    def extend(self, node: Growing, runs: Iterable[Run]) -> Growing:
        """The node at the end of these pages below `node`, made as needed."""
        for first, count in runs:
            first_id, left = first, count
            while left:
                child = node.children.get(first_id)
                if child is None:
                    child = node.children[first_id] = Growing(node, first_id, left)
                elif child.pages > left:
                    child = _cut(child, left)
                node = child
                first_id += child.pages
                left -= child.pages
        node.named = True
        return node

    def freeze(self) -> tuple[Segments, dict[Growing, int]]:
        """The segments, and which of them ends with each node that an access ends with."""
        parents, pages, depths, firsts = [0], [0], [0], [0]
        numbers = {self.root: 0}
        total = 0
        stack = [(child, 0) for child in reversed(self.root.children.values())]
        while stack:
            node, above = stack.pop()
            size = node.pages
            while not node.named and len(node.children) == 1:
                (node,) = node.children.values()
                size += node.pages
            number = len(parents)
            numbers[node] = number
            parents.append(above)
            pages.append(size)
            depths.append(depths[above] + size)
            firsts.append(total)
            total += size
            stack.extend((child, number) for child in reversed(node.children.values()))
        return Segments(parents, pages, depths, firsts), numbers


def first_pages(runs: Sequence[Run], pages: int) -> list[Run]:
    """The first `pages` pages of a chain."""
    taken: list[Run] = []
    for first, count in runs:
        if pages <= 0:
            break
        taken.append((first, min(count, pages)))
        pages -= count
    return taken


def without_first(runs: Sequence[Run], pages: int) -> list[Run]:
    """A chain without its first `pages` pages."""
    left: list[Run] = []
    for first, count in runs:
        skipped = min(count, pages)
        pages -= skipped
        if count > skipped:
            left.append((first + skipped, count - skipped))
    return left


def page_hashes(segments: Segments, end: int) -> bytes:
    """A chain as the tree wants it. Pages are numbered, so any two that differ have different hashes."""
    hashes = array("Q")
    for segment in reversed(segments.path(end)):
        first = segments.first_page[segment]
        hashes.extend(range(first, first + segments.pages[segment]))
    return hashes.tobytes()


def _cut(node: Growing, pages: int) -> Growing:
    """A new node for the first pages of `node`, which stays the lower one."""
    parent = node.parent
    if parent is None:
        raise AssertionError("the root cannot be cut")
    upper = Growing(parent, node.first, pages)
    parent.children[node.first] = upper
    node.first += pages
    node.pages -= pages
    node.parent = upper
    upper.children[node.first] = node
    return upper
