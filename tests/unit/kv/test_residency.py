"""The residency index against a brute-force model, through losses, doubles, restarts and snapshots."""

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from saga.contract.ids import WorkerId
from saga.contract.messages import AllCleared, PagesRemoved, PagesStored, ResidencyChange, ResidencyDelta, ResyncReply
from saga.kv.residency import MAX_KEPT_DELTAS, ResidencyIndex

A, B = WorkerId("a"), WorkerId("b")


def page(name: int) -> bytes:
    return (name * 0x9E3779B97F4A7C15 % 2**64).to_bytes(8, "big")


def chain(*names: int) -> bytes:
    return b"".join(map(page, names))


def stored(worker, seq, *names, epoch=1):
    return ResidencyDelta(worker_id=worker, epoch=epoch, seq=seq, changes=(PagesStored(chain(*names)),))


def removed(worker, seq, *names, epoch=1):
    return ResidencyDelta(worker_id=worker, epoch=epoch, seq=seq, changes=(PagesRemoved(chain(*names)),))


def snapshot(worker, seq, *names, epoch=1, part=0, parts=1):
    return ResyncReply(worker_id=worker, epoch=epoch, seq=seq, part=part, parts=parts, hashes=chain(*names))


def test_counts_leading_pages_per_worker():
    index = ResidencyIndex()
    assert index.apply(stored(A, 1, 1, 2, 3, 4)) is None
    assert index.apply(stored(B, 1, 1, 2)) is None
    prompt = chain(1, 2, 3, 4, 5)
    assert index.match(prompt) == {A: 4, B: 2}
    assert index.resident_pages(A, prompt) == 4
    assert index.resident_pages(B, prompt) == 2
    assert index.resident_pages(WorkerId("nobody"), prompt) == 0
    assert index.match(b"") == {}
    assert index.match(chain(9)) == {}
    assert index.match(chain(2, 4), stride=2) == {A: 4, B: 2}
    assert index.resident_pages(A, chain(2, 4, 6), stride=2) == 4
    index.check()


def test_eviction_from_the_leaf_shortens_the_match():
    index = ResidencyIndex()
    index.apply(stored(A, 1, 1, 2, 3, 4))
    index.apply(removed(A, 2, 4, 3))
    assert index.match(chain(1, 2, 3, 4)) == {A: 2}
    index.apply(ResidencyDelta(worker_id=A, epoch=1, seq=3, changes=(AllCleared(), PagesStored(chain(7)))))
    assert index.match(chain(1, 2)) == {}
    assert index.match(chain(7)) == {A: 1}
    assert index.pages == 1
    index.check()


def test_a_first_delta_that_is_not_the_first_asks_for_a_snapshot():
    index = ResidencyIndex()
    wish = index.apply(stored(A, 5, 1))
    assert wish is not None
    assert (wish.worker_id, wish.epoch) == (A, 1)
    assert index.stale(A)
    assert index.stale_workers() == [A]


def test_a_gap_makes_stale_and_a_snapshot_with_replay_mends():
    index = ResidencyIndex()
    index.apply(stored(A, 1, 1))
    wish = index.apply(stored(A, 3, 3))
    assert wish is not None
    assert index.stale(A)
    assert index.apply(stored(A, 4, 4)) is None  # asked already
    assert index.resident_pages(A, chain(1)) == 1  # the best guess meanwhile
    assert index.apply_snapshot(snapshot(A, 3, 1, 2, 3)) is None
    assert not index.stale(A)
    assert index.match(chain(1, 2, 3, 4)) == {A: 4}
    index.check()


def test_a_snapshot_older_than_what_was_kept_asks_again():
    index = ResidencyIndex()
    index.apply(stored(A, 1, 1))
    index.apply(stored(A, 4, 4))
    wish = index.apply_snapshot(snapshot(A, 2, 1, 2))
    assert wish is not None
    assert index.stale(A)
    assert index.apply_snapshot(snapshot(A, 3, 1, 2, 3)) is None
    assert index.match(chain(1, 2, 3, 4)) == {A: 4}
    index.check()


def test_a_second_gap_while_waiting_wants_a_younger_snapshot():
    index = ResidencyIndex()
    index.apply(stored(A, 2, 2))
    assert index.apply(stored(A, 5, 5)) is not None
    assert index.apply_snapshot(snapshot(A, 2, 1, 2)) is not None
    assert index.apply_snapshot(snapshot(A, 4, 1, 2, 3, 4)) is None
    assert index.match(chain(1, 2, 3, 4, 5)) == {A: 5}


def test_parts_in_any_order_and_restarts():
    index = ResidencyIndex()
    index.apply(stored(A, 9, 9))
    index.apply_snapshot(snapshot(A, 9, 3, part=1, parts=2))
    index.apply_snapshot(snapshot(A, 10, 4, part=1, parts=2))  # a younger one begins
    index.apply_snapshot(snapshot(A, 9, 1, part=0, parts=2))  # late, of the older one
    assert index.stale(A)
    index.apply_snapshot(snapshot(A, 10, 1, part=0, parts=2))
    assert not index.stale(A)
    assert index.match(chain(1, 4)) == {A: 2}
    assert index.resident_pages(A, chain(3)) == 0
    index.check()


def test_duplicates_and_old_epochs_are_ignored():
    index = ResidencyIndex()
    index.apply(stored(A, 1, 1))
    index.apply(removed(A, 2, 1))
    assert index.apply(stored(A, 1, 1)) is None
    assert index.match(chain(1)) == {}
    index.apply(stored(A, 1, 5, epoch=2))
    assert index.apply(stored(A, 3, 6, epoch=1)) is None
    assert index.apply_snapshot(snapshot(A, 7, 8, epoch=1)) is None
    assert index.match(chain(6)) == {}
    assert index.match(chain(5)) == {A: 1}
    assert index.position(A) == (2, 1)


def test_a_higher_epoch_drops_the_old_claims():
    index = ResidencyIndex()
    index.apply(stored(A, 1, 1, 2))
    assert index.apply(stored(A, 4, 3, epoch=2)) is not None
    assert index.match(chain(1, 2)) == {}
    assert index.match(chain(3)) == {A: 1}
    index.check()


def test_a_snapshot_of_a_new_epoch_comes_before_its_deltas():
    index = ResidencyIndex()
    assert index.apply_snapshot(snapshot(A, 6, 1, 2, epoch=3)) is None
    assert not index.stale(A)
    assert index.apply(stored(A, 7, 3, epoch=3)) is None
    assert index.match(chain(1, 2, 3)) == {A: 3}


def test_heartbeats_find_a_lost_last_delta_at_the_second_beat():
    index = ResidencyIndex()
    index.apply(stored(A, 1, 1))
    assert index.expect(A, 1, 2) is None
    wish = index.expect(A, 1, 2)
    assert wish is not None
    assert index.stale(A)
    index.apply_snapshot(snapshot(A, 2, 1, 2))
    assert index.expect(A, 1, 2) is None
    assert not index.stale(A)


def test_heartbeats_of_an_unknown_worker_ask_for_a_snapshot():
    index = ResidencyIndex()
    assert index.expect(A, 1, 40) is None
    assert index.expect(A, 1, 40) is not None
    assert index.expect(B, 1, 0) is None
    assert index.expect(B, 1, 0) is None  # it has sent nothing, so nothing is missing


def test_a_dropped_worker_leaves_nothing_and_its_slot_is_used_again():
    index = ResidencyIndex()
    index.apply(stored(A, 1, 1, 2))
    index.apply(stored(B, 1, 1))
    index.drop_worker(A)
    index.drop_worker(A)
    assert index.match(chain(1, 2)) == {B: 1}
    index.apply(stored(WorkerId("c"), 1, 2))
    assert index.match(chain(2)) == {"c": 1}
    index.check()


def test_what_is_kept_is_bounded():
    index = ResidencyIndex()
    for seq in range(2, MAX_KEPT_DELTAS + 100):
        index.apply(stored(A, seq, seq))
    index.check()
    assert len(index._workers[A].kept) == MAX_KEPT_DELTAS
    assert index.apply_snapshot(snapshot(A, 50, *range(1, 51))) is not None  # too old by now
    assert index.apply_snapshot(snapshot(A, 200, *range(1, 201))) is None
    index.check()


class Engine:
    """A prefix-closed cache of chains with leaf-first eviction, and the deltas that tell of it."""

    def __init__(self, worker, rng):
        self.worker, self.rng = worker, rng
        self.epoch, self.seq = 1, 0
        self.held: set[tuple[int, ...]] = set()  # a page is the path to it

    def delta(self, *changes: ResidencyChange):
        self.seq += 1
        return ResidencyDelta(worker_id=self.worker, epoch=self.epoch, seq=self.seq, changes=changes)

    def store(self, path):
        new = [path[: n + 1] for n in range(len(path)) if path[: n + 1] not in self.held]
        self.held.update(new)
        return self.delta(PagesStored(path_chain(new)))

    def evict(self, count):
        gone = []
        for _ in range(count):
            parents = {path[:-1] for path in self.held}
            leaves = sorted(self.held - parents)
            if leaves:
                gone.append(self.rng.choice(leaves))
                self.held.discard(gone[-1])
        return self.delta(PagesRemoved(path_chain(gone)))

    def restart(self):
        self.epoch, self.seq, self.held = self.epoch + 1, 0, set()

    def parts(self, pages_a_part=3):
        paths = sorted(self.held)
        chunks = [paths[i : i + pages_a_part] for i in range(0, len(paths), pages_a_part)] or [[]]
        return [
            ResyncReply(
                worker_id=self.worker, epoch=self.epoch, seq=self.seq, part=i, parts=len(chunks), hashes=path_chain(c)
            )
            for i, c in enumerate(chunks)
        ]


def path_chain(paths):
    return b"".join((hash(path) % 2**64).to_bytes(8, "big") for path in paths)


def prompt_of(path):
    return path_chain([path[: n + 1] for n in range(len(path))])


def truth(engines, path):
    found = {}
    for engine in engines:
        held = 0
        while held < len(path) and path[: held + 1] in engine.held:
            held += 1
        if held:
            found[engine.worker] = held
    return found


PATHS = st.lists(st.integers(0, 2), min_size=1, max_size=9).map(tuple)
ACTIONS = st.one_of(
    st.tuples(st.just("store"), st.integers(0, 2), PATHS),
    st.tuples(st.just("evict"), st.integers(0, 2), st.integers(1, 4)),
    st.tuples(st.just("restart"), st.integers(0, 2), st.none()),
    st.tuples(st.just("drop"), st.integers(0, 2), st.none()),
    st.tuples(st.just("snapshot"), st.integers(0, 2), st.none()),
)


class World:
    """Three engines, a network that loses, doubles and delays, and the index that listens."""

    def __init__(self, rng):
        self.rng = rng
        self.engines = [Engine(WorkerId(f"w{n}"), rng) for n in range(3)]
        self.index = ResidencyIndex()
        self.late: list[ResyncReply] = []

    def act(self, action, engine, argument):
        if action == "restart":
            engine.restart()
        elif action == "drop":
            self.index.drop_worker(engine.worker)
        elif action == "snapshot":
            self.late += engine.parts()
        else:
            self.send(engine.store(argument) if action == "store" else engine.evict(argument))
        self.rng.shuffle(self.late)
        for part in self.late[:2]:
            self.index.apply_snapshot(part)
        del self.late[: self.rng.randrange(3)]

    def send(self, delta):
        copies = self.rng.choice((0, 1, 1, 1, 1, 2))
        for _ in range(copies):
            self.index.apply(delta)

    def mend(self):
        """The network is well again: two beats, and the snapshots asked for."""
        for engine in self.engines:
            for _ in range(2):
                self.index.expect(engine.worker, engine.epoch, engine.seq)
            if self.index.stale(engine.worker):
                parts = engine.parts()
                self.rng.shuffle(parts)
                for part in parts:
                    self.index.apply_snapshot(part)
            assert not self.index.stale(engine.worker)


@settings(max_examples=200, deadline=None)
@given(st.lists(ACTIONS, max_size=40), st.randoms(use_true_random=False), PATHS)
def test_equals_brute_force_through_losses_and_snapshots(actions, rng, path):
    world = World(rng)
    for action, which, argument in actions:
        world.act(action, world.engines[which], argument)
        world.index.check()
    world.mend()
    world.index.check()
    expected = truth(world.engines, path)
    assert world.index.match(prompt_of(path)) == expected
    for engine in world.engines:
        assert world.index.resident_pages(engine.worker, prompt_of(path)) == expected.get(engine.worker, 0)


@pytest.mark.parametrize("length", [1, 2, 3, 63, 64, 65, 1600])
def test_long_chains_with_a_different_depth_on_each_worker(length):
    rng = random.Random(length)
    index = ResidencyIndex()
    prompt = chain(*range(length))
    depths = {WorkerId(f"w{n}"): rng.randint(0, length) for n in range(70)}
    for worker, depth in depths.items():
        index.apply(stored(worker, 1, *range(depth)))
    assert index.match(prompt) == {worker: depth for worker, depth in depths.items() if depth}
    assert all(index.resident_pages(worker, prompt) == depth for worker, depth in depths.items())
    index.check()
