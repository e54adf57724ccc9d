"""Who joins the active set, on which worker, and who is promised one. Called by `worker_budgets.py`, each revision."""

from collections.abc import Collection, Iterable, Mapping

import msgspec

from saga.admission.needs import Tokens, minus, plus, room_tokens
from saga.admission.policy import Claims
from saga.admission.seats import Ranked
from saga.contract.ids import NO_WORKER, RootId, TenantId, WorkerId

MOST_REFUSED = 8  # workflows that may be passed by younger ones, so that the cost of a revision is bounded
AWAY_S = 60.0  # for so long a promise outlives the step it was made for, which may have been told to come again


class Refusal(msgspec.Struct, frozen=True, gc=False):
    """A workflow that fits nowhere yet, and the worker that it is promised: nobody younger may join that."""

    place: Ranked
    needs: Tokens  # for which there was no room
    worker_id: WorkerId  # none: all that could hold it are promised to older ones
    away_since_s: float | None = None  # None: it has a step that waits
    after: frozenset[RootId] = frozenset()  # those refused before it, whose promises it had to leave alone


class Bounds(msgspec.Struct, frozen=True, gc=False):
    """What a newcomer must fit into."""

    join_share: float  # of a worker's KV
    horizons: int  # the first of those in `needs.py`
    leeway: Mapping[WorkerId, tuple[TenantId, int]] = {}  # tokens beyond that, for a tenant that is alone there

    def tokens(self, room_tokens: int) -> int:
        """What the members of a worker may need together once the newcomer is among them."""
        return int(self.join_share * room_tokens)

    def peak(self, needs: Tokens) -> int:
        """The most that is needed."""
        return max(needs[: self.horizons])


class Joining:
    """One revision's newcomers, as their turns come: oldest first inside a tenant.

    Looked at are the workers that changed, and all of them only for workflows not refused before at the same needs:
    where there was no room then there is none now.
    """

    def __init__(
        self,
        claims: Claims,
        bounds: Bounds,
        refused: dict[RootId, Refusal],
        shut: Collection[WorkerId],
        now_s: float,
    ) -> None:
        """`refused`: by the last revision. `shut`: workers that nobody may join now."""
        self.refused: dict[RootId, Refusal] = {}
        self._claims = claims
        self._bounds = bounds
        self._before = refused
        self._shut = shut
        self._now_s = now_s
        self._freed = dict(claims.seats.changed)  # where there may be room that was not there before
        self._kept_for: dict[WorkerId, Ranked] = {}
        self._passed: set[RootId] = set()  # refused in this revision: whoever comes now comes after them
        self._joined: dict[WorkerId, Tokens] = {}  # what members need, newcomers included
        for root, refusal in refused.items():
            self._remember(root, refusal, now_s)

    def _remember(self, root: RootId, refusal: Refusal, now_s: float) -> None:
        """A promise to one that is away is kept for a while; one that is not, or void, is free to be taken."""
        workflow = self._claims.workflows.get(root)
        if workflow is not None and not workflow.active and refusal.worker_id in self._claims.workers:
            if workflow.steps:
                return  # its turn comes
            since_s = now_s if refusal.away_since_s is None else refusal.away_since_s
            if now_s - since_s <= AWAY_S:
                self.refused[root] = msgspec.structs.replace(refusal, away_since_s=since_s)
                self._kept_for[refusal.worker_id] = refusal.place
                return
        self._freed[refusal.worker_id] = None

    def run(self, waiting: Iterable[Ranked]) -> dict[RootId, WorkerId]:
        """Who joins, in order, and where."""
        joins: dict[RootId, WorkerId] = {}
        refused = 0
        for place in waiting:
            root = place[1]
            if not self._claims.workflows[root].steps:
                continue  # nothing of it waits
            known = self._before.get(root)
            worker_id = self._where(place, known) or self._refuse(place, known)
            if worker_id:
                joins[root] = worker_id
                used = self._joined.get(worker_id) or self._claims.seats.at(worker_id).tokens
                self._joined[worker_id] = plus(used, self._claims.needs[root])
                self.refused.pop(root, None)
                if known is not None:
                    self._freed[known.worker_id] = None
                continue
            refused += 1
            if refused >= MOST_REFUSED or len(self._kept_for) == len(self._claims.workers):
                break
        return joins

    def first(self, waiting: Iterable[Ranked]) -> dict[RootId, WorkerId]:
        """Nobody is active and nobody may join: the first in line joins all the same."""
        self._kept_for.clear()
        self._freed = dict.fromkeys(self._claims.workers)
        for place in waiting:
            if self._claims.workflows[place[1]].steps:
                self.refused.pop(place[1], None)
                return {place[1]: self._where(place, None)}
        return {}

    def _where(self, place: Ranked, known: Refusal | None) -> WorkerId:
        """Where it may join: where its KV is, if there is room, else where most is forecast to be left, else where its
        KV is, in the place of younger ones. Nowhere: NO_WORKER."""
        claims, root, tenant = self._claims, place[1], self._tenant(place)
        needs = claims.needs[root]
        same = known is not None and known.needs == needs and known.after <= self._passed  # turns may have changed
        looked_at = self._freed if same else claims.workers
        left_tokens = {
            worker_id: left
            for worker_id in looked_at
            if worker_id in claims.workers and self._open(worker_id, place)
            if (left := self._left(worker_id, needs, tenant)) >= 0
        }
        home = claims.workflows[root].kv_home(claims.workers)
        if left_tokens:
            return (
                home if home in left_tokens else min(left_tokens, key=lambda w: (self._fullness(w, needs, tenant), w))
            )
        returns = home and home in looked_at and self._open(home, place) and self._fits_by_age(home, place, needs)
        return home if returns else NO_WORKER

    def _fullness(self, worker_id: WorkerId, needs: Tokens, tenant: TenantId) -> float:
        """The largest share of its KV that the worker's members are forecast to need at any horizon, with the newcomer.

        Room now says who came last; the forecast says who will be in each other's way.
        """
        used = self._joined.get(worker_id, self._claims.seats.at(worker_id).tokens)
        return max(plus(used, needs)) / max(1, self._budget(worker_id, tenant))

    def _fits_by_age(self, worker_id: WorkerId, place: Ranked, needs: Tokens) -> bool:
        """Whether there is room beside those who are older, or another tenant's: who is younger is paused for it, at
        its step boundary.

        It was there before. Had it not been away for longer than was to be expected, it would have stayed, and the
        younger ones would not have joined.
        """
        if worker_id in self._joined:
            return False
        seat = self._claims.seats.at(worker_id)
        used = seat.tokens
        for member in reversed(seat.members):
            if member < place:
                break
            if self._tenant(member) == self._tenant(place):
                used = minus(used, self._claims.needs[member[1]])
        return self._bounds.peak(plus(used, needs)) <= self._budget(worker_id, self._tenant(place))

    def _open(self, worker_id: WorkerId, place: Ranked) -> bool:
        return worker_id not in self._shut and not self._kept(worker_id, place)

    def _kept(self, worker_id: WorkerId, place: Ranked) -> bool:
        """Whether it is promised to one whose turn comes before."""
        kept_for = self._kept_for.get(worker_id)
        return kept_for is not None and (kept_for[1] in self._passed or self._claims.turns.before(kept_for, place))

    def _tenant(self, place: Ranked) -> TenantId:
        return self._claims.workflows[place[1]].tenant

    def _left(self, worker_id: WorkerId, needs: Tokens, tenant: TenantId) -> int:
        """KV left there with the newcomer; negative: it may not join. Larger than any budget it joins the largest
        worker, alone."""
        seat = self._claims.seats.at(worker_id)
        used = self._joined.get(worker_id, seat.tokens)
        left_tokens = self._budget(worker_id, tenant) - self._bounds.peak(plus(used, needs))
        if left_tokens >= 0:
            return left_tokens
        alone = not seat.members and worker_id not in self._joined
        return 0 if alone and not self._able(needs) and self._largest(worker_id) else -1

    def _able(self, needs: Tokens) -> bool:
        """Whether a worker of the pool can hold it within its budget."""
        return self._bounds.peak(needs) <= self._bounds.tokens(self._claims.largest_room_tokens)

    def _largest(self, worker_id: WorkerId) -> bool:
        return room_tokens(self._claims.workers[worker_id]) == self._claims.largest_room_tokens

    def _budget(self, worker_id: WorkerId, tenant: TenantId) -> int:
        room = self._bounds.tokens(room_tokens(self._claims.workers[worker_id]))
        alone, leeway_tokens = self._bounds.leeway.get(worker_id, (None, 0))
        return room + leeway_tokens if alone == tenant else room

    def _refuse(self, place: Ranked, known: Refusal | None) -> WorkerId:
        """Promise it a worker that can hold it: the same as before, else where least is missing. That worker, if it has
        been idle for so long that the newcomer joins it all the same; else NO_WORKER."""
        needs, tenant = self._claims.needs[place[1]], self._tenant(place)
        worker_id = known.worker_id if known is not None else NO_WORKER
        if not worker_id or not self._may_promise(worker_id, place, needs):
            able = [w for w in self._claims.workers if self._may_promise(w, place, needs)]
            worker_id = max(able, key=lambda w: (self._missing(w, needs, tenant), w), default=NO_WORKER)
        if worker_id and self._idles(worker_id, needs, tenant):
            return worker_id
        if worker_id:
            self._kept_for[worker_id] = place
        self.refused[place[1]] = Refusal(place, needs, worker_id, after=frozenset(self._passed))
        self._passed.add(place[1])
        return NO_WORKER

    def _idles(self, worker_id: WorkerId, needs: Tokens, tenant: TenantId) -> bool:
        """Whether all members are in a gap, and have been for longer than it takes to prefill again what the newcomer
        would displace: to wait on costs more by then than to let them yield (as in renting or buying skis)."""
        seat = self._claims.seats.at(worker_id)
        if worker_id in self._joined or worker_id in self._shut or not seat.members:
            return False
        workflows = self._claims.workflows
        if any(workflows[root].steps for _, root in seat.members):
            return False
        idle_s = self._now_s - max(workflows[root].last_sign_s for _, root in seat.members)
        return (
            idle_s >= -self._missing(worker_id, needs, tenant) * self._claims.workers[worker_id].cost.prompt_s_per_token
        )

    def _may_promise(self, worker_id: WorkerId, place: Ranked, needs: Tokens) -> bool:
        if worker_id not in self._claims.workers or self._kept(worker_id, place):
            return False
        may_hold = self._bounds.peak(needs) <= self._budget(worker_id, self._tenant(place))
        return may_hold or (not self._able(needs) and self._largest(worker_id))

    def _missing(self, worker_id: WorkerId, needs: Tokens, tenant: TenantId) -> int:
        """How much, as a negative number."""
        used = self._joined.get(worker_id, self._claims.seats.at(worker_id).tokens)
        return self._budget(worker_id, tenant) - self._bounds.peak(plus(used, needs))
