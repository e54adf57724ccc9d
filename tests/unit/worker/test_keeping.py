"""Which tags go when there is no room for all, and what an engine is told meanwhile."""

import pytest

from saga.contract.ids import LeaseId, SessionId, SessionTag, StepId
from saga.contract.messages import Forecast
from saga.kernel.effects import Decision
from saga.worker.events import SetRetention
from saga.worker.idle import Idle, RetentionPolicy
from saga.worker.keeping import EngineRoom, Keeping
from saga.worker.leases import Lease
from saga.worker.retention import Saga, Values
from saga.worker.tags import TagTable

ROOM = EngineRoom(kv_tokens=1_000)


class ByName(RetentionPolicy):
    """Worth what its size says; fades by one a second, and says when to ask again."""

    room_share = 1.0

    def __init__(self, *, tells: bool = False) -> None:
        self.tells = tells

    def keep_s(self, forecast: Forecast | None, idle: Idle) -> Decision[float]:
        del forecast, idle
        return Decision(600.0, "test")

    def value(self, forecast: Forecast | None, idle: Idle) -> float | None:
        del forecast
        return idle.context_tokens - (idle.now_s - idle.ended_s)

    def good_s(self, forecast: Forecast | None, idle: Idle) -> float:
        del forecast, idle
        return 10.0


class Story:
    """A worker's tags in short."""

    def __init__(self, policy: RetentionPolicy) -> None:
        self.tags = TagTable()
        self.keeping = Keeping(policy, self.tags)
        self.now_s = 0.0
        self.leases: dict[str, Lease] = {}

    def begin(self, name: str, tokens: int = 0, tag: str = "") -> list[SessionTag]:
        lease = Lease(LeaseId(f"{name}/{self.now_s}"), StepId(name), 0, 5.0, SessionId(name), SessionTag(tag or name))
        self.leases[name] = lease
        close = self.tags.take(lease)
        self.keeping.began(lease, tokens)
        return self.close(close)

    def end(self, name: str, tokens: int) -> list[SetRetention]:
        entry, close = self.tags.free(self.leases.pop(name), self.now_s, finished=True)
        assert entry is not None
        entry.context_tokens = tokens
        told = self.keeping.ended(entry, ROOM, self.now_s)
        self.close(close)
        return told

    def step(self, name: str, tokens: int) -> list[SetRetention]:
        self.begin(name)
        return self.end(name, tokens)

    def settle(self, now_s: float | None = None) -> tuple[list[SessionTag], list[SetRetention]]:
        self.now_s = self.now_s if now_s is None else now_s
        told = self.keeping.review(ROOM, self.now_s)
        return self.close(self.tags.expire(self.now_s)), told

    def close(self, tags: list[SessionTag]) -> list[SessionTag]:
        self.keeping.closing(tags)
        for tag in tags:
            self.tags.closed(tag)
        self.keeping.check()
        self.tags.check()
        return tags


def test_a_session_whose_latest_tag_closed_is_still_known_by_one_that_a_step_holds():
    story = Story(ByName())
    story.begin("a", 300, tag="held")
    held = story.leases["a"]  # its end is lost
    story.begin("a", 400, tag="fresh")
    story.end("a", 400)

    story.close(story.tags.release(SessionId("a")))

    assert story.tags.of(SessionId("a")) == ["held"]
    assert story.keeping.tokens == 300
    story.close(story.tags.free(held, story.now_s)[1])
    assert story.keeping.tokens == 0


def test_as_long_as_all_fit_nobody_goes():
    story = Story(ByName())
    for name, tokens in (("a", 400), ("b", 600)):
        story.step(name, tokens)

    assert story.settle() == ([], [])
    assert story.keeping.tokens == 1_000


def test_the_least_worth_go_until_the_rest_fits():
    story = Story(ByName())
    for name, tokens in (("b", 300), ("a", 200), ("c", 900)):
        story.step(name, tokens)

    assert story.settle()[0] == ["a", "b"]
    assert story.keeping.tokens == 900


def test_a_prompt_that_runs_takes_room_before_it_has_ended_and_its_own_tag_stays():
    story = Story(ByName())
    story.step("a", 300)
    story.step("b", 500)
    story.begin("a", 600)

    assert story.settle()[0] == ["b"]
    assert story.keeping.tokens == 600


def test_values_that_faded_are_asked_for_again_before_one_goes():
    story = Story(ByName())
    story.step("a", 401)
    story.now_s = 20.0
    story.step("b", 400)

    assert story.settle() == ([], [])
    story.step("c", 500)
    assert story.settle()[0] == ["a"]


def test_who_is_told_hears_each_change_once_and_is_told_on_time_though_nothing_happens():
    story = Story(ByName(tells=True))

    assert story.step("a", 100) == [SetRetention(SessionTag("a"), 100.0)]
    assert story.keeping.next_s() == 10.0
    assert story.settle(5.0)[1] == []
    assert story.settle(10.0)[1] == [SetRetention(SessionTag("a"), 90.0)]
    story.begin("a")
    assert story.keeping.next_s() == float("inf"), "nobody is told while a step runs"


def test_without_anybody_to_tell_nothing_wakes_the_worker():
    story = Story(ByName())
    story.step("a", 100)

    assert story.keeping.next_s() == float("inf")
    assert story.settle(1_000.0)[0] == ["a"], "its time is over all the same"


def test_the_old_tag_of_a_session_that_runs_under_a_fresh_one_is_left_to_the_table():
    story = Story(ByName())
    story.step("a", 400)
    story.step("b", 500)
    story.begin("a", 400, tag="a2")

    assert story.settle()[0] == ["b"]
    story.end("a", 700)
    assert story.tags.state_of(SessionTag("a")) is None
    assert story.keeping.tokens == 700


def test_an_engine_that_died_takes_all_with_it():
    story = Story(ByName(tells=True))
    story.step("a", 400)
    story.begin("b", 10)
    story.tags.clear()
    story.keeping.clear()

    assert story.keeping.tokens == 0
    assert story.keeping.next_s() == float("inf")
    story.keeping.check()


@pytest.mark.parametrize("policy", [Saga, Values])
def test_saga_lets_go_of_who_was_away_longer_when_nothing_is_known(policy: type[Saga]):
    story = Story(policy(60.0, 300.0))
    for name in ("a", "b", "c"):
        story.step(name, 450)
        story.now_s += 5.0

    assert story.settle()[0] == ["a"]
