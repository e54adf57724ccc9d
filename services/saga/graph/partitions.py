"""Which graph process speaks for which workflows: 64 partitions, each of the live member that ranks highest. Pure.

Members keep a lease key in JetStream KV; one is live while its key changes, measured on the observer's own clock. All
members learn everything; ownership only decides who publishes and who stores: two owners for a moment do no harm.
"""

import hashlib
import zlib
from typing import Final

PARTITIONS: Final = 64
LEASE_S: Final = 3.0  # without a renewal for this long a member is gone
RENEW_S: Final = 1.0


def partition_of(name: str) -> int:
    """The partition of a root workflow, or of a model's key; the same on every machine."""
    return zlib.crc32(name.encode()) % PARTITIONS


def owner_of(partition: int, members: list[str]) -> str:
    """Rendezvous hashing: the member with the highest rank for this partition. Few partitions move when members do."""
    return max(members, key=lambda member: (_rank(partition, member), member))


def _rank(partition: int, member: str) -> bytes:
    return hashlib.blake2b(f"{partition}/{member}".encode(), digest_size=8).digest()


class Membership:
    """Who lives, as one member sees it."""

    __slots__ = ("_lost", "_me", "_owned", "_seen")

    def __init__(self, me: str) -> None:
        self._me = me
        self._seen: dict[str, tuple[int, float]] = {}  # member -> revision, when it came
        self._lost: dict[str, int] = {}  # member -> revision: gone without deleting its key
        self._owned: frozenset[int] = frozenset(range(PARTITIONS))

    def renewed(self, member: str, revision: int, now_s: float) -> None:
        """A member's key has this revision. Seeing the same one twice is no sign of life."""
        known = self._seen.get(member)
        if known is None or revision > known[0]:
            self._seen[member] = (revision, now_s)
            self._lost.pop(member, None)

    def gone(self, member: str) -> None:
        """A member deleted its key."""
        self._seen.pop(member, None)
        self._lost.pop(member, None)

    def settle(self, now_s: float) -> bool:
        """Drop members whose lease ran out, and share the partitions anew; whether ours changed."""
        for member, (revision, seen_s) in list(self._seen.items()):
            if now_s - seen_s >= LEASE_S:
                del self._seen[member]
                self._lost[member] = revision
        members = sorted({self._me, *self._seen})
        owned = frozenset(p for p in range(PARTITIONS) if owner_of(p, members) == self._me)
        changed, self._owned = owned != self._owned, owned
        return changed

    def take_lost(self) -> dict[str, int]:
        """Keys that dead members left behind, with their revision: to be deleted if still at it. Told once."""
        lost, self._lost = self._lost, {}
        return lost

    @property
    def owned(self) -> frozenset[int]:
        """Partitions that are ours, as of the last `settle`; all of them while we know of nobody else."""
        return self._owned

    @property
    def members(self) -> list[str]:
        """All that live, with us."""
        return sorted({self._me, *self._seen})
