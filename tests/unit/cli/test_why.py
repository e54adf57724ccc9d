"""`saga why`: two leaders' stories as one, in sentences; and clear words where nothing is known."""

import pytest
from rich.console import Console

from saga.cli.operating import UsageError
from saga.cli.why import Why, asked, show, unknown
from saga.cli.why_story import StepStory, steps_of, story_of, story_of_end, workflow_of
from saga.cli.why_text import cache_lines, sentence, waiting, weighed_table
from saga.contract.ids import RootId, StepId, WorkerId
from saga.contract.messages import KvTold, StepFinished, WhyAsk, WhyTold
from saga.contract.misses import Loss
from saga.contract.why_messages import Cached, Moment, StepTold, Weighed, WorkflowTold

STEP = "ab" * 16
KV = {
    "limit": "kv", "needs_tokens": 12_000, "active_workflows": 7, "active_tokens": 95_000, "kv_tokens": 100_000,
    "own_before": 3, "tenants_before": 2, "first": "red/a, blue/b",
}  # fmt: skip


def told(*moments: Moment, heard_s: float = 9.0, **fields) -> StepTold:
    given = {"root": "t/w", "session": "t/s", "tenant": "t", "pool": "m", "prompt_tokens": 12_345, "over": True}
    return StepTold(step_id=StepId(STEP), moments=moments, heard_s=heard_s, **(given | fields))


def at(what: str, at_s: float, worker: str = "", **facts) -> Moment:
    return Moment(what=what, at_s=at_s, worker=WorkerId(worker), facts=facts)


def admission() -> StepTold:
    admitted = at("admitted", 4.2, "w1", waited="inactive", joined_before=7, last_of_them="red/a", bound=1)
    return told(at("ready", 0.0, gap_s=3.5), at("waits", 0.001, **KV), admitted)


def placement(**fields) -> StepTold:
    granted = at("granted", 1.0, "w1", reason="home", expected_tokens=11_264, cost_s=0.5)
    return told(
        at("admitted", 0.0, "w1"), at("waits", 0.0, "w1", cause="home", others_wait=2, running=8, leased_tokens=90,
        kv_tokens=100), granted, at("taken", 1.1, "w1"), heard_s=4.8, **fields,
    )  # fmt: skip


def lines_of(story: StepStory) -> list[tuple[str, float, str]]:
    return [(line.by, line.at_s, line.what) for line in story.lines]


def test_placements_clock_starts_where_admission_let_the_step_go_on():
    assert lines_of(story_of(admission(), placement(), None)) == [
        ("admission", 0.0, "ready"),
        ("admission", 0.001, "waits"),
        ("admission", 4.2, "admitted"),
        ("placement", 4.2, "waits"),
        ("placement", 5.2, "granted"),
        ("placement", 5.3, "taken"),
    ]


def test_either_leader_alone_tells_what_it_knows():
    assert story_of(admission(), None, None).told_by == ("admission",)
    alone = story_of(None, placement(), None)
    assert alone.told_by == ("placement",)
    assert lines_of(alone)[0] == ("placement", 0.0, "admitted")


def test_steps_of_a_workflow_come_oldest_first_whoever_tells_them():
    older = told(at("ready", 0.0), heard_s=100.0)
    newer = StepTold(**{**_fields(older), "step_id": StepId("cd" * 16), "heard_s": 50.0})
    answers = [_answer("placement", newer), _answer("admission", older, newer)]

    assert list(steps_of(answers)) == [older.step_id, newer.step_id]
    assert steps_of(answers)[newer.step_id] == (newer, newer)
    assert steps_of(answers)[older.step_id] == (older, None)


def _fields(step: StepTold) -> dict[str, object]:
    return {name: getattr(step, name) for name in step.__struct_fields__}


def _answer(service, *steps: StepTold, **fields) -> WhyTold:
    return WhyTold(service=service, fence=3, leading_s=60.0, remembered=2, oldest_s=50.0, steps=steps, **fields)


def test_a_wait_for_kv_says_how_much_there_is_who_holds_it_and_who_comes_before():
    said = waiting(KV)

    for part in ("7 active workflows need 95,000 of 100,000", "this one 12,000", "3 of its tenant's", "2 tenants",
                 "first red/a, blue/b"):  # fmt: skip
        assert part in said
    assert "it is next in line" in waiting(KV | {"own_before": 0, "tenants_before": 0, "first": ""})
    assert waiting({"limit": "quota", "quota": "running_steps=1", "tenant": "t"}) == (
        "tenant t is at its quota running_steps=1"
    )
    assert "no worker serves" in waiting({"limit": "no_worker"})
    assert "a new leader" in waiting({"limit": "takeover"})


def test_every_line_is_a_sentence_about_what_it_is():
    said = {line.what: sentence(line) for line in story_of(admission(), placement(), None).lines}

    assert said["ready"] == "a gateway asks admission; the session's last step had ended 3.5 s before"
    assert "its workflow was not active" in said["admitted"]
    assert "7 workflows joined before it, last red/a" in said["admitted"]
    assert "bound to w1" in said["admitted"]
    assert "no slot was free at home for w1: 2 other steps wait, 8 run there with 90 of 100" in said["waits"]
    assert "w1: its session is at home there; 11,264 prompt tokens should be cached" in said["granted"]


@pytest.mark.parametrize(
    ("moment", "part"),
    [
        (
            at("granted", 0, "w2", reason="stolen", expected_tokens=0, moved_from="w1", left_tokens=512),
            "from w1, where 512",
        ),
        (at("granted", 0, "w2", reason="home", expected_tokens=0, new_session=1), "admission bound its workflow there"),
        (at("granted", 0, "w2", reason="tomorrow", expected_tokens=0), "w2: tomorrow;"),
        (at("returned", 0, "w2", reason="engine_died"), "the lease on w2 back: engine_died"),
        (at("lease_expired", 0, "w2"), "nobody renewed its lease on w2"),
        (at("claimed", 0, "w2"), "a new leader hears that it runs on w2"),
        (at("client_left", 0, "w2", output_tokens=1_000), "after 1,000 tokens of output"),
    ],
)  # fmt: skip
def test_what_seldom_happens_has_its_sentence_too(moment, part):
    (line,) = story_of(None, told(moment), None).lines

    assert part in sentence(line)


def cached(**fields) -> Cached:
    return Cached(prompt_tokens=12_345, expected_tokens=11_264, cached_tokens=8_000, gap_s=3.5, **fields)


@pytest.mark.parametrize(
    ("let_go", "cause"),
    [("expired", "expired"), ("paused", "evicted"), ("superseded", "superseded"), ("", "evicted"), ("moved", "moved")],
)
def test_the_worker_that_had_the_kv_is_believed_about_its_end(let_go, cause):
    step = placement(cached=cached(loss=Loss(WorkerId("w1"), 3_264)), tagged=True)
    kv = KvTold(worker_id=WorkerId("w1"), let_go=let_go, known_s=1_000.0)

    story = story_of(None, step, kv)

    assert story.missed_tokens == {cause: 3_264}
    first, second = cache_lines(story)
    assert first == "cached: 8,000 of 12,345 prompt tokens; expected when it was placed: 11,264"
    assert second.startswith(f"  missed 3,264: {cause} (w1")


def test_where_the_worker_does_not_answer_nobody_knows():
    story = story_of(None, placement(cached=cached(loss=Loss(WorkerId("w1"), 3_264))), None)

    assert story.missed_tokens == {"unknown": 3_264}
    assert cache_lines(story)[1].endswith("nobody knows")


def test_causes_that_the_leader_knows_need_no_worker():
    story = story_of(None, placement(cached=cached(missed_tokens={"prefix_changed": 64, "moved": 4_000})), None)

    assert [line.split(":")[0] for line in cache_lines(story)[1:]] == ["  missed 4,000", "  missed 64"]


def test_workers_that_were_weighed_and_those_barred_are_in_one_table():
    weighed = (
        Weighed(worker="w1", chosen=True, terms={"queued_engine_s": 0.25, "kv_tokens": 100_000}),
        Weighed(worker="w2", terms={"queued_engine_s": 1.5}),
        Weighed(worker="w3", barred="quarantined: flaps"),
    )
    console = Console(width=120)
    with console.capture() as capture:
        console.print(weighed_table(weighed))
    shown = capture.get()

    for part in ("chosen", "queued engine s", "100,000", "0.25", "quarantined: flaps"):
        assert part in shown
    assert weighed_table((Weighed(worker="w1", chosen=True, terms={"reason": "home"}),)) is None, "there was no choice"


def test_a_choice_of_admissions_is_shown_where_placement_had_none():
    bound = (
        Weighed(worker="w1", chosen=True, terms={"needs_tokens": 5}),
        Weighed(worker="w2", terms={"needs_tokens": 9}),
    )
    given = admission()
    ours = StepTold(**{**_fields(given), "weighed": bound})
    theirs = placement(weighed=(Weighed(worker="w1", chosen=True, terms={"reason": "home"}),))

    assert story_of(ours, theirs, None).weighed == bound


def test_an_end_in_the_stream_is_told_as_what_it_is():
    finished = StepFinished(
        step_id=StepId(STEP), attempt=0, lease_id="l", worker_id=WorkerId("w1"), gateway_id="g", tenant="t", root="t/w",
        session="t/s", pool="m", prompt_tokens=1_000, output_tokens=9, cached_tokens=64, finish_reason="stop",
        waited_s=0.003, first_token_s=0.1, engine_s=2.0,
    )  # fmt: skip
    story = story_of_end(finished)
    console = Console(width=160)
    with console.capture() as capture:
        show(Why(steps=(story,), workflow=None, more=False), WhyAsk(step_id=StepId(STEP)), console, json=False)

    assert "on w1: stop after 9 tokens; 3.0 ms to the engine" in capture.get()
    assert "no leader remembers it any more" in capture.get()


def test_a_workflow_is_shown_with_its_turns():
    workflow = WorkflowTold(
        state="queued", submitted_s=30.0, sessions=2, live_steps=1, needs_tokens=9_000, bound=WorkerId(""),
        moments=(at("joined", 0.0, needs_tokens=8_000), at("left", 12.5)),
    )  # fmt: skip
    answer = _answer("admission", workflow=workflow)
    console = Console(width=160)
    with console.capture() as capture:
        ask = WhyAsk(root=RootId("t/w"))
        show(Why(steps=(), workflow=workflow_of([answer]), more=True), ask, console, json=False)

    shown = capture.get()
    assert "workflow t/w: queued, submitted 30.0 s ago, 2 sessions, 1 live steps, needs 9,000 KV tokens" in shown
    assert "0.000 joined the active set, needing 8,000 KV tokens" in shown
    assert "12.500 left the active set" in shown


def test_nothing_known_says_how_far_each_leader_goes_back():
    said = unknown(WhyAsk(step_id=StepId(STEP)), [_answer("admission"), _answer("placement")])

    assert f"nothing is known of step {STEP}" in said
    assert "admission has led for 60 s and remembers 2 steps, the oldest from 50 s ago" in said


@pytest.mark.parametrize(
    ("step", "workflow", "told"),
    [
        ("", "", "name a STEP"),
        (STEP, "t/w", "name a STEP"),
        (STEP[:-1], "", "is no step id: 32 hexadecimal digits"),
        (STEP.upper(), "", "is no step id"),
        ("x" * 10_000, "", "x" * 64),
        ("", "w", "TENANT/ID"),
        ("", "t/" + "w" * 200, "at most 128 characters"),
    ],
)
def test_what_is_no_question_is_refused(step, workflow, told):
    with pytest.raises(UsageError, match=told):
        asked(step, workflow)
