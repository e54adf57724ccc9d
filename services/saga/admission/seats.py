"""Where the active workflows of a pool sit, and what those at one worker need there together.

Kept up to date change by change, so that a step boundary looks at the workers that changed and at no others. Decides
nothing: `roster.py` says where a workflow sits, a policy reads the sums.
"""

from bisect import bisect_left, insort

from saga.admission.needs import NO_GROWTH, Tokens, minus, plus
from saga.contract.ids import NO_WORKER, RootId, WorkerId

Ranked = tuple[float, RootId]


class Seat:
    """One worker's share of the active set."""

    __slots__ = ("members", "tokens")

    def __init__(self) -> None:
        self.members: list[Ranked] = []  # in the order of their rank
        self.tokens: Tokens = NO_GROWTH  # that they need together, by horizon


NOBODY = Seat()  # of a worker where nobody sits: never written to


class Seats:
    """The active claimants of a pool by worker; under NO_WORKER those whose KV is nowhere yet, or no more."""

    def __init__(self) -> None:
        self.changed: dict[WorkerId, None] = {}  # since the active set was last revised
        self._seats: dict[WorkerId, Seat] = {}
        self._sits: dict[RootId, tuple[WorkerId, float, Tokens]] = {}

    def at(self, worker_id: WorkerId) -> Seat:
        """Who sits there."""
        return self._seats.get(worker_id, NOBODY)

    def of(self, root: RootId) -> WorkerId:
        """Where this one sits."""
        known = self._sits.get(root)
        return known[0] if known is not None else NO_WORKER

    def put(self, root: RootId, worker_id: WorkerId, rank: float, needs: Tokens) -> None:
        """It sits there, at this rank, with these needs, wherever it sat before."""
        known = self._sits.get(root)
        self.changed[worker_id] = None
        if known == (worker_id, rank, needs):
            return
        if known is not None and known[:2] == (worker_id, rank):
            seat = self._seats[worker_id]
            seat.tokens = plus(minus(seat.tokens, known[2]), needs)
        else:
            self.remove(root)
            seat = self._seats.setdefault(worker_id, Seat())
            insort(seat.members, (rank, root))
            seat.tokens = plus(seat.tokens, needs)
        self._sits[root] = (worker_id, rank, needs)

    def remove(self, root: RootId) -> None:
        """It sits nowhere: it is not active."""
        known = self._sits.pop(root, None)
        if known is None:
            return
        worker_id, rank, needs = known
        seat = self._seats[worker_id]
        del seat.members[bisect_left(seat.members, (rank, root))]
        seat.tokens = minus(seat.tokens, needs)
        self.changed[worker_id] = None
        if not seat.members:
            del self._seats[worker_id]

    def check(self, needs: dict[RootId, Tokens], rank: dict[RootId, float]) -> None:
        """Assert that each sum is that of its members, as the pool has them."""
        for worker_id, seat in self._seats.items():
            assert seat.members == sorted(seat.members)
            together = NO_GROWTH
            for place, root in seat.members:
                assert self._sits[root] == (worker_id, place, needs[root])
                assert place == rank[root]
                together = plus(together, needs[root])
            assert seat.tokens == together, f"{worker_id}: {seat.tokens} for {together}"
        assert sum(len(seat.members) for seat in self._seats.values()) == len(self._sits)

    @property
    def roots(self) -> set[RootId]:
        """Everybody who sits somewhere."""
        return set(self._sits)
