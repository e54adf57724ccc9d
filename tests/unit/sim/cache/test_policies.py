"""What each policy keeps, in small."""

import pytest
from cache_drive import Made, stream_of

from saga.contract.messages import Forecast
from saga.engine.radix import RadixTree
from saga.graph.forecast import Saga
from saga.kernel.effects import Decision
from saga.sim.cache.fitting import Stream
from saga.sim.cache.orders import PagedLru
from saga.sim.cache.paged import Order, PagedCache
from saga.sim.cache.product import SessionTags
from saga.sim.cache.published import ENDED_AFTER_S, TERMINATION, TTL_CAP_S, Ttl, Turns, WaLru
from saga.sim.cache.whole_leaf import Untagged, WholeLeaf
from saga.worker.retention import Idle, RetentionPolicy


def regenerated(stream: Stream, order: Order) -> int:
    cache = PagedCache(stream, order)
    cache.run()
    return cache.regenerated_pages


class KeepFirst(RetentionPolicy):
    """Session 0 is kept for an hour, nobody else at all; `worth`: by which its pages go later among equals."""

    tells = True

    def __init__(self, others_s: float = 0.0, worth: float | None = None) -> None:
        self._others_s = others_s
        self._worth = worth
        self.heard = 0

    def keep_s(self, forecast: Forecast | None, idle: Idle) -> Decision[float]:
        assert idle.context_tokens > 0
        if forecast is None:
            return Decision(0.0, "unknown")
        self.heard += 1
        return Decision(3600.0 if forecast.session == "session-0" else self._others_s, "test")

    def value(self, forecast: Forecast | None, idle: Idle) -> float | None:
        del idle
        return self._worth if forecast is not None and forecast.session == "session-0" else None


TWO_THEN_FIRST = [
    Made(0, 0, 0, [1]),
    Made(1, 1, 1, [2]),
    Made(2, 2, 2, [3]),
    Made(0, 3, 3, [1]),
]


@pytest.mark.parametrize(("policy", "lost"), [(KeepFirst(), 0), (KeepFirst(3600.0), 1), (KeepFirst(3600.0, 1.0), 0)])
def test_a_tagged_session_outlives_one_used_later(policy: KeepFirst, lost: int) -> None:
    stream = stream_of(TWO_THEN_FIRST, 2)
    tree = RadixTree()
    cache = WholeLeaf(stream, tree, SessionTags(stream, tree, policy, Saga()))
    cache.run()
    tree.check()
    assert cache.regenerated_pages == lost
    assert policy.heard == len(TWO_THEN_FIRST)


def test_the_tree_loses_whole_leaves_where_pages_would_do() -> None:
    made = [Made(0, 0, 0, [1, 2, 3]), Made(1, 1, 1, [9]), Made(0, 2, 2, [1, 2, 3])]
    stream = stream_of(made, 3)
    tree = RadixTree()
    cache = WholeLeaf(stream, tree, Untagged())
    cache.run()
    assert cache.regenerated_pages == 3
    assert regenerated(stream, PagedLru(stream)) == 1


def test_termination_and_p95_are_learnt_from_what_was_seen() -> None:
    turns = Turns()
    assert turns.termination("end_turn") == TERMINATION
    assert turns.p95_s("end_turn") == TTL_CAP_S
    turns.ended(0, "end_turn", 0.0)
    turns.ended(1, "end_turn", 1.0)
    turns.started(0, 10.0)
    assert turns.p95_s("end_turn") == pytest.approx(10.0, rel=0.02)
    before = turns.termination("end_turn")
    turns.started(2, 1.0 + ENDED_AFTER_S)
    assert turns.termination("end_turn") > before  # agent 1 counts as gone
    turns.started(1, 2.0 + ENDED_AFTER_S)
    assert turns.termination("end_turn") < before  # and was not


def test_a_ttl_protects_until_it_expires() -> None:
    # Session 1 is known to be back within a second; of session 0 nothing is known, so it is kept for the cap.
    begin = [
        Made(1, 0, 0, [2], turn="quick"),
        Made(0, 0.5, 0.5, [1], turn="new"),
        Made(1, 1, 1, [2], turn="quick"),
    ]
    for late_s, lost in ((75.0, 0), (400.0, 1)):
        made = [*begin, Made(2, late_s, late_s, [3, 4, 5]), Made(0, late_s + 1, late_s + 1, [1])]
        stream = stream_of(made, 4)
        assert regenerated(stream, PagedLru(stream)) == 1
        assert regenerated(stream, Ttl(stream)) == lost


def test_wa_lru_rather_loses_the_large_one() -> None:
    made = [
        Made(0, 0, 0, [1]),
        Made(1, 1, 1, [2, 3, 4, 5]),
        Made(2, 2, 2, [6]),
        Made(3, 3, 3, [7]),
        Made(0, 4, 4, [1]),
    ]
    stream = stream_of(made, 6)
    assert regenerated(stream, PagedLru(stream)) == 1
    # Idle 3 s of 3 and a quarter of the size: 0.3 + 0.05, against idle 2 s of 3 and all of the size: 0.2 + 0.2.
    assert regenerated(stream, WaLru(stream)) == 0
