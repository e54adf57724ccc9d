"""Eviction with `priority`, as SGLang's --radix-eviction-policy priority: what raises a node's, and the order."""

import pytest
from engine_drive import Drive, hashes_of, small_profile
from hypothesis import given, settings
from hypothesis import strategies as st

from saga.engine import eviction
from saga.engine.config import EngineConfig, engine_of
from saga.engine.radix import RadixTree
from saga.kv.pages import HASH_BYTES

HIGHEST, LOWEST = (1 << 63) - 1, -(1 << 63)


def fill(tree, text, priority=0):
    hashes = hashes_of(text, 1)
    node, pages = tree.match(hashes, len(hashes))
    node = tree.insert(node, hashes[pages * HASH_BYTES :], priority).node
    tree.prioritise(node, priority)
    return node


def evicted(tree, texts):
    """Which of the texts' last pages go, one leaf after the other."""
    named = {hashes_of(text, 1)[-HASH_BYTES:]: text for text in texts}
    return [named[hashes[-HASH_BYTES:]] for _ in texts for hashes in tree.evict(1)]


def test_the_lowest_priority_goes_first_and_then_the_least_recently_used():
    tree = RadixTree(eviction="priority")
    for text, priority in (("aa", 1), ("bb", 0), ("cc", HIGHEST), ("dd", LOWEST), ("ee", 0), ("ff", 1)):
        fill(tree, text, priority)
    tree.match(hashes_of("bb", 1), 2)
    tree.check()
    assert evicted(tree, ["aa", "bb", "cc", "dd", "ee", "ff"]) == ["dd", "ee", "bb", "aa", "ff", "cc"]


def test_with_lru_priorities_mean_nothing():
    tree = RadixTree()
    for text, priority in (("aa", 5), ("bb", 0), ("cc", 9)):
        fill(tree, text, priority)
    assert evicted(tree, ["aa", "bb", "cc"]) == ["aa", "bb", "cc"]


def test_open_sessions_come_before_priority():
    tree = RadixTree(eviction="priority")
    tree.tag("s", fill(tree, "aa", 0))
    fill(tree, "bb", 9)
    tree.check()
    assert evicted(tree, ["aa", "bb"]) == ["bb", "aa"]


def test_what_a_session_is_worth_means_nothing_beside_priority():
    tree = RadixTree(eviction="priority")
    for session, text, value in (("s", "aa", 9.0), ("t", "bb", 1.0)):
        tree.tag(session, fill(tree, text))
        tree.set_value(session, value)
    tree.check()
    assert evicted(tree, ["aa", "bb"]) == ["aa", "bb"]


def test_a_shared_prefix_is_as_important_as_the_most_important_of_those_who_share_it():
    tree = RadixTree(eviction="priority")
    fill(tree, "aabb", 0)
    fill(tree, "aacc", 5)
    fill(tree, "ddd", 4)
    fill(tree, "eee", 6)
    tree.check()
    assert evicted(tree, ["aabb", "aacc", "ddd", "eee", "aa"]) == ["aabb", "ddd", "aacc", "aa", "eee"]


def test_a_lower_priority_never_lowers_it_and_a_hit_alone_never_raises_it():
    tree = RadixTree(eviction="priority")
    fill(tree, "aaa", 5)
    fill(tree, "aaa", 0)
    fill(tree, "bbb", 2)
    tree.match(hashes_of("bbb", 1), 3)
    fill(tree, "ccc", 3)
    assert evicted(tree, ["aaa", "bbb", "ccc"]) == ["bbb", "ccc", "aaa"]


def test_both_parts_of_a_node_that_is_cut_are_as_important_as_the_whole():
    tree = RadixTree(eviction="priority")
    fill(tree, "aaaa", 5)
    tree.match(hashes_of("aaxx", 1), 4)
    fill(tree, "bb", 4)
    tree.check()
    assert evicted(tree, ["bb", "aaaa", "aa"]) == ["bb", "aaaa", "aa"]


def test_a_node_is_cut_where_a_prefix_ends():
    tree = RadixTree(eviction="priority")
    fill(tree, "aab")
    last = fill(tree, "aabbbcc")
    assert tree.before(last, 0) is last
    assert tree.before(last, 4).tip == hashes_of("aab", 1)[-HASH_BYTES:]
    assert tree.before(last, 3).tip == hashes_of("aabb", 1)[-HASH_BYTES:]
    assert tree.before(last, 6).tip == hashes_of("a", 1)
    tree.check()
    assert sorted(node.pages for node in tree.nodes()) == [1, 1, 2, 3]


def ask_and_see_what_goes(*asks):
    """Pages still cached, as texts, when something that needs 17 of its 40 pages was asked after `asks`."""
    drive = Drive(small_profile(kv_tokens=160), eviction="priority")
    for number, (prompt, output, priority) in enumerate(asks):
        drive.ask(f"r{number}", prompt, output, priority=priority)
        drive.run()
        drive.check()
    drive.ask("large", "z" * 64, "z" * 2, priority=LOWEST)
    drive.run()
    drive.check()
    return {
        text
        for prompt, output, _ in asks
        for text in (prompt, prompt + output)
        if hashes_of(text)[-HASH_BYTES:] in drive.resident
    }


def test_what_was_said_goes_before_what_was_asked():
    a, b, said = "a" * 36, "b" * 36, "s" * 37
    kept = ask_and_see_what_goes((a, said, 0), (b, said, 0))
    assert kept == {a, b}


def test_a_request_whose_whole_prompt_is_cached_makes_it_more_important_all_the_same():
    a, b, c = "a" * 41, "b" * 41, "c" * 41
    assert ask_and_see_what_goes((a, "s", 1), (b, "s", 2), (c, "s", 3)) == {b, c, b + "s", c + "s"}
    assert ask_and_see_what_goes((a, "s", 1), (b, "s", 2), (c, "s", 3), (a, "s", 4)) == {a, c, a + "s", c + "s"}


def test_the_prompt_of_a_retracted_request_is_cut_from_what_it_said():
    """After a retraction prompt and answer are prefilled as one, so that they may lie in one node."""
    drive = Drive(small_profile(max_running=1, chunk_tokens=160), eviction="priority", priority_scheduling=True)
    drive.ask("low", "a" * 40, "s" * 60)
    while drive.progress.get("low", [0])[-1] < 30:
        drive.step()
    drive.ask("high", "b" * 80, "t" * 40, priority=100)
    drive.run()
    drive.check()
    assert drive.finished["low"].retractions == 1
    prompt = next(node for node in drive.core.pool.tree.nodes() if node.tip == hashes_of("a" * 40)[-HASH_BYTES:])
    assert (prompt.priority, [child.priority for child in prompt.children.values()]) == (1, [0])


@settings(deadline=None, max_examples=200)
@given(st.lists(st.tuples(st.text("ab", min_size=1, max_size=8), st.integers(-2, 3)), min_size=1, max_size=20))
def test_eviction_follows_a_sort_of_the_leaves_at_every_moment(asks):
    tree = RadixTree(eviction="priority")
    for text, priority in asks:
        fill(tree, text, priority)
        tree.check()
    while tree.pages:
        leaves = [node for node in tree.nodes() if not node.children]
        lowest = min((leaf.priority, leaf.used_at) for leaf in leaves)
        gone = {leaf.hashes for leaf in leaves if (leaf.priority, leaf.used_at) == lowest}
        assert tree.evict(1)[0] in gone
        tree.check()


@pytest.mark.parametrize("eviction", ["lru", "priority"])
def test_the_engine_of_a_configuration_evicts_as_it_says(eviction):
    assert engine_of(EngineConfig(eviction=eviction)).eviction == eviction


def test_uses_of_a_cache_with_room_leave_nothing_behind(monkeypatch):
    monkeypatch.setattr(eviction, "_SPARE", 8)
    tree = RadixTree()
    for _ in range(100):
        for text in ("aa", "bb", "cc"):
            node = fill(tree, text)
            tree.lock(node)
            tree.unlock(node, 0.0)

    assert len(tree._order._heap) <= 2 * 3 + 8 + 1
    tree.check()
    assert evicted(tree, ["aa", "bb", "cc"]) == ["aa", "bb", "cc"]


@given(st.lists(st.tuples(st.sampled_from(["use", "tag", "untag", "evict"]), st.sampled_from("abcdef")), max_size=60))
def test_what_is_tidied_away_changes_no_order(story):
    def told(spare: int) -> list[bytes]:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(eviction, "_SPARE", spare)
            tree, gone = RadixTree(), []
            for act, name in story:
                if act == "use":
                    node = fill(tree, "x" + name + "y")
                    tree.lock(node)
                    tree.unlock(node, 0.0)
                elif act == "tag":
                    tree.tag(name, fill(tree, "x" + name + "y"))
                elif act == "untag":
                    tree.untag(name)
                else:
                    gone += tree.evict(1)
                tree.check()
            return gone + tree.evict(tree.pages)

    assert told(0) == told(1_000_000)
