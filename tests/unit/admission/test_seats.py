"""The sums by worker are those of a recount, whatever happens to whom."""

from hypothesis import given
from hypothesis import strategies as st

from saga.admission.needs import HORIZONS, NO_GROWTH, plus
from saga.admission.seats import Seats
from saga.contract.ids import RootId, WorkerId

ROOTS = st.integers(0, 5).map(lambda n: RootId(f"r{n}"))
WORKERS = st.sampled_from([WorkerId(""), WorkerId("w0"), WorkerId("w1")])
NEEDS = st.tuples(*[st.integers(0, 9)] * len(HORIZONS))
PUT = st.tuples(ROOTS, WORKERS, st.integers(0, 3).map(float), NEEDS)


@given(st.lists(st.one_of(PUT, ROOTS), max_size=30))
def test_the_sums_are_those_of_a_recount(changes):
    seats = Seats()
    recount: dict[RootId, tuple] = {}
    for change in changes:
        if isinstance(change, tuple):
            seats.put(*change)
            recount[change[0]] = change[1:]
        else:
            seats.remove(change)
            recount.pop(change, None)

    seats.check({r: needs for r, (_, _, needs) in recount.items()}, {r: rank for r, (_, rank, _) in recount.items()})
    for worker in ("", "w0", "w1"):
        together = NO_GROWTH
        for sits, _, needs in recount.values():
            together = plus(together, needs) if sits == worker else together
        assert seats.at(WorkerId(worker)).tokens == together
    assert seats.roots == set(recount)


def test_a_worker_whose_members_change_is_named_until_somebody_has_looked():
    seats = Seats()
    seats.put(RootId("r"), WorkerId("w0"), 1.0, NO_GROWTH)
    seats.changed.clear()

    seats.put(RootId("r"), WorkerId("w1"), 1.0, NO_GROWTH)

    assert set(seats.changed) == {"w0", "w1"}
