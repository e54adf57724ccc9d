"""Which workflows are active. A policy sees them oldest first and says how far down the list the KV reaches.

To add one: a class with `active`, a line in POLICIES, a test that reads like a sentence.
"""

from collections.abc import Iterable
from typing import Protocol

import msgspec

from saga.admission.needs import NO_GROWTH, Tokens, plus
from saga.contract.ids import RootId


class Claimant(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """A workflow that has a step or is in a gap that should end soon."""

    root: RootId
    needs_tokens: Tokens  # KV it needs now and is forecast to need at each horizon
    active: bool = False  # it is in the set already
    active_after: int = 0  # younger claimants that are in the set already: when 0, no need to look on for them


class ActiveSetPolicy(Protocol):
    """Chooses the active workflows of a pool."""

    def fits(self, needs_tokens: Tokens, kv_tokens: int) -> bool:
        """Whether claimants that need so much together, at each horizon, may all be active: asked first, as cheap."""
        ...

    def active(self, oldest_first: Iterable[Claimant], kv_tokens: int) -> set[RootId]:
        """The workflows that may run, given the pool's KV capacity. Never empty when there is a claimant."""
        ...


class Everybody:
    """The baseline: whoever comes may run. Under pressure they evict each other's KV."""

    def fits(self, needs_tokens: Tokens, kv_tokens: int) -> bool:  # noqa: ARG002 - no limit
        return True

    def active(self, oldest_first: Iterable[Claimant], kv_tokens: int) -> set[RootId]:  # noqa: ARG002 - no limit
        return {claimant.root for claimant in oldest_first}


class OldestThatFit:
    """The default: oldest first until the KV is spoken for, so that those who run keep their cache and finish.

    A workflow joins if what the set is forecast to need together fits at every horizon; once in, it stays while what
    they need now fits. The two bounds differ because a pause costs a prefill of the whole context at the return. Stops
    at the first that may not join instead of skipping it: a large workflow waits, but is not overtaken.
    """

    def __init__(self, join_share: float = 0.95, keep_share: float = 1.0) -> None:
        self._join_share = join_share  # of the KV capacity
        self._keep_share = keep_share

    def fits(self, needs_tokens: Tokens, kv_tokens: int) -> bool:
        return max(needs_tokens) <= int(kv_tokens * self._join_share)

    def active(self, oldest_first: Iterable[Claimant], kv_tokens: int) -> set[RootId]:
        may_join, left_now = int(kv_tokens * self._join_share), int(kv_tokens * self._keep_share)
        chosen: set[RootId] = set()
        together = NO_GROWTH
        open_to_join = True
        for claimant in oldest_first:
            now_tokens = claimant.needs_tokens[0]
            with_it = plus(together, claimant.needs_tokens)
            stays = claimant.active and now_tokens <= left_now
            joins = open_to_join and max(with_it) <= may_join and now_tokens <= left_now
            if stays or joins or not chosen:
                chosen.add(claimant.root)
                together = with_it
                left_now -= now_tokens
            elif not claimant.active:
                open_to_join = False
            if not open_to_join and not claimant.active_after:
                break
        return chosen


POLICIES: dict[str, type[ActiveSetPolicy]] = {"saga": OldestThatFit, "open": Everybody}
