"""Session tags are never closed while a lease of them is out, and every open one is closed some day."""

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from saga.contract.ids import LeaseId, SessionId, SessionTag, StepId
from saga.worker import tags as tags_module
from saga.worker.leases import Lease
from saga.worker.tags import CLOSE_AGAIN_S, MAX_SESSION_TAGS, OpenTag, TagMove, TagRecord, TagState, TagTable

S = SessionId("s")


def lease(name, tag="s-0", session="s"):
    return Lease(LeaseId(name), StepId(f"step-{name}"), 0, 6.0, SessionId(session), SessionTag(tag))


def idle_tag(table, now_s=0.0, until_s=10.0, name="a"):
    table.take(lease(name))
    entry, close = table.free(lease(name), now_s)
    assert close == []
    table.keep_until(entry.tag, until_s)
    return entry.tag


def test_an_idle_tag_closes_at_its_deadline():
    table = TagTable()
    tag = idle_tag(table)
    assert table.expire(9.0) == []
    assert table.expire(10.0) == [tag]
    assert table.expire(11.0) == []  # asked once
    table.closed(tag)
    assert len(table) == 0
    table.check()


def test_a_release_waits_for_the_last_lease():
    table = TagTable()
    table.take(lease("a"))
    table.take(lease("b"))
    assert table.release(S) == []
    assert table.free(lease("a"), 0.0) == (None, [])
    assert table.free(lease("b"), 0.0) == (None, ["s-0"])
    assert table.state_of(SessionTag("s-0")) is TagState.CLOSING


def test_a_session_that_comes_back_before_its_step_ends_keeps_its_tag():
    table = TagTable()
    table.take(lease("a"))
    table.release(S)
    table.take(lease("b"))
    table.free(lease("a"), 0.0)
    entry, close = table.free(lease("b"), 1.0)
    assert entry is not None
    assert close == []


def test_a_release_of_an_idle_tag_closes_at_once_and_once():
    table = TagTable()
    tag = idle_tag(table)
    assert table.release(S) == [tag]
    assert table.release(S) == []
    assert table.release(SessionId("nobody")) == []


def test_a_superseded_tag_closes_when_the_first_step_under_the_fresh_one_has_finished():
    table = TagTable()
    idle_tag(table, until_s=10.0)
    assert table.take(lease("b", tag="s-1")) == []
    assert table.expire(10.0) == []  # only it pins what both share, however long the step takes
    table.check()

    entry, close = table.free(lease("b", tag="s-1"), 20.0, finished=True)
    assert close == ["s-0"]
    table.closed(SessionTag("s-0"))
    table.keep_until(entry.tag, 30.0)
    assert len(table) == 1
    table.check()


def test_a_step_that_was_aborted_supersedes_nothing():
    table = TagTable()
    idle_tag(table)
    table.take(lease("b", tag="s-1"))

    entry, close = table.free(lease("b", tag="s-1"), 1.0)
    assert close == []
    table.keep_until(entry.tag, 5.0)
    table.check()
    assert sorted(table.expire(5.0)) == ["s-0", "s-1"]


def test_a_superseded_tag_waits_for_its_own_steps():
    table = TagTable()
    table.take(lease("a"))
    table.take(lease("b", tag="s-1"))
    assert table.free(lease("b", tag="s-1"), 0.0, finished=True)[1] == []
    assert table.state_of(SessionTag("s-0")) is TagState.DOOMED
    assert table.free(lease("a"), 0.0, finished=True) == (None, ["s-0"])


def test_the_end_of_an_older_tags_step_does_not_close_the_fresh_one():
    table = TagTable()
    table.take(lease("a"))
    table.take(lease("b", tag="s-1"))
    entry, close = table.free(lease("a"), 0.0, finished=True)
    assert (entry.tag, close) == ("s-0", [])
    assert table.state_of(SessionTag("s-1")) is TagState.HELD


def test_a_tag_that_is_taken_again_is_the_fresh_one():
    """Its leader died, and the next one says otherwise what the session's tag is."""
    table = TagTable()
    table.take(lease("a"))
    table.take(lease("b", tag="s-1"))
    table.take(lease("c"))
    assert table.free(lease("b", tag="s-1"), 0.0, finished=True)[1] == []
    assert table.free(lease("c"), 0.0, finished=True)[1] == ["s-1"]


def test_a_session_whose_first_steps_never_finish_has_few_tags():
    table = TagTable()
    asked = []
    for number in range(10):
        asked += table.take(lease(f"x{number}", tag=f"s-{number}"))
        entry, close = table.free(lease(f"x{number}", tag=f"s-{number}"), 0.0)
        table.keep_until(entry.tag, 10.0)
        for tag in close + asked:
            table.closed(tag)
        assert len(table) <= MAX_SESSION_TAGS
    table.check()


def test_a_close_that_could_not_be_asked_is_asked_again():
    table = TagTable()
    tag = idle_tag(table)
    table.release(S)
    table.close_failed(tag, 5.0)
    assert table.expire(5.0 + CLOSE_AGAIN_S) == [tag]
    table.check()


def test_a_tag_taken_while_it_was_being_closed_stays():
    table = TagTable()
    tag = idle_tag(table)
    table.release(S)
    table.take(lease("b"))
    table.closed(tag)
    table.close_failed(tag, 1.0)
    assert table.state_of(tag) is TagState.HELD
    table.check()


def test_the_journal_hears_each_change_once():
    table = TagTable()
    table.take(lease("a"))
    assert table.take_changes() == [("s-0", TagRecord(SessionTag("s-0"), S, (lease("a"),)))]
    assert table.take_changes() == []
    table.free(lease("a"), 0.0)
    assert table.take_changes() == [("s-0", TagRecord(SessionTag("s-0"), S))]
    table.release(S)
    table.closed(SessionTag("s-0"))
    assert table.take_changes() == [("s-0", None)]


def test_restored_tags_close_unless_claimed():
    table = TagTable()
    table.restore(TagRecord(SessionTag("s-0"), S), 10.0)
    table.restore(TagRecord(SessionTag("r-0"), SessionId("r"), (lease("r1", "r-0", "r"),)), 10.0)
    table.restore(TagRecord(SessionTag("q-0"), SessionId("q")), 10.0)
    table.take(lease("q1", "q-0", "q"))
    assert table.expire(10.0) == ["s-0"]
    assert table.state_of(SessionTag("r-0")) is TagState.HELD
    assert table.state_of(SessionTag("q-0")) is TagState.HELD
    table.check()


def test_leases_without_a_tag_open_none():
    table = TagTable()
    table.take(lease("a", tag=""))
    assert len(table) == 0
    assert table.free(lease("a", tag=""), 0.0) == (None, [])


def test_a_bounded_number_of_tags(monkeypatch):
    monkeypatch.setattr(tags_module, "MAX_TAGS", 3)
    table = TagTable()
    for number in range(3):
        session = f"s{number}"
        table.take(lease(session, f"{session}-0", session))
        entry, _ = table.free(lease(session, f"{session}-0", session), 0.0)
        table.keep_until(entry.tag, 100.0 + number)
    assert table.take(lease("x", "x-0", "x")) == ["s0-0"]


def test_an_illegal_move_raises_and_changes_nothing():
    entry = OpenTag(SessionTag("t"), S)
    with pytest.raises(AssertionError, match="cannot free while idle"):
        entry.move(TagMove.FREE)
    assert entry.state is TagState.IDLE


class TagMachine(RuleBasedStateMachine):
    """Any order of anything: an engine that only hears of closes, and the table."""

    def __init__(self):
        super().__init__()
        self.table = TagTable()
        self.now_s = 0.0
        self.out: dict[str, Lease] = {}
        self.asked: list[str] = []
        self.count = 0

    def close(self, tags):
        held = {lease.tag for lease in self.out.values()}
        assert not held & set(tags), "closed under a lease"
        self.asked += tags

    @rule(session=st.sampled_from("ab"), generation=st.integers(0, 4))
    def take(self, session, generation):
        self.count += 1
        new = lease(str(self.count), f"{session}-{generation}", session)
        self.out[new.lease_id] = new
        self.close(self.table.take(new))

    @rule(data=st.data())
    def free(self, data):
        if not self.out:
            return
        ended = self.out.pop(data.draw(st.sampled_from(sorted(self.out))))
        entry, close = self.table.free(ended, self.now_s, finished=data.draw(st.booleans()))
        if entry is not None:
            self.table.keep_until(entry.tag, self.now_s + data.draw(st.sampled_from([0.0, 5.0])))
        self.close(close)

    @rule(session=st.sampled_from("ab"))
    def release(self, session):
        self.close(self.table.release(SessionId(session)))

    @rule(pause_s=st.floats(0, 6))
    def time_passes(self, pause_s):
        self.now_s += pause_s
        self.close(self.table.expire(self.now_s))

    @rule(fails=st.booleans())
    def engine_answers(self, fails):
        if self.asked:
            tag = SessionTag(self.asked.pop(0))
            if fails:
                self.table.close_failed(tag, self.now_s)
            else:
                self.table.closed(tag)

    @invariant()
    def sound(self):
        self.table.check()
        assert {lease.tag for lease in self.out.values()} == {
            tag for tag in self.table._tags if self.table._tags[tag].leases
        }

    def teardown(self):
        """Everything ends: nothing stays open."""
        for ended in self.out.values():
            entry, close = self.table.free(ended, self.now_s)
            if entry is not None:
                self.table.keep_until(entry.tag, self.now_s)
            self.asked += close
        self.out.clear()
        for _ in range(3):
            self.asked += self.table.expire(self.now_s + 100.0)
            for tag in self.asked:
                self.table.closed(SessionTag(tag))
        assert len(self.table) == 0
        assert not self.table._by_session


TagMachine.TestCase.settings = settings(max_examples=60, stateful_step_count=30, deadline=None)
TestTagMachine = TagMachine.TestCase
