"""The chart of steps that started elsewhere: each is there, from the worker it left to the one that took it."""

from random import Random
from xml.etree import ElementTree as ET

import pytest
from msgspec.structs import replace

from saga.sim.detail import Moved, RunDetail
from saga.sim.figures import Report
from saga.sim.report.files import write_figures
from saga.sim.report.moves import MOST_STROKES, moves_timeline
from saga.sim.report.page import as_html


def with_moves(detail: RunDetail, count: int) -> RunDetail:
    """The run, with so many steps that went from the third worker to the first two, some of new sessions."""
    random = Random("moves")
    moves = [
        Moved(
            at_s=900.0 + 7.0 * number,
            session=f"agent-{number}",
            left="w2",
            worker=f"w{number % 2}",
            saved_s=random.uniform(2.0, 40.0),
            prefill_s=0.0 if number % 5 == 0 else random.uniform(0.2, 2.0),
            begins=number % 5 == 0,
        )
        for number in range(count)
    ]
    samples = [replace(sample, at_home=(0, 0, 9, 1)) for sample in detail.samples]
    return replace(detail, moves=tuple(moves), samples=tuple(samples))


@pytest.fixture(scope="module")
def drawn(details: list[RunDetail]) -> str:
    return moves_timeline("moves", with_moves(details[0], 20))


def test_every_step_has_a_stroke_with_where_when_and_what_for(drawn: str):
    tips = [node.text or "" for node in ET.fromstring(drawn).iter() if node.tag == "title"]

    assert sum(tip.startswith("agent-1: w2 to w1 at 907.0 s, ") for tip in tips) == 2, "in the lanes and below"
    assert any(tip.startswith("agent-5: w2 to w1") and tip.endswith("left nothing behind") for tip in tips)
    assert len(tips) == 40


def test_what_is_drawn_is_named(drawn: str):
    text = "".join(ET.fromstring(drawn).itertext())

    for said in ("20 steps started elsewhere", "w0", "w3", "running", "waiting for it", "prefill that it repeats"):
        assert said in text


def test_the_same_run_gives_the_same_bytes(drawn: str, details: list[RunDetail]):
    assert moves_timeline("moves", with_moves(details[0], 20)) == drawn


def test_of_very_many_the_first_are_drawn_and_the_title_says_so(details: list[RunDetail]):
    text = "".join(ET.fromstring(moves_timeline("moves", with_moves(details[0], MOST_STROKES + 30))).itertext())

    assert f"{MOST_STROKES + 30} steps started elsewhere, the first {MOST_STROKES} are drawn" in text


def test_the_page_and_the_figures_show_runs_with_moves_and_no_others(
    report: Report, details: list[RunDetail], tmp_path
):
    assert 'id="moves"' not in as_html(report, details)

    moved = [with_moves(details[0], 3), *details[1:]]

    assert as_html(report, moved).count("3 steps started elsewhere") == 1
    written = {path.name for path in write_figures(tmp_path, report, moved)}
    assert {name for name in written if name.startswith("moves")} == {"moves-swe-bench-on-small-saga.svg"}
