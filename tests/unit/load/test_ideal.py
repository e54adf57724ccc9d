"""The infinite cache: whole pages, never the last token, shared wherever the text is."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from saga.load.ideal import Chain, InfiniteCache, recorded_ideal
from saga.load.planner import PlanSettings, build_plan
from saga.load.trace import Session, Step


def test_whole_pages_of_what_came_before_and_never_the_last_token():
    cache = InfiniteCache(4)
    assert cache.cached_tokens(Chain(), "aaaabbbbcc") == 0
    assert cache.cached_tokens(Chain(), "aaaabbbbdd") == 8
    assert cache.cached_tokens(Chain(), "aaaabbbb") == 4
    assert cache.cached_tokens(Chain(), "bbbbcc") == 0
    assert cache.cached_tokens(Chain(), "a") == 0


def test_an_answer_is_cached_but_for_its_last_token():
    cache, chain = InfiniteCache(4), Chain()
    cache.cached_tokens(chain, "aaaab")
    cache.insert(chain, "aaaab" + "bbb")
    assert cache.cached_tokens(Chain(), "aaaabbbbcc") == 4
    cache.insert(chain, "aaaab" + "bbbc")
    assert cache.cached_tokens(Chain(), "aaaabbbbcc") == 8


@given(st.lists(st.text("ab", min_size=1, max_size=24), min_size=1, max_size=12), st.integers(1, 5))
def test_equals_the_definition(prompts, page):
    cache, chain, before = InfiniteCache(page), Chain(), []
    for prompt in prompts:
        longest = 0
        for pages in range(1, (len(prompt) - 1) // page + 1):
            if any(old[: pages * page] == prompt[: pages * page] for old in before):
                longest = pages * page
        assert cache.cached_tokens(chain, prompt) == longest
        before.append(prompt)


def test_recorded_blocks_alone():
    def step(runs, tail=0):
        return Step("main", 0.0, 64 * sum(count for _, count in runs) + tail, 1, tuple(runs))

    sessions = [
        Session("a", 64, (step([(1, 2)]), step([(1, 4)], tail=32), step([(1, 2), (9, 1)]))),
        Session("b", 64, (step([(1, 2)]),)),
    ]
    plan = build_plan(sessions, PlanSettings(context_tokens=10**6, kv_tokens=10**7))
    assert recorded_ideal(plan) == pytest.approx(64 * 4 / (64 * 11 + 32))
