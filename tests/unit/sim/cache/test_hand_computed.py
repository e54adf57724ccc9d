"""A trace small enough to follow by hand: three sessions of one page, room for two."""

import pytest
from cache_drive import Made, stream_of

from saga.engine.radix import RadixTree
from saga.sim.cache.causal import FORMULATIONS, Causal
from saga.sim.cache.fitting import Stream
from saga.sim.cache.orders import Belady, PagedLru
from saga.sim.cache.paged import Order, PagedCache
from saga.sim.cache.population import Key, Spread
from saga.sim.cache.whole_leaf import Untagged, WholeLeaf

A, B, C = 0, 1, 2
# A calls tools and is known to be back soon; B and C end turns and are known to be away for long, or for good.
TRACE = [
    Made(agent, float(at), float(at), [agent + 1], turn="tool_use" if agent == A else "end_turn")
    for at, agent in enumerate([A, B, C, A, C, B, A, C, B])
]


def spread(gap_s: float, returned: int, never: int) -> Spread:
    found = Spread()
    found.add(gap_s, returned)
    found.add(float("inf"), never)
    return found


def causal(stream: Stream, name: str = "gittins") -> Causal:
    known: dict[Key, Spread] = {}
    for pace in range(-1, 4):
        known["prompt", "tool_use", True, pace] = spread(3.0, 99, 1)
        known["prompt", "end_turn", True, pace] = spread(500.0, 50, 50)
    return Causal(stream, known, FORMULATIONS[name], {})


def regenerated(stream: Stream, order: Order) -> int:
    cache = PagedCache(stream, order)
    cache.run()
    return cache.regenerated_pages


def test_lru_regenerates_a_at_3_b_at_5_a_at_6_c_at_7_and_b_at_8() -> None:
    stream = stream_of(TRACE, 2)
    assert regenerated(stream, PagedLru(stream)) == 5
    tree = RadixTree()
    whole = WholeLeaf(stream, tree, Untagged())
    whole.run()
    tree.check()
    assert whole.regenerated_pages == 5


def test_the_oracle_regenerates_b_at_5_and_c_at_7_alone() -> None:
    stream = stream_of(TRACE, 2)
    assert regenerated(stream, Belady(stream)) == 2


@pytest.mark.parametrize("name", ["gittins", "soon", "residual"])
def test_who_knows_distributions_keeps_a_which_is_wrong_only_at_the_end(name: str) -> None:
    stream = stream_of(TRACE, 2)
    assert regenerated(stream, causal(stream, name)) == 3


def test_a_page_that_the_next_prompt_no_longer_has_goes_first() -> None:
    # A's second prompt drops page 2. LRU would then rather lose B's page, which is older.
    made = [
        Made(A, 0, 0, [1, 2]),
        Made(B, 1, 1, [9]),
        Made(A, 2, 2, [1, 3]),
        Made(C, 3, 3, [7]),
        Made(B, 4, 4, [9]),
    ]
    stream = stream_of(made, 4)
    assert regenerated(stream, causal(stream)) == 0
    assert regenerated(stream, PagedLru(stream)) == 0  # page 2 is the oldest as well
    made[1], made[0] = made[1]._replace(start_s=0, end_s=0), made[0]._replace(start_s=1, end_s=1)
    stream = stream_of(made, 4)
    assert regenerated(stream, causal(stream)) == 0
    assert regenerated(stream, PagedLru(stream)) == 1


def test_the_index_is_returns_per_second_of_the_best_patience() -> None:
    certain, doubtful = (FORMULATIONS["gittins"].values(spread(10.0, 100, never)) for never in (0, 100))
    assert certain[0] == pytest.approx(1 / 10.0, rel=0.1)
    assert doubtful[0] == pytest.approx(1 / 20.0, rel=0.1)  # half of the waits end without a return
    assert doubtful[-1] == 0.0  # whoever is away so long does not return
