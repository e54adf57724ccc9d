"""Frames that are kept for pages that come back."""

import pytest

from saga.console.frames import KEPT, BadEventIdError, FrameLog
from saga.console.wire import Frame

BOOT = "0123abcd"


@pytest.fixture
def frames():
    log = FrameLog(BOOT)
    for number in range(10):
        log.add(Frame(now_s=float(number)))
    return log


def test_a_frame_is_one_event_with_its_id(frames):
    assert frames.after(9) == [b'id: 0123abcd-10\nevent: change\ndata: {"now_s":9.0}\n\n']


def test_a_page_that_comes_back_gets_what_it_missed(frames):
    assert len(frames.after(frames.number_of("0123abcd-7"))) == 3
    assert frames.after(10) == []


def test_who_was_away_for_too_long_has_to_be_told_everything(frames):
    for _ in range(KEPT):
        frames.add(Frame(now_s=0.0))

    assert frames.after(9) is None
    assert len(frames.after(10)) == KEPT


def test_so_has_who_saw_another_life_of_the_console_or_the_future(frames):
    assert frames.number_of("ffffffff-3") is None
    assert frames.after(11) is None


@pytest.mark.parametrize("event_id", ["", "7", "0123abcd", "0123ABCD-1", "0123abcd-x", "0123abcd--1", "x" * 5000])
def test_what_is_no_event_id_is_refused_with_what_one_looks_like(frames, event_id):
    with pytest.raises(BadEventIdError, match="8 hexadecimal digits") as refused:
        frames.number_of(event_id)
    assert len(str(refused.value)) < 200


def test_large_frames_are_kept_for_a_shorter_time(frames):
    for _ in range(6):
        frames.add(Frame(now_s=0.0, cell="x" * 3_000_000))

    assert frames.after(frames.number - 1) is not None
    assert frames.after(frames.number - 4) is None
