"""The oracle against an exhaustive search, and against every policy, on random traces."""

from collections.abc import Sequence
from itertools import combinations

from cache_drive import Made, stream_of
from hypothesis import given, settings
from hypothesis import strategies as st

from saga.engine.radix import RadixTree
from saga.graph.forecast import Saga
from saga.sim.cache.causal import FORMULATIONS, Causal
from saga.sim.cache.fitting import Stream
from saga.sim.cache.orders import Belady, PagedLru
from saga.sim.cache.paged import Order, PagedCache
from saga.sim.cache.product import SessionTags
from saga.sim.cache.published import Ttl, WaLru
from saga.sim.cache.whole_leaf import Tagging, Untagged, WholeLeaf
from saga.worker.retention import Tags

# Chains in a small tree: 1 and 10 are roots, so that prefixes are shared and branches compete.
CHAINS = ([1], [1, 2], [1, 2, 3], [1, 4], [1, 4, 5], [10], [10, 11], [20])


@st.composite
def traces(draw: st.DrawFn, *, answers: bool, most: int) -> list[Made]:
    made: list[Made] = []
    at_s = 0.0
    fresh = 1000
    for _ in range(draw(st.integers(2, most))):
        at_s += draw(st.sampled_from([0.5, 1.0, 40.0, 400.0]))
        length_s = draw(st.sampled_from([0.0, 0.2, 1.2]))
        agent = draw(st.integers(0, 3))
        prompt: list[int] = draw(st.sampled_from(CHAINS))
        earlier = [(*m.prompt, *m.answer) for m in made if m.end_s <= at_s and m.answer]
        if earlier and draw(st.booleans()):
            prompt = list(draw(st.sampled_from(earlier)))
        answer: list[int] = []
        if answers and draw(st.booleans()):
            answer = [fresh, fresh + 1]
            fresh += 2
        turn = draw(st.sampled_from(["tool_use", "end_turn", ""]))
        made.append(Made(agent, at_s, at_s + length_s, prompt, answer, turn))
    return made


def regenerated(stream: Stream, order: Order) -> int:
    cache = PagedCache(stream, order)
    cache.run()
    return cache.regenerated_pages


def whole_leaf(stream: Stream, *, tagged: bool) -> int:
    tree = RadixTree()
    tagging: Tagging = SessionTags(stream, tree, Tags(60.0, 300.0), Saga()) if tagged else Untagged()
    cache = WholeLeaf(stream, tree, tagging)
    cache.run()
    tree.check()
    assert tree.pages <= stream.capacity_pages
    assert not tree.locked_pages
    return cache.regenerated_pages


def every_policy(stream: Stream) -> dict[str, int]:
    paged: dict[str, Order] = {"lru-paged": PagedLru(stream), "walru": WaLru(stream), "ttl": Ttl(stream)}
    paged |= {name: Causal(stream, {}, way, {}) for name, way in FORMULATIONS.items()}
    found = {name: regenerated(stream, order) for name, order in paged.items()}
    return found | {"lru": whole_leaf(stream, tagged=False), "saga": whole_leaf(stream, tagged=True)}


def least(stream: Stream) -> int:
    """The fewest regenerations of any choice of victims, each page on its own and not only from the ends."""
    trace = stream.trace
    costs: dict[frozenset[int], int] = {frozenset(): 0}
    locks: dict[int, int] = {}
    once: set[int] = set()
    for event in stream.events:
        chain = _pages(stream, trace.calls[event.call].prompt)
        if event.is_end:
            for page in chain:
                locks[page] -= 1
            continue
        for page in chain:
            locks[page] = locks.get(page, 0) + 1
        in_use = {page for page, count in locks.items() if count}
        after: dict[frozenset[int], int] = {}
        for held, cost in costs.items():
            paid = cost + sum(page in once for page in chain if page not in held)
            over = len(held | in_use) - stream.capacity_pages
            for victims in combinations(sorted(held - in_use), max(0, over)):
                kept = (held | in_use) - frozenset(victims)
                after[kept] = min(paid, after.get(kept, paid))
        once |= set(chain)
        costs = after
    return min(costs.values())


def _pages(stream: Stream, end: int) -> Sequence[int]:
    segments = stream.trace.segments
    return [
        segments.first_page[segment] + page for segment in segments.path(end) for page in range(segments.pages[segment])
    ]


@settings(max_examples=150, deadline=None)
@given(traces(answers=False, most=9), st.integers(2, 6))
def test_no_choice_of_victims_beats_the_oracle(made: list[Made], capacity_pages: int) -> None:
    stream = stream_of(made, capacity_pages)
    assert regenerated(stream, Belady(stream)) == least(stream)


@settings(max_examples=150, deadline=None)
@given(traces(answers=True, most=25), st.integers(2, 12))
def test_no_policy_beats_the_oracle(made: list[Made], capacity_pages: int) -> None:
    stream = stream_of(made, capacity_pages)
    oracle = regenerated(stream, Belady(stream))
    assert {name: pages for name, pages in every_policy(stream).items() if pages < oracle} == {}


@settings(max_examples=50, deadline=None)
@given(traces(answers=True, most=25))
def test_with_room_for_all_nothing_is_regenerated(made: list[Made]) -> None:
    stream = stream_of(made, 1_000)
    assert set(every_policy(stream).values()) == {0}
    assert stream.unfit_calls == stream.unfit_answers == 0
