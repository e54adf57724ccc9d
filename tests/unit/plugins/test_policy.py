"""The eviction order that SGLang gets from the plugin, on nodes as SGLang's tree has them."""

import heapq
from types import SimpleNamespace

from saga_sglang.policy import LOOK_EVERY_S, STALE_AFTER_S, SagaStrategy
from saga_sglang.ring import RingReader, empty

from saga.contract.ids import SessionTag
from saga.worker.retention_ring import RetentionRing

FULL = 0


class Clock:
    def __init__(self) -> None:
        self.now_s = 1_000.0

    def __call__(self) -> float:
        return self.now_s


class Scheduler:
    """A policy as it runs in SGLang's scheduler, and the agent that feeds it."""

    def __init__(self) -> None:
        memory = memoryview(bytearray(empty(64)))
        self.agent = RetentionRing(memory)
        self.clock = Clock()
        self.policy = SagaStrategy(RingReader(memory), FULL, self.clock)

    def say(self, **values: float) -> None:
        for tag, value in values.items():
            self.agent.set(SessionTag(tag), value)
        self.agent.beat(self.clock.now_s)
        self.clock.now_s += LOOK_EVERY_S

    def evicted(self, *leaves: SimpleNamespace) -> list[str]:
        """In SGLang's order: (referenced, sessions, the policy's key)."""
        heap = [
            ((bool(leaf.sessions), len(leaf.sessions), self.policy.get_priority(leaf)), leaf.name) for leaf in leaves
        ]
        heapq.heapify(heap)
        return [heapq.heappop(heap)[1] for _ in leaves]


def leaf(name: str, used: float, *sessions: str) -> SimpleNamespace:
    data = SimpleNamespace(session_ids=set(sessions) or None)
    return SimpleNamespace(name=name, last_access_time=used, component_data=[data], sessions=sessions)


def test_the_least_valued_goes_first_and_age_decides_among_equals():
    sglang = Scheduler()
    sglang.say(a=3.0, b=1.0, c=2.0, d=1.0)

    order = sglang.evicted(leaf("A", 1, "a"), leaf("B", 4, "b"), leaf("C", 2, "c"), leaf("D", 3, "d"))

    assert order == ["D", "B", "C", "A"]


def test_without_a_value_a_leaf_counts_as_zero_and_without_a_session_it_goes_first():
    sglang = Scheduler()
    sglang.say(good=1.0, bad=-1.0)

    order = sglang.evicted(leaf("good", 1, "good"), leaf("unsaid", 2, "unsaid"), leaf("bad", 3, "bad"), leaf("free", 4))

    assert order == ["free", "bad", "unsaid", "good"]


def test_values_act_within_equal_numbers_of_sessions_only():
    sglang = Scheduler()
    sglang.say(a=9.0, b=0.1, c=0.2)

    assert sglang.evicted(leaf("shared", 1, "b", "c"), leaf("dear", 2, "a")) == ["dear", "shared"]


def test_a_shared_leaf_is_worth_what_its_dearest_session_is():
    sglang = Scheduler()
    sglang.say(a=1.0, b=5.0, c=2.0, d=3.0)

    assert sglang.evicted(leaf("ab", 1, "a", "b"), leaf("cd", 2, "c", "d")) == ["cd", "ab"]


def test_a_word_that_comes_later_changes_the_order():
    sglang = Scheduler()
    leaves = [leaf("A", 1, "a"), leaf("B", 2, "b")]
    sglang.say(a=1.0, b=2.0)
    assert sglang.evicted(*leaves) == ["A", "B"]

    sglang.say(a=3.0)

    assert sglang.evicted(*leaves) == ["B", "A"]


def test_an_agent_that_is_silent_or_gone_leaves_plain_lru():
    sglang = Scheduler()
    leaves = [leaf("older", 1, "a"), leaf("younger", 2, "b")]
    sglang.say(a=5.0)
    assert sglang.evicted(*leaves) == ["younger", "older"]

    sglang.clock.now_s += STALE_AFTER_S
    assert sglang.evicted(*leaves) == ["older", "younger"]

    sglang.say()  # it is back: what it said holds again
    assert sglang.evicted(*leaves) == ["younger", "older"]

    sglang.agent.beat(0.0)
    sglang.clock.now_s += LOOK_EVERY_S
    assert sglang.evicted(*leaves) == ["older", "younger"]


def test_before_any_agent_came_it_is_lru():
    assert Scheduler().evicted(leaf("older", 1, "a"), leaf("younger", 2)) == ["younger", "older"]
    assert Scheduler().evicted(leaf("younger", 2, "a"), leaf("older", 1, "b")) == ["older", "younger"]
