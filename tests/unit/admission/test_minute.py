"""The sliding minute: never forgets within sixty seconds, whatever it is asked."""

from hypothesis import given
from hypothesis import strategies as st

from saga.admission.minute import Minute

ADDED = st.lists(st.tuples(st.floats(0.0, 20.0), st.integers(0, 1_000)), max_size=60)


@given(ADDED)
def test_it_holds_at_least_the_last_sixty_seconds_and_at_most_sixty_one(added):
    minute, now_s = Minute(), 1_000.0
    story: list[tuple[float, int]] = []
    for passed_s, tokens in added:
        now_s += passed_s
        minute.forget(now_s)
        minute.add(now_s, tokens)
        story.append((now_s, tokens))

        assert minute.tokens >= sum(t for at_s, t in story if at_s > now_s - 60.0)
        assert minute.tokens <= sum(t for at_s, t in story if at_s >= now_s - 61.0)


def test_it_remembers_a_minute_of_seconds_though_nobody_asks():
    minute = Minute()
    for second in range(1_000):
        minute.add(second + 0.5, 10)

    assert len(minute._seconds) == 61
    assert minute.tokens == 610


def test_what_was_never_used_is_taken_back_unless_it_is_forgotten_already():
    minute = Minute()
    minute.add(10.5, 100)
    minute.add(10.7, 50)
    minute.take_back(10.5, 100)
    assert minute.tokens == 50

    minute.forget(80.0)
    minute.take_back(10.7, 50)
    assert minute.tokens == 0


def test_it_says_when_there_is_room_again():
    minute = Minute()
    minute.add(10.5, 100)
    minute.add(40.5, 100)

    assert minute.free_in_s(50.0, 50) == 21.0
    assert minute.free_in_s(50.0, 150) == 51.0
    assert minute.free_in_s(50.0, 500) == 60.0
