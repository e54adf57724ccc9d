"""Deadlines against a plain dict."""

from hypothesis import given
from hypothesis import strategies as st

from saga.worker.deadlines import NEVER_S, Deadlines

STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("set"), st.sampled_from("abc"), st.integers(0, 20)),
        st.tuples(st.just("drop"), st.sampled_from("abc"), st.just(0)),
        st.tuples(st.just("pop"), st.just(""), st.integers(0, 20)),
    ),
    max_size=80,
)


@given(STEPS)
def test_the_same_as_a_dict(steps):
    deadlines: Deadlines[str] = Deadlines()
    model: dict[str, float] = {}
    for kind, key, at in steps:
        if kind == "set":
            deadlines.set(key, float(at))
            model[key] = float(at)
        elif kind == "drop":
            deadlines.drop(key)
            model.pop(key, None)
        else:
            due = deadlines.pop_due(float(at))
            assert sorted(due) == sorted(k for k, at_s in model.items() if at_s <= at)
            assert [model[k] for k in due] == sorted(model[k] for k in due)
            model = {k: at_s for k, at_s in model.items() if at_s > at}
        assert deadlines.next_s() == min(model.values(), default=NEVER_S)
        assert all(deadlines.at_s(k) == model.get(k, NEVER_S) for k in "abc")


def test_moving_a_deadline_to_and_fro_does_not_grow_it():
    deadlines: Deadlines[str] = Deadlines()
    for number in range(10_000):
        deadlines.set("a", float(number % 2))
        deadlines.set("a", 5.0)
    assert len(deadlines._heap) < 100


def test_the_cheap_bound_is_never_late():
    deadlines = Deadlines()
    assert deadlines.not_before_s() == NEVER_S
    deadlines.set("a", 5.0)
    deadlines.set("a", 9.0)
    assert deadlines.not_before_s() <= deadlines.next_s() == 9.0
    deadlines.drop("a")
    assert deadlines.next_s() == NEVER_S
