"""The journal survives crashes in the middle of a line and does not grow for ever."""

from saga.contract.ids import LeaseId, SessionId, SessionTag, StepId
from saga.worker.journal import COMPACT_LINES, Journal, encode_record
from saga.worker.leases import Lease
from saga.worker.tags import TagRecord


def record(name, *leases):
    return TagRecord(SessionTag(name), SessionId(f"session of {name}"), leases)


def test_the_last_word_counts():
    journal = Journal()
    lease = Lease(LeaseId("l"), StepId("s"), 1, 6.0, SessionId("x"), SessionTag("a"))
    written = b"".join(
        [
            journal.opened("a", encode_record(record("a", lease))),
            journal.opened("b", encode_record(record("b"))),
            journal.gone("b"),
            journal.opened("c", encode_record(record("c"))),
            journal.opened("a", encode_record(record("a"))),
        ]
    )
    assert Journal(written).records() == [record("a"), record("c")]
    assert Journal(written).anew() == journal.anew()


def test_leases_come_back():
    lease = Lease(LeaseId("l"), StepId("s"), 1, 6.0, SessionId("x"), SessionTag("a"))
    line = Journal().opened("a", encode_record(record("a", lease)))
    assert Journal(line).records()[0].leases == (lease,)


def test_a_torn_or_foreign_line_is_ignored():
    line = Journal().opened("a", encode_record(record("a")))
    assert Journal(line + b"+{garbage}\n\n-\xff\nx\n" + line[:-5]).records() == [record("a")]


def test_it_is_written_anew_when_overgrown():
    journal = Journal()
    for number in range(COMPACT_LINES):
        journal.opened(str(number), encode_record(record(str(number))))
        journal.gone(str(number))
    assert journal.overgrown
    assert journal.anew() == b""
    assert not journal.overgrown
