"""Workers whose outcome belies their word: put aside with a reason, tried again, and never the last one."""

from trust_story import Cell, pages

from saga.contract.messages import (
    LeaderHello,
    PagesStored,
    StepProgress,
    WorkerLeaving,
    WorkersAsk,
    WorkerStands,
    WorkersTold,
)
from saga.kernel.effects import Answer, Promoted, Received, Tick
from saga.placement.conduct import COMEBACKS, FALSE_BEATS, RIVAL_BEATS
from saga.placement.policy import SessionAffinity
from saga.placement.trust import PROBATION_KEPT, QUARANTINE_S


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


def test_and_at_once_when_the_newer_says_goodbye():
    cell = Cell(workers=2)
    cell.beat("w0", epoch=5, engine_url="http://new")
    cell.hear(WorkerLeaving(worker_id="w0", epoch=5, engine_died=False))
    assert not cell.core.board.workers["w0"].usable(cell.now_s)

    cell.beat("w0", epoch=1)

    assert cell.core.board.workers["w0"].usable(cell.now_s)
    assert cell.standing("w0")[0] == "serving"


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
