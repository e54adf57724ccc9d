"""Which workflows are active. A policy sees who is in and who waits, in the order of their rank (`ranks.py`), and says
who joins and who leaves.

Asked at each step boundary, so it must be quick while nothing changes: what a pool can say at once is in `Claims`.
To add one: a class with `revise`, a line in `policies.py`, a test that reads like a sentence.
"""

from collections.abc import Iterable, Iterator, Mapping
from typing import Protocol, runtime_checkable

import msgspec

from saga.admission.leeway import Cycle
from saga.admission.needs import NO_GROWTH, Tokens, minus, plus
from saga.admission.records import Workflow
from saga.admission.seats import Ranked, Seats
from saga.admission.turns import Turns
from saga.contract.ids import PoolId, RootId, WorkerId
from saga.contract.messages import Forecast, WorkerHello


class Claimant(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """A workflow that has a step or is in a gap that should end soon."""

    root: RootId
    needs_tokens: Tokens  # KV it needs now and is forecast to need at each horizon
    active: bool = False  # it is in the set already
    active_after: int = 0  # later claimants that are in the set already: when 0, no need to look on for them


class Claims(Protocol):
    """The claimants of a pool, in the order of their rank. What it says costs nothing but `ranked`."""

    pool_id: PoolId
    workers: dict[WorkerId, WorkerHello]  # those that serve
    largest_room_tokens: int  # KV that one of them keeps
    seats: Seats  # the active claimants by worker
    turns: Turns  # of those outside with a step that waits
    spent_s: float  # by its engines on steps that have ended, so far; modelled
    lost_s: float  # of that, on prefilling what sessions had there and had a claim to
    cycle: Cycle  # how often its sessions come back
    workflows: dict[RootId, Workflow]  # of all pools
    inside: list[Ranked]  # active claimants, in order
    outside: list[Ranked]  # the others, in order
    active_tokens: Tokens  # needs of those inside, by horizon
    needs: dict[RootId, Tokens]

    @property
    def kv_tokens(self) -> int:
        """KV capacity of the workers that serve."""
        ...

    def ranked(self) -> Iterator[Claimant]:
        """All of them, in order."""
        ...


class Revision(msgspec.Struct, frozen=True, gc=False):
    """Who joins, in this order, and who leaves. Whoever runs leaves at its step boundary: it will be named again."""

    joins: tuple[RootId, ...] = ()
    leaves: tuple[RootId, ...] = ()
    bound: Mapping[RootId, WorkerId] = {}  # where the steps of one that joins go; not named: where placement likes


NO_CHANGE = Revision()


class ActiveSetPolicy(Protocol):
    """Chooses the active workflows of a pool."""

    @property
    def unbinds(self) -> bool:
        """Whether a workflow that leaves has no home any more: it may be resumed on any worker."""
        ...

    def revise(self, claims: Claims, now_s: float) -> Revision:
        """What is to change. Somebody must be active afterwards when there is a claimant."""
        ...


@runtime_checkable
class HoldsClaims(Protocol):
    """Of a policy that says how long sessions keep their claim; `needs.held_s` says it for the others."""

    def held_s(self, forecast: Forecast) -> float:
        """How long into its gap."""
        ...


@runtime_checkable
class AsksAgain(Protocol):
    """Of a policy whose answer may change with time alone."""

    def impatient(self) -> Iterable[PoolId]:
        """Pools where it may: they are revised at each tick."""
        ...


@runtime_checkable
class KeepsPromises(Protocol):
    """Of a policy that promises workers to workflows that fit nowhere yet."""

    def promised(self, pool_id: PoolId) -> frozenset[WorkerId] | None:
        """Those workers. None: new sessions begin where their workflow is bound, and placement is not asked."""
        ...


class Everybody:
    """The baseline: whoever comes may run. Under pressure they evict each other's KV."""

    unbinds = False

    def revise(self, claims: Claims, now_s: float) -> Revision:  # noqa: ARG002 - no limit, at any time
        return Revision(tuple(root for _, root in claims.outside)) if claims.outside else NO_CHANGE


class OldestThatFit:
    """One budget for a pool: lowest rank first until its KV is spoken for, so that those who run keep their cache.

    A workflow joins if what the set is forecast to need together fits at every horizon; once in, it stays while what
    they need now fits. The two bounds differ because a pause costs a prefill of the whole context at the return. They
    stay below the whole because workers fill unevenly. Stops at the first that may not join instead of skipping it: a
    large workflow waits, but is not overtaken.
    """

    unbinds = False

    def __init__(self, join_share: float = 0.8, keep_share: float = 0.9) -> None:
        self._join_share = join_share  # of the KV capacity
        self._keep_share = keep_share

    def revise(self, claims: Claims, now_s: float) -> Revision:  # noqa: ARG002 - the time of day has no say
        if self._settled(claims):
            return NO_CHANGE
        joins = self._plain_joins(claims)
        if joins is not None:
            return Revision(joins=joins)
        chosen = self.active(claims.ranked(), claims.kv_tokens)
        inside = {root for _, root in claims.inside}
        return Revision(
            joins=tuple(root for root in chosen if root not in inside),
            leaves=tuple(sorted(inside.difference(chosen))),
        )

    def _settled(self, claims: Claims) -> bool:
        """Whether nothing changes, seen without looking at everybody: all inside stay, and the next in line may not
        join beside those that come before it."""
        may_join, keep = self._bounds(claims.kv_tokens)
        if claims.active_tokens[0] > keep:
            return False
        if not claims.outside:
            return True
        first = claims.outside[0]
        before = claims.active_tokens
        for ranked in reversed(claims.inside):
            if ranked < first:
                break
            before = minus(before, claims.needs[ranked[1]])
        else:
            return False  # the very first in line is in, however large
        with_it = plus(before, claims.needs[first[1]])
        return max(with_it) > may_join or with_it[0] > keep

    def _plain_joins(self, claims: Claims) -> tuple[RootId, ...] | None:
        """Who joins when nobody leaves for them, seen without looking at who is inside; None when that does not say.

        Who fits beside everybody inside fits beside those who come before it.
        """
        may_join, keep = self._bounds(claims.kv_tokens)
        together = claims.active_tokens
        joins: list[RootId] = []
        if not claims.inside or together[0] > keep:
            return None
        for ranked in claims.outside:
            with_it = plus(together, claims.needs[ranked[1]])
            if max(with_it) > may_join or with_it[0] > keep:
                return tuple(joins) if ranked > claims.inside[-1] else None
            joins.append(ranked[1])
            together = with_it
        return tuple(joins)

    def _bounds(self, kv_tokens: int) -> tuple[int, int]:
        return int(kv_tokens * self._join_share), int(kv_tokens * self._keep_share)

    def active(self, ranked: Iterable[Claimant], kv_tokens: int) -> dict[RootId, None]:
        """The workflows that may run, in order. Never empty when there is a claimant."""
        may_join, left_now = self._bounds(kv_tokens)
        chosen: dict[RootId, None] = {}
        together = NO_GROWTH
        open_to_join = True
        for claimant in ranked:
            now_tokens = claimant.needs_tokens[0]
            with_it = plus(together, claimant.needs_tokens)
            stays = claimant.active and now_tokens <= left_now
            joins = open_to_join and max(with_it) <= may_join and now_tokens <= left_now
            if stays or joins or not chosen:
                chosen[claimant.root] = None
                together = with_it
                left_now -= now_tokens
            elif not claimant.active:
                open_to_join = False
            if not open_to_join and not claimant.active_after:
                break
        return chosen
