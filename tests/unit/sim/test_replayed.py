"""`saga replay`: the same answers, or the first that differs."""

from pathlib import Path

import pytest

from saga.admission.making import Making, make_core
from saga.cli.main import main
from saga.contract.ids import PoolId, WorkerId
from saga.contract.messages import WorkerHello
from saga.kernel.effects import Promoted, Received, Tick
from saga.kernel.record import header_frame
from saga.runtime.recording import Recording
from saga.sim.replayed import replay

MAKING = Making(
    cell="main", policy="saga", wall_offset_s=1.0, max_waiting_steps=10, max_wait_s=60.0, weights={"a": 2.0}
)


def record(path: Path, *, changed_at: int = 0) -> None:
    """A short life of an admission core; at event `changed_at` the recording says something else than it said."""
    core = make_core(MAKING)
    count = 0

    def handle(event, now_s):
        nonlocal count
        count += 1
        return core.handle(event, now_s)[count == changed_at :]

    recording = Recording(path, header_frame("admission", "a0", MAKING))
    listened = recording.around(handle)
    hello = WorkerHello(
        worker_id=WorkerId("w0"), pool=PoolId("m"), epoch=1, engine_url="http://e", page_tokens=16, kv_tokens=1_000,
        context_tokens=100, max_running=4, session_tags=True,
    )  # fmt: skip
    for number, event in enumerate((Tick(), Promoted(1), Received(hello), Tick(), Tick())):
        listened(event, 5.0 + number / 3)
    recording.close()


def test_a_recording_is_answered_alike(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    record(tmp_path / "r")

    assert main(["replay", str(tmp_path / "r")]) == 0

    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("#1 5.000000 Tick -> WakeAt(at_s=")
    assert lines[1].startswith("#2 5.333333 Promoted(fence=1) -> Publish LeaderHello(service=admission, fence=1), Log")
    assert lines[2] == "#3 5.666667 Received WorkerHello(worker_id=w0) -> nothing"
    assert lines[-1].startswith("admission a0: 5 events in 1.3 s, ")
    assert lines[-1].endswith(" effects: the same")


def test_the_first_difference_is_shown_with_both_answers(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    record(tmp_path / "r", changed_at=2)

    assert main(["replay", "--quiet", str(tmp_path / "r")]) == 1

    out = capsys.readouterr().out
    assert "event #2 is answered otherwise" in out
    assert "effect 1 then (of 1): Log" in out
    assert "effect 1 now (of 2): Publish" in out
    difference = replay(tmp_path / "r").difference
    assert difference is not None
    assert difference.then.event == Promoted(1)


def test_a_killed_process_leaves_all_but_its_last_part(tmp_path: Path):
    recording = Recording(tmp_path / "r", header_frame("admission", "a0", MAKING))
    handle = recording.around(make_core(MAKING).handle)
    for second in range(6):  # a part each
        handle(Tick(), 100.0 + 2 * second)
    recording.close()
    whole = (tmp_path / "r").read_bytes()

    first_part_bytes = whole.index(b"\x1f\x8b", 2)
    found = []
    for length in range(first_part_bytes, len(whole) + 1):
        (tmp_path / "cut").write_bytes(whole[:length])
        verdict = replay(tmp_path / "cut")
        assert verdict.difference is None
        found.append(verdict.events)
    assert found == sorted(found)
    assert (found[0], found[-1]) == (1, 6)


def test_what_cannot_be_read_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    (tmp_path / "text").write_text("no recording")
    Recording(tmp_path / "engine", header_frame("engine", "e0", MAKING)).close()
    Recording(tmp_path / "other", header_frame("graph", "g0", MAKING)).close()

    for name, why in (("text", "gzip"), ("engine", "no service of ours"), ("other", "cannot be made"), ("gone", "No")):
        assert main(["replay", str(tmp_path / name)]) == 2
        assert why in capsys.readouterr().err
