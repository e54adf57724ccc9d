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


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 10**6), rooms=st.integers(1, 12), late=st.floats(0.0, 0.25))
def test_an_honest_worker_on_noisy_data_is_never_put_aside(seed, rooms, late):
    """However little KV it has, however many sessions thrash it, and though a quarter of its words come late."""
    rng = Random(seed)
    cell = Cell(workers=2)
    caches = {worker_id: HonestCache(cell, worker_id, rooms) for worker_id in ("w0", "w1")}
    running: list[Grant] = []
    for _ in range(300):
        session = rng.randrange(20)
        chain = pages(session, 5 + session)
        busy = {grant.session for grant in running}
        if f"s{session}" not in busy and len(running) < 8:
            running.append(cell.start(f"s{session}", chain))
        if running and rng.random() < 0.6:
            grant = running.pop(rng.randrange(len(running)))
            number = int(grant.session.removeprefix("s"))
            cell.end(grant, caches[grant.worker_id].run(pages(number, 5 + number)))
        for cache in caches.values():
            if rng.random() >= late:
                cache.speak()
        cell.now_s += 0.05
        if rng.random() < 0.1:
            cell.tell(Tick())
            cell.beat("w0")
            cell.beat("w1")
        assert {cell.standing("w0")[0], cell.standing("w1")[0]} == {"serving"}


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
