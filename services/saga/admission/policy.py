"""Which workflows are active. A policy sees them oldest first and says how far down the list the KV reaches.

To add one: a class with `active`, a line in POLICIES, a test that reads like a sentence.
"""

from collections.abc import Iterable
from typing import Protocol

import msgspec

from saga.contract.ids import RootId


class Claimant(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """A workflow that has a step or is in a gap that should end soon."""

    root: RootId
    claim_tokens: int  # KV it needs now
    growth_tokens: int = 0  # that it is forecast to need beyond that, on average over the rest of its life
    active: bool = False  # it is in the set already
    active_after: int = 0  # younger claimants that are in the set already: when 0, no need to look on for them


class ActiveSetPolicy(Protocol):
    """Chooses the active workflows of a pool."""

    def fits(self, expected_tokens: int, kv_tokens: int) -> bool:
        """Whether claimants that need so much together, growth included, may all be active: asked first, as cheap."""
        ...

    def active(self, oldest_first: Iterable[Claimant], kv_tokens: int) -> set[RootId]:
        """The workflows that may run, given the pool's KV capacity. Never empty when there is a claimant."""
        ...


class Everybody:
    """The baseline: whoever comes may run. Under pressure they evict each other's KV."""

    def fits(self, expected_tokens: int, kv_tokens: int) -> bool:  # noqa: ARG002 - no limit
        return True

    def active(self, oldest_first: Iterable[Claimant], kv_tokens: int) -> set[RootId]:  # noqa: ARG002 - no limit
        return {claimant.root for claimant in oldest_first}


class OldestThatFit:
    """The default: oldest first until the KV is spoken for, so that those who run keep their cache and finish.

    A workflow joins if what all of the set are forecast to need fits; once in, it stays while what they need now fits.
    The two bounds differ because a pause costs a prefill of the whole context at the return. Stops at the first that
    may not join instead of skipping it: a large workflow waits, but is not overtaken.
    """

    def __init__(self, join_share: float = 0.95, keep_share: float = 1.0) -> None:
        self._join_share = join_share  # of the KV capacity
        self._keep_share = keep_share

    def fits(self, expected_tokens: int, kv_tokens: int) -> bool:
        return expected_tokens <= int(kv_tokens * self._join_share)

    def active(self, oldest_first: Iterable[Claimant], kv_tokens: int) -> set[RootId]:
        may_join, left_now = int(kv_tokens * self._join_share), int(kv_tokens * self._keep_share)
        chosen: set[RootId] = set()
        open_to_join = True
        for claimant in oldest_first:
            expected_tokens = claimant.claim_tokens + claimant.growth_tokens
            stays = claimant.active and claimant.claim_tokens <= left_now
            joins = open_to_join and expected_tokens <= may_join and claimant.claim_tokens <= left_now
            if stays or joins or not chosen:
                chosen.add(claimant.root)
                may_join -= expected_tokens
                left_now -= claimant.claim_tokens
            elif not claimant.active:
                open_to_join = False
            if not open_to_join and not claimant.active_after:
                break
        return chosen


POLICIES: dict[str, type[ActiveSetPolicy]] = {"saga": OldestThatFit, "open": Everybody}
