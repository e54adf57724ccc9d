"""Leases expire unless renewed, end once, and late messages do not bring them back."""

from hypothesis import given
from hypothesis import strategies as st

from saga.contract.ids import LeaseId, SessionId, SessionTag, StepId
from saga.worker.leases import MAX_ENDED, Lease, LeaseTable

TTL_S = 6.0


def lease(name, ttl_s=TTL_S, tag="t"):
    return Lease(LeaseId(name), StepId(f"step-{name}"), 0, ttl_s, SessionId("s"), SessionTag(tag))


def test_a_lease_expires_unless_renewed():
    table = LeaseTable(TTL_S)
    assert table.take(lease("a"), 0.0)
    table.renew(LeaseId("a"), 4.0)
    assert table.expire(9.9) == []
    assert [e.lease_id for e in table.expire(10.0)] == ["a"]
    assert len(table) == 0
    assert table.next_s() == float("inf")


def test_an_ended_lease_never_comes_back():
    table = LeaseTable(TTL_S)
    table.take(lease("a"), 0.0)
    assert table.end(LeaseId("a")) is not None
    assert table.end(LeaseId("a")) is None
    assert not table.take(lease("a"), 1.0)
    table.progress(LeaseId("a"), StepId("x"), 0, 1.0)
    assert len(table) == 0


def test_an_end_before_its_beginning_counts():
    table = LeaseTable(TTL_S)
    assert table.end(LeaseId("a")) is None
    assert not table.take(lease("a"), 1.0)


def test_progress_takes_in_a_lease_whose_beginning_was_lost():
    table = LeaseTable(TTL_S)
    table.progress(LeaseId("a"), StepId("x"), 2, 0.0)
    assert table.out(LeaseId("a"))
    assert table.take(lease("a"), 1.0)  # late, but with its session
    assert not table.take(lease("a"), 2.0)
    assert table.expire(100.0)[0].session == "s"


def test_renewals_of_unknown_leases_mean_nothing():
    table = LeaseTable(TTL_S)
    table.renew(LeaseId("a"), 0.0)
    assert len(table) == 0


def test_what_is_remembered_of_ended_leases_is_bounded():
    table = LeaseTable(TTL_S)
    for number in range(MAX_ENDED + 10):
        table.end(LeaseId(str(number)))
    assert len(table._ended) == MAX_ENDED


NAMES = st.sampled_from("abcd")
EVENTS = st.lists(
    st.tuples(st.sampled_from(["take", "renew", "progress", "end", "expire"]), NAMES, st.floats(0, 4)), max_size=60
)


@given(EVENTS)
def test_each_lease_out_expires_within_its_ttl_after_the_last_sign(events):
    table = LeaseTable(TTL_S)
    now_s = 0.0
    signs: dict[str, float] = {}
    ended: set[str] = set()
    for kind, name, pause_s in events:
        now_s += pause_s
        key = LeaseId(name)
        if kind == "take" and name not in ended:
            if name not in signs:
                table.take(lease(name), now_s)
                signs[name] = now_s
        elif kind == "renew" and name in signs:
            table.renew(key, now_s)
            signs[name] = now_s
        elif kind == "progress" and name not in ended:
            table.progress(key, StepId("x"), 0, now_s)
            signs[name] = now_s
        elif kind == "end":
            table.end(key)
            ended.add(name)
            signs.pop(name, None)
        elif kind == "expire":
            gone = {e.lease_id for e in table.expire(now_s)}
            assert gone == {n for n, sign_s in signs.items() if sign_s + TTL_S <= now_s}
            ended |= gone
            signs = {n: sign_s for n, sign_s in signs.items() if n not in gone}
        table.check()
        assert {n for n in "abcd" if table.out(LeaseId(n))} == set(signs)
        assert table.next_s() == min((sign_s + TTL_S for sign_s in signs.values()), default=float("inf"))
