"""Which workflows are active. A policy sees them oldest first and says how far down the list the KV reaches.

To add one: a class with `active`, a line in POLICIES, a test that reads like a sentence.
"""

from collections.abc import Iterable
from typing import Protocol

import msgspec

from saga.contract.ids import RootId


class Claimant(msgspec.Struct, frozen=True, gc=False):
    """A workflow that has a step or is in a gap that should end soon."""

    root: RootId
    claim_tokens: int  # KV it needs now
    running: bool  # a step of it is past waiting; it stays active until that ends


class ActiveSetPolicy(Protocol):
    """Chooses the active workflows of a pool."""

    def fits(self, claim_tokens: int, kv_tokens: int) -> bool:
        """Whether claimants that need so much together may all be active: asked first, because it is cheap."""
        ...

    def active(self, oldest_first: Iterable[Claimant], kv_tokens: int) -> set[RootId]:
        """The workflows that may run, given the pool's KV capacity. Never empty when there is a claimant."""
        ...


class Everybody:
    """The baseline: whoever comes may run. Under pressure they evict each other's KV."""

    def fits(self, claim_tokens: int, kv_tokens: int) -> bool:  # noqa: ARG002 - no limit
        return True

    def active(self, oldest_first: Iterable[Claimant], kv_tokens: int) -> set[RootId]:  # noqa: ARG002 - no limit
        return {claimant.root for claimant in oldest_first}


class OldestThatFit:
    """The default: oldest first until the KV is spoken for, so that those who run keep their cache and finish.

    Stops at the first that does not fit instead of skipping it: a large workflow waits, but is not overtaken.
    """

    def __init__(self, kv_share: float = 0.95) -> None:
        self._kv_share = kv_share  # of the capacity; the rest absorbs growth before the next step boundary

    def fits(self, claim_tokens: int, kv_tokens: int) -> bool:
        return claim_tokens <= int(kv_tokens * self._kv_share)

    def active(self, oldest_first: Iterable[Claimant], kv_tokens: int) -> set[RootId]:
        left = int(kv_tokens * self._kv_share)
        chosen: set[RootId] = set()
        for claimant in oldest_first:
            if chosen and claimant.claim_tokens > left:
                break
            chosen.add(claimant.root)
            left -= claimant.claim_tokens
        return chosen


POLICIES: dict[str, type[ActiveSetPolicy]] = {"saga": OldestThatFit, "open": Everybody}
