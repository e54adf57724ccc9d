"""What holds of trust whatever happens: honest workers are believed, and somebody always serves."""

from collections import OrderedDict
from random import Random

from hypothesis import given, settings
from hypothesis import strategies as st
from trust_story import PAGE, Cell, pages

from saga.contract.messages import Grant, PagesRemoved, PagesStored
from saga.kernel.effects import Tick


class HonestCache:
    """A worker that evicts the oldest prefixes, and whose word of it is late by some steps."""

    def __init__(self, cell: Cell, worker_id: str, rooms: int) -> None:
        self.cell, self.worker_id, self.rooms = cell, worker_id, rooms
        self.held: OrderedDict[bytes, None] = OrderedDict()
        self.unsaid: list[object] = []

    def run(self, chain: bytes) -> int:
        """Tokens that were cached."""
        cached = len(chain) // 8 * PAGE if chain in self.held else 0
        self.held[chain] = None
        self.held.move_to_end(chain)
        self.unsaid.append(PagesStored(chain))
        while len(self.held) > self.rooms:
            oldest, _ = self.held.popitem(last=False)
            self.unsaid.append(PagesRemoved(oldest))
        return cached

    def speak(self) -> None:
        if self.unsaid:
            self.cell.says(self.worker_id, *self.unsaid)
            self.unsaid = []


@settings(max_examples=10, deadline=None)
@given(seed=st.integers(0, 10**6), rooms=st.integers(1, 4), late=st.floats(0.0, 0.25))
def test_an_honest_worker_on_noisy_data_is_never_put_aside(seed, rooms, late):
    """It evicts nearly all that it promised before the step runs, the other one nothing; and some of its words come
    after the step has ended."""
    rng = Random(seed)
    cell = Cell(workers=2)
    caches = {"w0": HonestCache(cell, "w0", rooms), "w1": HonestCache(cell, "w1", 12)}
    in_vain = 0
    for number in range(30):
        running: list[tuple[Grant, bytes]] = []
        for place, cache in enumerate(caches.values()):  # each has prompts of its own, and says so
            chains = [pages(100 * number + 10 * place + session, 6) for session in range(rooms)]
            for chain in chains:
                cache.run(chain)
            cache.speak()
            running += [(cell.start(f"s{number}-{place}-{i}", chain), chain) for i, chain in enumerate(chains)]
        for storm in range(2 * rooms):  # others come in between, of whom placement has not heard
            caches["w0"].run(pages(100 * number + 50 + storm, 2))
        for grant, chain in running:
            cached_tokens = caches[grant.worker_id].run(chain)
            in_vain += grant.cached_tokens > 0 and cached_tokens == 0
            for cache in caches.values():
                if rng.random() >= late:
                    cache.speak()
            cell.end(grant, cached_tokens)
        cell.now_s += 1.0
        cell.tell(Tick())
        cell.beat("w0")
        cell.beat("w1")
        assert {cell.standing("w0")[0], cell.standing("w1")[0]} == {"serving"}
    assert in_vain >= 20, "else nothing was noisy"


@settings(max_examples=25, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 2), st.sampled_from(["lie", "die", "live", "wait"])), max_size=60))
def test_the_cell_is_never_left_without_a_worker(what):
    cell = Cell(workers=3)
    alive = dict.fromkeys(range(3), True)
    for number, act in what:
        worker_id = f"w{number}"
        if act == "lie" and alive[number]:
            for _ in range(20):
                chain = pages(5_000 + cell.number, 50)
                cell.says(worker_id, PagesStored(chain))
                grant = cell.start(f"s{cell.number}", chain)
                cell.end(grant, 0 if grant.worker_id == worker_id else 784)
        elif act in ("die", "live"):
            if sum(alive.values()) == 1 and act == "die":
                continue
            alive[number] = act == "live"
            cell.beat(worker_id, healthy=alive[number])
        else:
            cell.now_s += 7.0
            for other, lives in alive.items():
                cell.beat(f"w{other}", healthy=lives)
        cell.tell(Tick())
        workers = cell.core.board.workers.values()
        assert any(worker.usable(cell.now_s) for worker in workers), f"after {act} {worker_id}"
