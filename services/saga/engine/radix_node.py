"""A node of the prefix cache: a run of pages, where it lies, who holds it and what its eviction depends on.

Plain data with slots, since simulations make millions of them. Changed by the RadixTree; read by EvictionOrder, the
pool and requests.
"""

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
        "priority",
        "sessions",
        "used_at",
    )

    def __init__(self, parent: "Node | None", hashes: bytes, priority: int = 0) -> None:
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
        self.priority = priority
        """The highest of those who stored or shared it; see RadixTree.prioritise."""
        self.sessions: set[str] = set()

    @property
    def tip(self) -> bytes:
        """Hash of its last page; b"" for the root."""
        return self.hashes[-HASH_BYTES:]


def parent_of(node: Node) -> Node:
    """Its parent, where it must have one."""
    if node.parent is None:
        raise AssertionError("a deleted node or the root has no parent")
    return node.parent


def common_bytes(ours: bytes, theirs: bytes, offset: int, end: int) -> int:
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
