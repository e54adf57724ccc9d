"""What a worker's agent can say of KV that is gone, and how far back it can say it."""

from saga.contract.ids import SessionId, StepId, WorkerId
from saga.contract.messages import KvAsk
from saga.worker import endings
from saga.worker.endings import Endings

S = SessionId("s")


def told(known, step="b", session=S, now_s=100.0):
    said = known.told(KvAsk(session=session, step_id=StepId(step)), WorkerId("w"), now_s)
    return said.let_go, said.known_s


def attached(now_s=0.0):
    known = Endings()
    known.attached(now_s)
    return known


def test_an_ending_explains_the_next_step_and_no_later_one():
    known = attached()
    known.let_go(S, "expired", 10.0)
    known.took(S, StepId("b"), kept=False)
    known.took(S, StepId("c"), kept=False)

    assert told(known, "b") == ("expired", 100.0)
    assert told(known, "c") == ("", 100.0)


def test_one_that_has_moved_away_is_explained_by_its_last():
    known = attached()
    known.let_go(S, "crowded", 10.0)
    known.let_go(S, "moved", 20.0)

    assert told(known, "a step elsewhere") == ("crowded", 100.0), "nothing was left to move"


def test_a_tag_that_was_open_all_along_let_nothing_go():
    known = attached()
    known.let_go(S, "superseded", 10.0)
    known.took(S, StepId("b"), kept=True)

    assert told(known) == ("", 100.0)


def test_an_engine_that_dies_takes_what_was_open_and_all_that_is_known():
    known = attached()
    known.let_go(SessionId("gone"), "expired", 10.0)
    known.engine_died([S, SessionId("gone")], 50.0)

    assert told(known) == ("engine_died", -1.0)
    assert told(known, session=SessionId("gone")) == ("expired", -1.0)
    known.attached(60.0)
    assert told(known) == ("engine_died", 40.0)


def test_what_it_had_to_forget_it_says_so(monkeypatch):
    monkeypatch.setattr(endings, "MAX_REMEMBERED", 3)
    known = attached()
    for number in range(5):
        known.let_go(SessionId(f"s{number}"), "expired", 10.0 + number)

    assert told(known, session=SessionId("s4")) == ("expired", 89.0)
    assert told(known, session=SessionId("s0")) == ("", 89.0), "known since 11 s, when the second was let go"
