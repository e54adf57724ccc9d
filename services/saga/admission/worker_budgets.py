"""The default policy of the active set: a budget for each worker.

KV is a worker's, not a pool's, so that is what is budgeted: a workflow is bound to one worker for as long as it is
active, and what a worker's members need together fits there.
"""

from collections.abc import Callable, Iterable, Iterator

from saga.admission.joining import Bounds, Joining, Refusal
from saga.admission.leeway import leeway_tokens
from saga.admission.margin import FIRST_SHARE, Margin
from saga.admission.needs import LONGEST_HELD_S, held_s, room_tokens
from saga.admission.policy import NO_CHANGE, Claims, Revision
from saga.admission.seats import Ranked
from saga.admission.yielding import yielding
from saga.contract.ids import NO_WORKER, PoolId, RootId, TenantId, WorkerId
from saga.contract.messages import Forecast

UNLIKELY_RETURN = 0.2  # of a session, as the graph forecasts it: below this it has ended
NOBODYS: frozenset[WorkerId] = frozenset()
LOOKED_S = 1.0  # between two looks at who runs, for those who would join
KEEP_ABOVE = 0.05  # of a worker's KV: who is in stays a little longer than another would join


Leeway = dict[WorkerId, tuple[TenantId, int]]
Line = Callable[[Claims, float], Iterator[Ranked]]


def in_turn(claims: Claims, now_s: float) -> Iterator[Ranked]:
    """Tenants in turn by what they were charged, each one's oldest first."""
    return claims.turns.in_turn(now_s)


class WorkerBudgets:
    """Tenants in turn, by rank (age) inside one, each workflow on a worker that has room for it.

    *Joins* where it fits beside the worker's members, now and a few steps ahead, or misses it by so little that
    prefilling again costs less than waiting outside does (`leeway.py`): where most of its KV is, or else where
    most is forecast to be left. One that has been in before and fits nowhere joins where its KV is if it fits there
    beside those who are older. *Stays* while what its worker's members need now fits, or misses it by so little that
    prefilling it again costs less than a pause (`leeway.py`); when they have outgrown that, the youngest without a step
    under way is paused, of the tenant that holds most there; never the oldest of all.

    *One that fits nowhere* is promised the worker where least is missing: nobody younger joins that one before it, so
    it waits for the worker's present members at most, however many pass it on other workers. When those are all in a
    gap, for longer than it takes to prefill again what it would displace, it joins: an idle engine helps nobody. A
    workflow larger than any budget runs alone on a worker of the largest.
    """

    unbinds = False

    def __init__(
        self,
        join_share: float = FIRST_SHARE,
        horizons: int = 2,
        *,
        learns: bool = True,
        lenient: bool = True,
        line: Line = in_turn,
        asks_placement: bool = True,
        unlikely_return: float = UNLIKELY_RETURN,
    ) -> None:
        """`join_share`: of a worker's KV; `learns`: at first, to be adapted. `horizons`: the first of those in
        `needs.py` that a newcomer must fit at. `lenient`: as `leeway.py` says. `line`: who waits, in order.
        `asks_placement`: new sessions may begin beside their workflow's worker. `unlikely_return`: below this a session
        has ended."""
        self._first_share = join_share
        self._horizons = horizons
        self._learns = learns
        self._lenient = lenient
        self._line = line
        self._asks_placement = asks_placement
        self._unlikely_return = unlikely_return
        self._margins: dict[PoolId, Margin] = {}
        self._refused: dict[PoolId, dict[RootId, Refusal]] = {}
        self._leeways: dict[PoolId, tuple[float, Leeway]] = {}  # until when they are good enough

    def held_s(self, forecast: Forecast) -> float:
        """As HoldsClaims: a minute, or not at all. A place given up sooner goes to somebody who is still there when its
        KV is needed again. One that has most likely ended is held no place: its KV, the largest that it ever had, would
        be nobody's for a fifth of a short task's time."""
        if forecast.samples and forecast.returns < self._unlikely_return:
            return 0.0
        return LONGEST_HELD_S if held_s(forecast) > 0.0 else 0.0

    def impatient(self) -> Iterable[PoolId]:
        """As AsksAgain: where somebody waits, a worker may have idled for long enough."""
        return [pool_id for pool_id, refused in self._refused.items() if refused]

    def promised(self, pool_id: PoolId) -> frozenset[WorkerId] | None:
        """As KeepsPromises."""
        if not self._asks_placement:
            return None
        refused = self._refused.get(pool_id)
        return frozenset(refusal.worker_id for refusal in refused.values()) if refused else NOBODYS

    def revise(self, claims: Claims, now_s: float) -> Revision:
        """As ActiveSetPolicy."""
        if not claims.workers:
            self._refused.pop(claims.pool_id, None)
            first = next((root for _, root in self._line(claims, now_s)), None)
            return NO_CHANGE if claims.inside or first is None else Revision((first,))
        strays = [ranked for ranked in claims.seats.at(NO_WORKER).members if not _runs(claims, ranked[1])]
        refused = self._refused.get(claims.pool_id, {})
        margin = self._margins.setdefault(claims.pool_id, Margin(self._first_share))
        if self._learns:
            margin.learn(claims, now_s, crowded=bool(refused))
        paused = self._overcommitted(claims, max(1.0, margin.share + KEEP_ABOVE))
        leaves = [root for _, root in strays] + [root for roots in paused.values() for root in roots]
        bounds = Bounds(margin.share, self._horizons, self._leeway(claims, now_s) if self._lenient else {})
        joining = Joining(claims, bounds, refused, paused.keys(), now_s)
        joins = joining.run(self._line(claims, now_s))
        if not joins and len(leaves) == len(claims.inside):
            joins = joining.first(self._line(claims, now_s))
        self._refused[claims.pool_id] = joining.refused
        return Revision(tuple(joins), tuple(leaves), joins) if joins or leaves else NO_CHANGE

    def _overcommitted(self, claims: Claims, keep_share: float) -> dict[WorkerId, list[RootId]]:
        """Who is paused, of the workers that changed and whose members need more than they have."""
        paused: dict[WorkerId, list[RootId]] = {}
        for worker_id in claims.seats.changed:
            excess_tokens = self._excess_tokens(claims, worker_id, keep_share)
            if excess_tokens <= 0:
                continue
            seat = claims.seats.at(worker_id)
            roots = paused[worker_id] = []
            for _, root in yielding(claims, seat.members[1:]):
                if excess_tokens <= 0:
                    break
                if not _runs(claims, root):
                    roots.append(root)
                    excess_tokens -= claims.needs[root][0]
        return paused

    def _leeway(self, claims: Claims, now_s: float) -> Leeway:
        """By worker; as of a moment ago, as it takes a look at all members. Only where these are one tenant's: what one
        has evicted for it is its own."""
        until_s, leeway = self._leeways.get(claims.pool_id, (now_s, {}))
        if now_s >= until_s:
            leeway = {}
            for worker_id in claims.workers:
                tenants = {claims.workflows[root].tenant for _, root in claims.seats.at(worker_id).members}
                if len(tenants) == 1:
                    leeway[worker_id] = (tenants.pop(), self._leeway_tokens(claims, worker_id))
            self._leeways[claims.pool_id] = (now_s + LOOKED_S, leeway)
        return leeway

    def _leeway_tokens(self, claims: Claims, worker_id: WorkerId) -> int:
        running = sum(_runs(claims, root) for _, root in claims.seats.at(worker_id).members)
        return leeway_tokens(claims.cycle.mean_s, running, claims.workers[worker_id].cost.prompt_s_per_token)

    def _excess_tokens(self, claims: Claims, worker_id: WorkerId, keep_share: float) -> int:
        """What the worker's members need now over what they may; not over: 0 or less."""
        hello = claims.workers.get(worker_id)
        if hello is None:
            return 0
        seat = claims.seats.at(worker_id)
        excess_tokens = seat.tokens[0] - int(keep_share * room_tokens(hello))
        if excess_tokens <= 0 or not self._lenient:
            return excess_tokens
        return excess_tokens - self._leeway_tokens(claims, worker_id)


def _runs(claims: Claims, root: RootId) -> bool:
    return claims.workflows[root].running()
