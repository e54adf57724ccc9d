"""Partitions have one owner each, and few move when members do."""

from hypothesis import given
from hypothesis import strategies as st

from saga.graph.partitions import LEASE_S, PARTITIONS, Membership, owner_of, partition_of

NAMES = st.sets(st.text("abcdef0123", min_size=1, max_size=8), min_size=1, max_size=6)


@given(NAMES)
def test_all_members_agree_and_every_partition_has_one_owner(names):
    views = []
    for me in sorted(names):
        view = Membership(me)
        for other in names - {me}:
            view.renewed(other, 1, 0.0)
        view.settle(1.0)
        views.append(view.owned)
    assert sum(map(len, views)) == PARTITIONS
    assert frozenset().union(*views) == frozenset(range(PARTITIONS))


@given(NAMES)
def test_a_newcomer_takes_and_moves_nothing_else(names):
    before = sorted(names)
    after = sorted({*names, "newcomer"})
    for partition in range(PARTITIONS):
        assert owner_of(partition, after) in {owner_of(partition, before), "newcomer"}


def test_a_silent_member_loses_its_partitions_and_leaves_its_key():
    view = Membership("a")
    assert len(view.owned) == PARTITIONS
    view.renewed("b", 1, 0.0)
    assert view.settle(0.0)
    assert 0 < len(view.owned) < PARTITIONS
    view.renewed("b", 1, LEASE_S - 0.1)  # the same revision is no sign of life
    assert view.settle(LEASE_S)
    assert len(view.owned) == PARTITIONS
    assert view.take_lost() == {"b": 1}
    assert view.take_lost() == {}
    view.renewed("b", 2, LEASE_S)
    view.settle(LEASE_S)
    view.gone("b")
    assert view.settle(LEASE_S)
    assert view.members == ["a"]


def test_roots_spread_over_partitions():
    assert len({partition_of(f"root-{n}") for n in range(1_000)}) == PARTITIONS
