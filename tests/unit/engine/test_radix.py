"""The radix tree against a brute-force model, and its order of eviction."""

from engine_drive import hashes_of
from hypothesis import given, settings
from hypothesis import strategies as st

from saga.engine.radix import RadixTree
from saga.kv.pages import HASH_BYTES

texts = st.text("ab", min_size=0, max_size=10)
actions = st.lists(
    st.one_of(
        st.tuples(st.just("insert"), texts),
        st.tuples(st.just("match"), texts),
        st.tuples(st.just("lock"), texts),
        st.tuples(st.just("unlock"), st.integers(0, 5)),
        st.tuples(st.just("tag"), texts),
        st.tuples(st.just("untag"), st.integers(0, 2)),
        st.tuples(st.just("evict"), st.integers(1, 4)),
    ),
    max_size=40,
)


def pages_of(hashes):
    return [hashes[i : i + HASH_BYTES] for i in range(0, len(hashes), HASH_BYTES)]


def fill(tree, text):
    hashes = hashes_of(text, 1)
    node, pages = tree.match(hashes, len(hashes))
    return tree.insert(node, hashes[pages * HASH_BYTES :]).node


@settings(deadline=None, max_examples=200)
@given(actions)
def test_matches_what_a_set_of_prefixes_matches(story):
    """With pages of one token and chained hashes the whole cache is the set of its prefixes."""
    tree = RadixTree()
    cached: set[str] = set()
    text_of = {}
    locked = []

    def learn(text):
        for end, page in enumerate(pages_of(hashes_of(text, 1)), 1):
            text_of[page] = text[:end]

    for number, (action, what) in enumerate(story):
        if isinstance(what, str):
            learn(what)
        match action:
            case "insert":
                fill(tree, what)
                cached |= {what[:end] for end in range(1, len(what) + 1)}
            case "match":
                _, pages = tree.match(hashes_of(what, 1), 100)
                assert pages == max((end for end in range(1, len(what) + 1) if what[:end] in cached), default=0)
            case "lock":
                node, pages = tree.match(hashes_of(what, 1), 100)
                tree.lock(node)
                locked.append((what[:pages], node))
            case "unlock":
                if what < len(locked):
                    tree.unlock(locked.pop(what)[1])
            case "tag":
                tree.tag(str(number % 3), tree.match(hashes_of(what, 1), 100)[0])
            case "untag":
                tree.untag(str(what))
            case "evict":
                evictable = tree.evictable_pages
                gone = [text_of[page] for hashes in tree.evict(what) for page in pages_of(hashes)]
                assert len(gone) >= min(what, evictable)
                assert set(gone) <= cached
                cached -= set(gone)
                for held, _ in locked:
                    assert not held or held in cached
        tree.check()
        assert tree.pages == len(cached)


def test_a_prefix_shared_by_two_is_stored_once():
    tree = RadixTree()
    fill(tree, "abcd")
    fill(tree, "abxy")
    assert tree.pages == 6
    assert sorted(node.pages for node in tree.nodes()) == [2, 2, 2]


def test_lru_leaf_goes_first_and_its_parent_only_when_it_is_a_leaf():
    tree = RadixTree()
    fill(tree, "abcd")
    fill(tree, "abxy")
    tree.match(hashes_of("abcd", 1), 4)
    assert tree.evict(1) == [hashes_of("abxy", 1)[2 * HASH_BYTES :]]
    assert tree.evict(3) == [hashes_of("abcd", 1)[2 * HASH_BYTES :], hashes_of("ab", 1)]
    assert tree.pages == 0


def test_eviction_order_is_unreferenced_then_fewest_references_then_lru():
    tree = RadixTree()
    nodes = {text: fill(tree, text) for text in ("aaa", "bbb", "ccc", "ddd")}
    for session, text in (("s1", "aaa"), ("s2", "aaa"), ("s1", "bbb")):
        tree.tag(session, nodes[text])
    order = [hashes for _ in range(4) for hashes in tree.evict(1)]
    assert order == [hashes_of(text, 1) for text in ("ccc", "ddd", "bbb", "aaa")]


def test_closing_a_session_makes_its_pages_evictable_like_any_other():
    tree = RadixTree()
    old = fill(tree, "aaa")
    tree.tag("s", old)
    fill(tree, "bbb")
    assert tree.untag("s") == 1
    assert tree.evict(1) == [hashes_of("aaa", 1)]


def test_a_held_leaf_is_never_evicted():
    tree = RadixTree()
    node = fill(tree, "aaa")
    tree.lock(node)
    assert tree.evict(1) == []
    tree.unlock(node)
    assert tree.evict(1) == [hashes_of("aaa", 1)]


def test_a_higher_value_stays_longer_among_equal_reference_counts():
    tree = RadixTree()
    nodes = {text: fill(tree, text) for text in ("aaa", "bbb", "ccc", "ddd")}
    for session, text in (("s1", "aaa"), ("s2", "bbb"), ("s3", "ccc"), ("s4", "ccc")):
        tree.tag(session, nodes[text])
    tree.set_value("s1", 5.0)
    tree.set_value("s2", 1.0)
    tree.set_value("s3", 0.5)
    tree.check()
    order = [hashes for _ in range(4) for hashes in tree.evict(1)]
    assert order == [hashes_of(text, 1) for text in ("ddd", "bbb", "aaa", "ccc")]


def test_a_value_that_falls_or_whose_session_closes_is_forgotten():
    for fall in (True, False):
        tree = RadixTree()
        for session, text in (("s1", "aaa"), ("s2", "bbb"), ("s3", "ccc")):
            tree.tag(session, fill(tree, text))
            tree.set_value(session, 5.0)
        if fall:
            tree.set_value("s2", 1.0)
        else:
            tree.untag("s2")
        tree.check()
        assert tree.evict(1) == [hashes_of("bbb", 1)]


def test_a_shared_prefix_is_worth_what_its_best_session_says():
    tree = RadixTree()
    shared = fill(tree, "ab")
    tree.tag("low", shared)
    tree.tag("high", shared)
    other = fill(tree, "xy")
    for session in ("mid", "mid2"):
        tree.tag(session, other)
    for session, value in (("low", 1.0), ("high", 9.0), ("mid", 5.0), ("mid2", 5.0)):
        tree.set_value(session, value)
    assert tree.evict(1) == [hashes_of("xy", 1)]
