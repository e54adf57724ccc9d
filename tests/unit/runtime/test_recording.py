"""What a core is told and answers, on disk and back."""

import gzip
from pathlib import Path

import msgspec
import pytest

from saga.contract.messages import LeaderHello
from saga.kernel.effects import Log, Persist, Promoted, Publish, Received, Tick, WakeAt
from saga.kernel.record import (
    Events,
    RecordError,
    encode_effects,
    header_frame,
    read_entry,
    read_frames,
    read_header,
    same_effects,
)
from saga.runtime.errors import StartError
from saga.runtime.recording import Recording, recorded

EVENTS = Events((Received, Tick, Promoted))
HELLO = LeaderHello(service="admission", fence=7)
EFFECTS = [Publish("a.subject", HELLO), WakeAt(1.25), Persist("key", b"\x00\xff"), Log("said", {"n": 1, "x": 0.5})]


class Making(msgspec.Struct):
    """What the core is made from."""

    cell: str = "main"


def answering(event: object, now_s: float) -> list[object]:
    """A core's door: it wakes up later, and says more to messages."""
    return [*EFFECTS, WakeAt(now_s + 1)] if isinstance(event, Received) else [WakeAt(now_s)]


def make(path: Path, **settings: int) -> Recording:
    return Recording(path, header_frame("admission", "a0", Making()), **settings)


def frames_of(path: Path) -> list[bytes]:
    with gzip.open(path) as file:
        return list(read_frames(file))


def test_what_comes_back_is_what_was_told_and_answered(tmp_path: Path):
    recording = make(tmp_path / "r")
    handle = recording.around(answering)

    assert handle(Promoted(3), 10.1) == [WakeAt(10.1)]
    handle(Received(HELLO), 10.2)
    handle(Tick(), 1e9 + 1 / 3)
    recording.close()

    header, *entries = frames_of(tmp_path / "r")
    assert read_header(header).service == "admission"
    assert msgspec.msgpack.decode(read_header(header).making) == {"cell": "main"}
    read = [read_entry(entry) for entry in entries]
    assert [EVENTS.of(entry) for entry in read] == [Promoted(3), Received(HELLO), Tick()]
    assert [entry.now_s for entry in read] == [10.1, 10.2, 1e9 + 1 / 3]
    assert bytes(read[1].effects) == encode_effects([*EFFECTS, WakeAt(11.2)])


def test_a_disk_that_is_too_slow_ends_the_recording_and_nothing_else(tmp_path: Path):
    recording = make(tmp_path / "r", max_pending_bytes=-1)  # whatever is written is too late
    handle = recording.around(answering)

    answers = [handle(Tick(), 2.0 * second) for second in range(1, 50)]
    recording.close()

    assert answers == [[WakeAt(2.0 * second)] for second in range(1, 50)]
    assert len(frames_of(tmp_path / "r")) == 2, "the header, and what came before it was seen"


def test_nothing_is_recorded_unless_asked(tmp_path: Path):
    assert recorded(None, "graph", "g", Making(), answering) is answering
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_cannot_be_stops_the_start(tmp_path: Path):
    (tmp_path / "file").write_text("")

    with pytest.raises(StartError, match="SAGA_RECORD="):
        recorded(tmp_path / "file", "graph", "g", Making(), answering)


def test_effects_are_compared_bit_by_bit_but_whole_numbers_may_be_floats():
    assert same_effects(encode_effects([WakeAt(1.0)]), encode_effects([WakeAt(1)]))
    assert not same_effects(encode_effects([WakeAt(0.3)]), encode_effects([WakeAt(0.1 + 0.2)]))
    assert not same_effects(encode_effects([WakeAt(1.0)]), encode_effects([]))


def test_what_is_no_recording_is_refused():
    with pytest.raises(RecordError, match="no recording"):
        read_header(b"\xc0")
    with pytest.raises(RecordError, match="format 2"):
        read_header(msgspec.msgpack.encode({"service": "graph", "name": "g", "making": {}, "format": 2}))
    entry = read_entry(msgspec.msgpack.encode([1.0, "Demoted", {}, []]))
    with pytest.raises(RecordError, match="unknown event Demoted; known are Promoted, Received, Tick"):
        EVENTS.of(entry)
