"""Who may run at once, other than saga's own rule: a count, or those with the lowest rank whose contexts fit."""

from itertools import islice

from saga.admission.needs import Tokens
from saga.admission.policy import NO_CHANGE, Claims, Revision
from saga.contract.ids import RootId


class StaticCap:
    """So many workflows at once, oldest first: the operator's max concurrency."""

    unbinds = False

    def __init__(self, workflows: int) -> None:
        self._workflows = workflows

    def revise(self, claims: Claims, now_s: float) -> Revision:  # noqa: ARG002 - counts, at any time
        count = len(claims.inside)
        nobody_joins = not claims.outside or (count == self._workflows and claims.outside[0] > claims.inside[-1])
        if count <= self._workflows and nobody_joins:
            return NO_CHANGE
        first = [claimant.root for claimant in islice(claims.ranked(), self._workflows)]
        return _towards(first, claims)


class FirstThatFit:
    """Lowest rank first while the contexts that are there now fit: nothing is set aside for growth.

    Who runs is paused at its step boundary when one with a lower rank comes: with remaining work as rank, that is what
    shortest remaining time first means.
    """

    unbinds = False

    def __init__(self, share: float = 0.95) -> None:
        self._share = share  # of the KV capacity

    def revise(self, claims: Claims, now_s: float) -> Revision:  # noqa: ARG002 - the rank knows
        limit_tokens = int(claims.kv_tokens * self._share)
        if self._settled(claims, limit_tokens):
            return NO_CHANGE
        left_tokens = limit_tokens
        chosen: list[RootId] = []
        for claimant in claims.ranked():
            if chosen and claimant.needs_tokens[0] > left_tokens:
                break
            chosen.append(claimant.root)
            left_tokens -= claimant.needs_tokens[0]
        return _towards(chosen, claims)

    @staticmethod
    def _settled(claims: Claims, limit_tokens: int) -> bool:
        now_tokens = claims.active_tokens[0]
        if not claims.inside or now_tokens > limit_tokens:
            return False
        if not claims.outside:
            return True
        needs: Tokens = claims.needs[claims.outside[0][1]]
        return claims.outside[0] > claims.inside[-1] and now_tokens + needs[0] > limit_tokens


def _towards(chosen: list[RootId], claims: Claims) -> Revision:
    inside = {root for _, root in claims.inside}
    return Revision(
        joins=tuple(root for root in chosen if root not in inside), leaves=tuple(sorted(inside.difference(chosen)))
    )
