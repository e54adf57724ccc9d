"""The residency feed against the index that listens to it."""

from random import Random

import pytest

from saga.contract.ids import WorkerId
from saga.contract.messages import MAX_CHAIN_PAGES, AllCleared, PagesRemoved, PagesStored, ResidencyDelta, encode
from saga.kv.residency import ResidencyIndex
from saga.worker.residency import BATCH_PAGES, BATCH_S, PART_EVERY_S, SNAPSHOTS_IN_FLIGHT, ResidencyFeed

W = WorkerId("w")


def pages(first, count):
    return b"".join(n.to_bytes(8, "big") for n in range(first, first + count))


def feed(jitter_s=0.0):
    made = ResidencyFeed(W, Random(1), jitter_s)
    made.restart(5)
    return made


def test_changes_leave_together_after_a_moment():
    f = feed()
    assert f.change((PagesStored(pages(0, 3)),), 1.0) == []
    assert f.change((PagesStored(pages(3, 1)), PagesRemoved(pages(3, 1))), 1.01) == []
    assert f.next_s() == pytest.approx(1.0 + BATCH_S)
    deltas, parts = f.due(1.0 + BATCH_S)
    assert parts == []
    assert deltas == [
        ResidencyDelta(worker_id=W, epoch=5, seq=1, changes=(PagesStored(pages(0, 4)), PagesRemoved(pages(3, 1))))
    ]
    assert f.next_s() == float("inf")
    assert (f.seq, f.pages) == (1, 3)


def test_a_full_batch_leaves_at_once():
    f = feed()
    [delta] = f.change((PagesStored(pages(0, BATCH_PAGES)),), 0.0)
    assert delta.seq == 1
    assert f.flush() == []


def test_no_delta_is_too_large_for_the_bus():
    f = feed()
    f.change((PagesStored(pages(0, BATCH_PAGES - 1)),), 0.0)
    deltas = f.change((PagesStored(pages(0, 3 * MAX_CHAIN_PAGES)), AllCleared()), 0.0) + f.flush()
    assert all(len(encode(delta)) < 256 * 1024 for delta in deltas)
    index = ResidencyIndex()
    assert [index.apply(delta) for delta in deltas] == [None] * len(deltas)
    assert index.pages_on(W) == f.pages == 0


def test_a_snapshot_is_what_the_deltas_say():
    f = feed()
    index = ResidencyIndex()
    f.change((PagesStored(pages(0, 2 * MAX_CHAIN_PAGES + 10)), PagesRemoved(pages(10, 5))), 0.0)
    f.ask("inbox", 0.0)
    now_s, replies = 0.0, []
    while f.next_s() < float("inf"):
        now_s = max(now_s, f.next_s())
        deltas, parts = f.due(now_s)
        replies += parts
        assert all(delta.seq <= f.seq for delta in deltas)
    assert [inbox for inbox, _ in replies] == ["inbox"] * 3
    assert now_s >= 2 * PART_EVERY_S
    for _, part in reversed(replies):
        assert len(encode(part)) < 256 * 1024
        assert index.apply_snapshot(part) is None
    assert not index.stale(W)
    assert index.pages_on(W) == f.pages == 2 * MAX_CHAIN_PAGES + 5


def test_only_so_many_snapshots_are_in_flight():
    f = feed()
    f.change((PagesStored(pages(0, 2 * MAX_CHAIN_PAGES)),), 0.0)
    for number in range(4):
        f.ask(f"inbox-{number}", 0.0)
        f.ask(f"inbox-{number}", 0.0)  # once is enough
    _, parts = f.due(0.0)
    assert len(parts) == SNAPSHOTS_IN_FLIGHT
    now_s = 0.0
    for _ in range(10):
        now_s += PART_EVERY_S
        _, more = f.due(now_s)
        assert len(more) <= SNAPSHOTS_IN_FLIGHT
        parts += more
    assert len(parts) == 8
    assert f.next_s() == float("inf")


def test_snapshots_start_at_a_random_moment():
    f = feed(jitter_s=0.2)
    f.ask("inbox", 1.0)
    assert 1.0 < f.next_s() < 1.2
    assert f.due(1.0) == ([], [])
    assert len(f.due(1.2)[1]) == 1


def test_a_new_incarnation_starts_from_nothing():
    f = feed()
    f.change((PagesStored(pages(0, 3)),), 0.0)
    f.restart(6)
    assert f.flush() == []
    assert (f.epoch, f.seq, f.pages) == (6, 0, 0)
    with pytest.raises(ValueError, match="does not follow"):
        f.restart(6)
