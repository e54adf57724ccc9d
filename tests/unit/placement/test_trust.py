"""Workers whose outcome belies their word: put aside with a reason, tried again, and never the last one."""

from collections import OrderedDict
from random import Random

from hypothesis import given, settings
from hypothesis import strategies as st
from placement_story import POOL, Story, admitted, hello

from saga.contract.ids import GatewayId, TenantId
from saga.contract.messages import (
    Grant,
    Heartbeat,
    LeaderHello,
    PagesRemoved,
    PagesStored,
    ResidencyDelta,
    StepFinished,
    StepProgress,
    WorkersAsk,
    WorkerStands,
    WorkersTold,
)
from saga.kernel.effects import Answer, Log, Promoted, Received, Tick
from saga.placement.conduct import COMEBACKS, FALSE_BEATS, RIVAL_BEATS
from saga.placement.policy import SessionAffinity
from saga.placement.trust import PROBATION_KEPT, QUARANTINE_S

PAGE = 16


def pages(session: int, count: int) -> bytes:
    return b"".join((session * 10_000 + number).to_bytes(8, "big") for number in range(1, count + 1))


class Cell(Story):
    """A story in which workers hold pages, say so, and may lie about it."""

    def __init__(self, *args, **fields) -> None:
        self.number = 0
        self.seqs: dict[str, int] = {}
        self.logs: list[Log] = []
        super().__init__(*args, max_running=8, kv_tokens=1_000_000, **fields)
        for worker_id in list(self.core.board.workers):
            self.beat(worker_id)

    def tell(self, event):
        effects = self.core.handle(event, self.now_s)
        self.core.check()
        self.logs += [effect for effect in effects if isinstance(effect, Log)]
        return [effect.message for effect in effects if hasattr(effect, "message")]

    def beat(self, worker_id: str, *, healthy: bool = True, running: int = 99, **fields) -> None:
        facts = {"max_running": 8, "kv_tokens": 1_000_000} | fields
        seq = self.seqs.get(worker_id, 0)
        self.hear(
            Heartbeat(
                worker=hello(worker_id, **facts), healthy=healthy, running=running, waiting=0, used_tokens=0,
                residency_seq=seq,
            )
        )  # fmt: skip

    def says(self, worker_id: str, *changes) -> None:
        self.seqs[worker_id] = self.seqs.get(worker_id, 0) + 1
        self.hear(ResidencyDelta(worker_id=worker_id, epoch=1, seq=self.seqs[worker_id], changes=changes))

    def start(self, session: str, chain: bytes) -> Grant:
        self.number += 1
        granted = [m for m in self.hear(self.step(session, chain)) if isinstance(m, Grant)]
        (grant,) = granted
        self.take(grant)
        return grant

    def step(self, session: str, chain: bytes):
        return admitted(self.number, session=session, new_hashes=chain, prompt=PAGE * (len(chain) // 8) + 5)

    def end(self, grant: Grant, cached_tokens: int) -> None:
        self.hear(
            StepFinished(
                step_id=grant.step_id, attempt=0, lease_id=grant.lease_id, worker_id=grant.worker_id,
                gateway_id=GatewayId("g0"), tenant=TenantId("t"), root=grant.root, session=grant.session, pool=POOL,
                prompt_tokens=1_000, output_tokens=5, cached_tokens=cached_tokens, finish_reason="tool_calls",
            )
        )  # fmt: skip

    def lies(self, worker_id: str, times: int) -> int:
        """It advertises prefixes of sessions which it has not, until it is put aside; how often."""
        for number in range(times):
            if self.standing(worker_id)[0] == "quarantined":
                return number
            chain = pages(1_000 + self.number, 400)
            self.says(worker_id, PagesStored(chain))
            grant = self.start(f"lured-{self.number}", chain)
            assert grant.worker_id == worker_id
            assert grant.cached_tokens > 0
            self.end(grant, 0)
        return times

    def standing(self, worker_id: str) -> tuple[str, str]:
        return self.core.trust.standing(worker_id)

    def pass_s(self, seconds: float) -> None:
        """Everybody beats meanwhile."""
        end_s = self.now_s + seconds
        while self.now_s < end_s:
            self.now_s = min(end_s, self.now_s + 1.0)
            for worker_id in list(self.core.board.workers):
                self.beat(worker_id)
            self.tell(Tick())


def test_a_worker_that_advertises_pages_it_has_not_is_put_aside():
    cell = Cell(workers=3)

    assert cell.lies("w0", 40) < 20

    assert cell.standing("w0") == ("quarantined", "pages_not_there")
    (told,) = [log for log in cell.logs if log.event == "placement.quarantined"]
    assert told.facts["worker"] == "w0"
    assert told.facts["expected_tokens"] > told.facts["cached_tokens"] == 0
    assert cell.start("next", pages(1, 50)).worker_id != "w0"


def test_what_runs_there_goes_on_and_its_sessions_go_elsewhere():
    cell = Cell(workers=2)
    chain = pages(7, 50)
    cell.says("w0", PagesStored(chain))
    before = cell.start("s", chain)
    assert before.worker_id == "w0"
    cell.lies("w0", 40)

    cell.end(before, 784)

    assert cell.start("s", chain).worker_id == "w1"


def test_it_is_released_when_it_is_honest_again_and_longer_put_aside_the_second_time():
    cell = Cell(workers=2)
    cell.lies("w0", 40)
    cell.pass_s(QUARANTINE_S - 1)
    assert cell.standing("w0")[0] == "quarantined"
    cell.pass_s(2)
    assert cell.standing("w0")[0] == "probation"

    for number in range(PROBATION_KEPT):
        chain = pages(2_000 + number, 50)
        cell.says("w0", PagesStored(chain))
        grant = cell.start(f"honest-{number}", chain)
        assert grant.worker_id == "w0"
        assert cell.start(f"meanwhile-{number}", chain).worker_id == "w1", "one step at a time"
        cell.end(grant, 784)
    assert cell.standing("w0") == ("serving", "")

    cell.lies("w0", 40)
    cell.pass_s(QUARANTINE_S + 2)
    assert cell.standing("w0")[0] == "quarantined"
    cell.pass_s(QUARANTINE_S)
    assert cell.standing("w0")[0] == "probation"


def test_one_that_lies_on_probation_goes_back_at_once():
    cell = Cell(workers=2)
    cell.lies("w0", 40)
    cell.pass_s(QUARANTINE_S + 1)

    assert cell.lies("w0", 40) == 3
    assert cell.standing("w0")[0] == "quarantined"


def test_where_all_break_their_promises_the_measure_is_at_fault_and_nobody_is_put_aside():
    cell = Cell(workers=3)
    for number in range(120):
        worker_id = f"w{number % 3}"
        chain = pages(1_000 + number, 50)
        cell.says(worker_id, PagesStored(chain))
        grant = cell.start(f"s{number}", chain)
        cell.end(grant, 0)

    assert {cell.standing(f"w{n}")[0] for n in range(3)} == {"serving"}


def test_the_last_worker_is_never_put_aside():
    cell = Cell(workers=1)

    assert cell.lies("w0", 60) == 60
    assert cell.standing("w0")[0] == "serving"


def test_and_one_put_aside_serves_again_when_nobody_else_is_left():
    cell = Cell(workers=2)
    cell.lies("w0", 40)

    cell.beat("w1", healthy=False)
    cell.tell(Tick())

    assert cell.standing("w0")[0] == "serving"
    assert cell.start("s", pages(1, 9)).worker_id == "w0"


def test_promises_are_not_judged_where_engines_queue():
    cell = Cell(SessionAffinity(), workers=2)
    for number in range(40):
        chain = pages(1_000 + number, 50)
        cell.says("w0", PagesStored(chain))
        grant = cell.start(f"s{number}", chain)
        cell.end(grant, 0)

    assert cell.standing("w0")[0] == "serving"


def test_a_worker_that_says_it_is_idle_while_steps_run_on_it_is_put_aside():
    cell = Cell(workers=2)
    grant = cell.start("s", pages(1, 9))

    def runs(seconds: int, running: int) -> None:
        for _ in range(seconds):
            cell.now_s += 1.0
            cell.hear(
                StepProgress(
                    step_id=grant.step_id, attempt=0, lease_id=grant.lease_id, worker_id=grant.worker_id,
                    output_tokens=1,
                )
            )  # fmt: skip
            for worker_id in ("w0", "w1"):
                cell.beat(worker_id, running=running if worker_id == grant.worker_id else 0)
            cell.tell(Tick())

    runs(60, 1)
    assert cell.standing(grant.worker_id)[0] == "serving"
    runs(FALSE_BEATS, 0)
    assert cell.standing(grant.worker_id) == ("quarantined", "false_load")
    cell.now_s += 1.0


def test_a_worker_that_flaps_is_put_aside_and_one_that_restarts_once_is_not():
    cell = Cell(workers=2)
    cell.beat("w0", epoch=2)
    cell.tell(Tick())
    assert cell.standing("w0")[0] == "serving"

    for _ in range(COMEBACKS):
        cell.now_s += 1.0
        cell.beat("w0", epoch=2, healthy=False)
        cell.beat("w1")
        cell.beat("w0", epoch=2)
        cell.tell(Tick())

    assert cell.standing("w0") == ("quarantined", "flaps")


def test_two_workers_with_one_id_are_put_aside_until_one_is_silent():
    cell = Cell(workers=2)

    def seconds(count: int, *epochs: int) -> None:
        for _ in range(count):
            cell.now_s += 1.0
            cell.beat("w1")
            for epoch in epochs:
                cell.beat("w0", epoch=epoch, engine_url=f"http://engine-{epoch}")
            cell.tell(Tick())

    seconds(RIVAL_BEATS + 1, 2, 1)
    assert cell.standing("w0") == ("quarantined", "two_workers")
    (told,) = [log for log in cell.logs if log.event == "placement.quarantined"]
    assert {told.facts["engine"], told.facts["other_engine"]} == {"http://engine-2", "http://engine-1"}

    seconds(int(QUARANTINE_S) + 10, 2, 1)
    assert cell.standing("w0")[0] == "quarantined", "both still beat"
    seconds(6, 2)
    assert cell.standing("w0")[0] == "probation"


def test_a_predecessors_last_words_are_not_a_second_worker():
    cell = Cell(workers=2)
    cell.beat("w0", epoch=2)
    cell.beat("w0", epoch=1)
    cell.beat("w0", epoch=1)
    for _ in range(20):
        cell.now_s += 1.0
        cell.beat("w0", epoch=2)
        cell.tell(Tick())

    assert cell.standing("w0")[0] == "serving"


def test_the_older_one_is_believed_once_the_newer_is_silent():
    cell = Cell(workers=2)
    cell.beat("w0", epoch=5, engine_url="http://new")
    for _ in range(6):
        cell.now_s += 1.0
        cell.beat("w1")
        cell.tell(Tick())
    cell.beat("w0", epoch=4, engine_url="http://old")

    assert cell.core.board.workers["w0"].hello.engine_url == "http://old"
    assert cell.core.board.workers["w0"].usable(cell.now_s)


def test_a_standby_goes_on_where_its_leader_stopped_and_tells_a_new_admission():
    cell = Cell(workers=2, leading=False)
    cell.hear(WorkerStands(worker_id="w0", epoch=1, standing="quarantined", reason="flaps", fence=7))
    assert cell.standing("w0") == ("quarantined", "flaps")

    told = [m for m in cell.tell(Promoted(8)) if isinstance(m, WorkerStands)]

    assert [(m.worker_id, m.standing, m.fence) for m in told] == [("w0", "quarantined", 8)]
    again = [m for m in cell.hear(LeaderHello(service="admission", fence=1)) if isinstance(m, WorkerStands)]
    assert again == told
    assert cell.start("s", pages(1, 9)).worker_id == "w1"


def test_how_workers_stand_can_be_asked():
    cell = Cell(workers=3)
    cell.lies("w0", 40)
    grant = cell.start("s", pages(1, 9))
    cell.beat("w1", healthy=False)

    (answer,) = [e.message for e in cell.core.handle(Received(WorkersAsk()), cell.now_s) if isinstance(e, Answer)]

    assert isinstance(answer, WorkersTold)
    found = {one.worker: one for one in answer.workers}
    assert (found["w0"].standing, found["w0"].reason) == ("quarantined", "pages_not_there")
    assert found["w1"].standing == "away"
    assert sum(one.leases for one in found.values()) == 1
    assert found[grant.worker_id].homed_sessions >= 1


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
