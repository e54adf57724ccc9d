"""Frames: what has changed, once; workers, tenants and totals."""

import random
import re
from pathlib import Path

import pytest
from console_story import POOL, Story, finished, forecast, grant, heartbeat, hello, ready
from spoken_cell import SpokenCell

import saga.console
from saga.console import wire
from saga.console.cluster import GONE_S
from saga.console.decisions import IN_A_FRAME
from saga.console.events import TenantsTold, Watched
from saga.contract.ids import TenantId, WorkerId
from saga.contract.messages import LeaderHello, WorkerLeaving, WorkerStands
from saga.contract.tenant_messages import TenantUse
from saga.kernel.effects import Received

PAGE = Path(saga.console.__file__).parent / "page"


@pytest.fixture
def story():
    return Story()


def test_a_frame_says_what_has_changed_and_the_next_one_does_not_repeat_it(story):
    story.say(ready(), heartbeat())

    first, second = story.frame(), story.frame()

    assert [row.root for row in first.workflows] == ["acme/fix"]
    assert [row.phase for row in first.steps] == ["waiting"]
    assert [row.id for row in first.workers] == ["w1"]
    assert (second.workflows, second.steps, second.workers) == ((), (), ())


def test_where_nothing_happens_there_is_a_frame_a_second(story):
    made = []
    for tick in range(50):
        story.now_s = tick / 5
        made.append(story.frame().totals is not None)

    assert sum(made) == 10


def test_nothing_is_gathered_while_nobody_looks(story):
    story.state.handle(Watched(by_anybody=False), 0.0)
    for number in range(50):
        story.run_step(f"s{number}", for_s=0.0)
    story.state.handle(Watched(by_anybody=True), story.now_s)

    assert story.frame().steps == ()
    assert len(story.state.whole(story.now_s).steps) == 32


def test_the_whole_and_the_frames_after_it_tell_the_same_as_a_whole_later():
    """As the page applies them: a row replaces the row of its thing."""
    cell = SpokenCell(workflows=30, workers=3, steps_per_s=10, slots=3, seed=4)
    story = Story()
    for _, message in cell.advance(20.0):
        story.say(message)
    story.now_s = 20.0
    whole = story.state.whole(20.0)
    story.state.handle(Watched(by_anybody=True), 20.0)
    flows = {row.number: row for row in whole.workflows}
    steps = {row.number: row for row in whole.steps}
    workers = {row.id: row for row in whole.workers}
    for _ in range(100):
        story.now_s += 0.2
        said = cell.advance(story.now_s)
        random.Random(1).shuffle(said)  # messages of several subjects overtake each other
        for _, message in said:
            story.say(message)
        frame = story.frame()
        flows |= {row.number: row for row in frame.workflows}
        for number in frame.workflows_gone:
            del flows[number]
        steps |= {row.number: row for row in frame.steps}
        workers |= {row.id: row for row in frame.workers}

    later = story.state.whole(story.now_s)
    assert {row.number: row for row in later.steps}.items() <= steps.items()
    assert workers == {row.id: row for row in later.workers}
    assert flows.keys() == {row.number for row in later.workflows}
    still = [row for row in later.workflows if row.back_s < 0]  # a median that has passed is not told again
    assert all(flows[row.number].kv == row.kv and flows[row.number].steps == row.steps for row in still)


def test_more_decisions_than_a_frame_holds_are_counted(story):
    for number in range(IN_A_FRAME + 5):
        root = f"acme/{number}"
        story.say(ready(f"s{number}", root), grant(f"s{number}", root, new_session=True, reason="cheapest_start"))

    frame = story.frame()

    assert len(frame.decisions) == IN_A_FRAME
    assert frame.decisions_left_out == 5
    assert frame.totals.grants == {"cheapest_start": IN_A_FRAME + 5}


def test_a_worker_that_falls_silent_is_down_and_later_gone(story):
    story.say(heartbeat())
    assert ("worker", "joined") in story.decisions()
    story.after(5.0)
    (row,) = story.state.whole(story.now_s).workers
    assert row.up is False
    assert ("worker", "silent") in story.decisions()
    story.frame()

    story.after(GONE_S)

    assert story.frame().workers_gone == ("w1",)


def test_an_engine_that_dies_and_a_new_leader_are_decisions(story):
    story.say(heartbeat(), WorkerLeaving(worker_id=WorkerId("w1"), epoch=1, engine_died=True))
    story.say(LeaderHello(service="placement", fence=2))

    assert story.decisions()[1:] == [("worker", "engine_died"), ("leader", "took_over")]
    assert story.state.whole(0.0).workers[0].up is False


def test_a_worker_that_placement_or_its_operator_keeps_out_says_so(story):
    story.say(heartbeat("w1"), heartbeat("w2", draining=True))
    story.say(WorkerStands(worker_id=WorkerId("w1"), epoch=1, standing="quarantined", reason="slow", fence=1))

    assert {row.id: row.standing for row in story.frame().workers} == {"w1": "quarantined", "w2": "draining"}
    told = story.state.whole(0.0).decisions[-1]
    assert (told.kind, told.name, told.reason, told.other) == ("worker", "w1", "quarantined", "slow")


def test_tenants_get_their_share_of_modelled_work_against_their_weight(story):
    story.say(hello())
    uses = (TenantUse(tenant=TenantId("acme"), weight=3.0), TenantUse(tenant=TenantId("zed"), weight=1.0))
    story.state.handle(TenantsTold(uses), 0.0)
    story.run_step("a", prompt=1000, cached=500, output=10)  # 0.5 + 0.1 s
    story.run_step("b", root="zed/x", prompt=200, cached=0, output=10)  # 0.2 + 0.1 s

    acme, zed = story.frame().tenants

    assert (acme.share, acme.entitled) == (0.6667, 0.75)
    assert (zed.share, zed.entitled) == (0.3333, 0.25)
    assert story.workflow().engine_s == 0.6


def test_who_wants_nothing_is_entitled_to_nothing(story):
    uses = (TenantUse(tenant=TenantId("acme")), TenantUse(tenant=TenantId("idle"), weight=9.0))
    story.state.handle(TenantsTold(uses), 0.0)
    story.run_step()

    rows = {row.name: row.entitled for row in story.frame().tenants}

    assert rows == {"acme": 1.0, "idle": 0.0}


@pytest.mark.parametrize(
    ("deadline_s", "counts"), [(1000.0, (1, 0, 0)), (20.0, (0, 1, 0)), (1.0, (0, 0, 1)), (0.0, (0, 0, 0))]
)
def test_a_deadline_is_kept_at_risk_or_missed(story, deadline_s, counts):
    story.say(ready(deadline_s=deadline_s), grant())
    story.after(2.0, finished(), forecast(remaining_s=40.0))

    (row,) = story.frame().tenants

    assert (row.on_time, row.at_risk, row.late) == counts


def test_totals_tell_rates_the_cache_and_contexts(story):
    story.say(heartbeat())
    for number in range(40):
        story.run_step(f"s{number}", for_s=0.5, prompt=1000, cached=750, output=20)

    totals = story.frame().totals

    assert totals.steps_per_s == pytest.approx(2.0, abs=0.2)
    assert totals.output_tokens_per_s == pytest.approx(40.0, abs=4)
    assert totals.cached_share == 0.75
    assert (totals.kv_tokens, totals.context_tokens) == (10_000, 1_020)
    assert (totals.workers, totals.gap) == (1, 1)


def test_rates_are_forgotten_after_their_window(story):
    story.run_step()
    story.after(70.0)

    totals = story.frame().totals

    assert (totals.steps_per_s, totals.cached_share, totals.grants) == (0.0, -1.0, {})


def test_a_long_run_of_a_busy_cell_keeps_the_books_right_and_small():
    cell = SpokenCell(workflows=120, workers=4, steps_per_s=40, slots=6, seed=2)
    story = Story(max_workflows=80)
    for second in range(120):
        story.now_s = float(second)
        for _, message in cell.advance(story.now_s):
            story.state.handle(Received(message), story.now_s)
        story.after(0.0)
        story.frame()

    assert len(story.state.table.workflows) == 80
    assert story.state.totals.left_out > 0
    assert story.state.shares.costs.keys() == {"llama-3.1-8b"} != {POOL}


def test_the_page_names_the_fields_of_rows_as_the_server_does():
    said = (PAGE / "wire.js").read_text()
    for kind, row in {
        "workers": wire.WorkerRow,
        "workflows": wire.WorkflowRow,
        "steps": wire.StepRow,
        "decisions": wire.DecisionRow,
        "tenants": wire.TenantRow,
    }.items():
        names = re.search(rf"{kind}: \[(.*?)\]", said, re.DOTALL)[1]
        assert tuple(re.findall(r'"(\w+)"', names)) == row.__struct_fields__, kind


def test_the_page_asks_nothing_of_other_servers():
    for file in PAGE.iterdir():
        text = file.read_text().replace("http://www.w3.org/2000/svg", "")
        assert not re.search(r"https?://|//cdn|@import", text), file.name
