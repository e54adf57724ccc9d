"""`saga trace export`: what a live cell was asked for, as a trace."""

from pathlib import Path

import pytest

from saga.admission.making import Making, make_core
from saga.cli.main import main
from saga.contract.ids import GatewayId, LeaseId, PoolId, RootId, SessionId, StepId, TenantId, WorkerId
from saga.contract.messages import StepFinished, StepReady, WorkerHello
from saga.kernel.effects import Promoted, Received
from saga.kernel.record import header_frame
from saga.load.traces.files import read_sessions
from saga.runtime.recording import Recording

PAGE = 16
MAKING = Making(cell="main", policy="saga", wall_offset_s=0.0, max_waiting_steps=10, max_wait_s=60.0, weights={})


def pages(*numbers: int) -> bytes:
    return b"".join(number.to_bytes(8, "big") for number in numbers)


class Life:
    """A leading admission that hears of steps, and writes down that it did."""

    def __init__(self, path: Path) -> None:
        self._recording = Recording(path, header_frame("admission", "a0", MAKING))
        self._handle = self._recording.around(make_core(MAKING).handle)
        self.now_s = 1_000.0
        self._handle(Promoted(1), self.now_s)
        self._hear(
            WorkerHello(
                worker_id=WorkerId("w0"),
                pool=PoolId("m"),
                epoch=1,
                engine_url="http://e",
                page_tokens=PAGE,
                kv_tokens=10_000,
                context_tokens=5_000,
                max_running=4,
                session_tags=True,
            )
        )

    def _hear(self, message) -> None:
        self._handle(Received(message), self.now_s)

    def asks(self, number: int, root: str, new: bytes, *, base: int = 0, session: str = "", **fields) -> None:
        prompt_tokens = (base + len(new) // 8) * PAGE + 3
        self._hear(
            StepReady(
                step_id=StepId(f"{number:032x}"),
                attempt=0,
                gateway_id=GatewayId("g"),
                tenant=TenantId("t"),
                root=RootId(f"t/{root}"),
                session=SessionId(f"t/{session or root}"),
                parent=SessionId(f"t/{root}" if session else ""),
                pool=PoolId("m"),
                prompt_tokens=prompt_tokens,
                max_output_tokens=50,
                page_tokens=PAGE,
                base_pages=base,
                new_hashes=new,
                at=self.now_s,
                **fields,
            )
        )

    def ends(self, number: int, root: str, *, session: str = "", tools=(), gap_s: float = -1.0) -> None:
        self.now_s += 2.0
        self._hear(
            StepFinished(
                step_id=StepId(f"{number:032x}"),
                attempt=0,
                lease_id=LeaseId("l"),
                worker_id=WorkerId("w0"),
                gateway_id=GatewayId("g"),
                tenant=TenantId("t"),
                root=RootId(f"t/{root}"),
                session=SessionId(f"t/{session or root}"),
                pool=PoolId("m"),
                prompt_tokens=1,
                output_tokens=7,
                cached_tokens=0,
                finish_reason="tool_calls" if tools else "stop",
                tools=tools,
                gap_s=gap_s,
                engine_s=2.0,
                at=self.now_s,
            )
        )

    def over(self) -> None:
        self._recording.close()


def exported(tmp_path: Path):
    assert main(["trace", "export", str(tmp_path / "r"), str(tmp_path / "out.jsonl")]) == 0
    return read_sessions(tmp_path / "out.jsonl")


def test_a_conversation_with_a_tool_call_comes_back_with_its_lengths_gaps_and_shared_pages(tmp_path: Path):
    life = Life(tmp_path / "r")
    life.asks(1, "fix", pages(1, 2, 3))
    life.ends(1, "fix", tools=("bash",))
    life.now_s += 5.0
    life.asks(2, "fix", pages(4, 5), base=3, gap_s=5.0)
    life.ends(2, "fix", gap_s=5.0)
    life.over()

    (session,) = exported(tmp_path)

    assert [(s.start_s, s.input_tokens, s.output_tokens, s.stop, s.gap_s, s.api_s) for s in session.steps] == [
        (0.0, 51, 7, "tool_use", None, 2.0),
        (7.0, 83, 7, "end_turn", 5.0, 2.0),
    ]
    assert [step.blocks for step in session.steps] == [((1, 3),), ((1, 5),)], "the second extends the first"
    assert session.steps[1].input_types == ("tool_result",)


def test_a_sub_agent_is_an_agent_of_its_root_and_what_two_workflows_share_is_shared(tmp_path: Path):
    life = Life(tmp_path / "r")
    life.asks(1, "fix", pages(1, 2, 3))
    life.ends(1, "fix", tools=("task",))
    life.asks(2, "fix", pages(1, 9), session="child")
    life.ends(2, "fix", session="child")
    life.asks(3, "other", pages(1, 2, 8))
    life.ends(3, "other")
    life.over()

    first, second = exported(tmp_path)

    assert [step.agent for step in first.steps] == ["main", "agent_001"]
    assert [sub.agent for sub in first.subagents] == ["agent_001"]
    assert first.steps[1].blocks == ((1, 1), (4, 1))
    assert second.steps[0].blocks == ((1, 2), (5, 1))
    assert second.origin_s == 4.0


def test_names_of_tenants_and_workflows_stay_behind(tmp_path: Path):
    life = Life(tmp_path / "r")
    life.asks(1, "secret-project", pages(1))
    life.ends(1, "secret-project")
    life.over()

    exported(tmp_path)

    assert "secret" not in (tmp_path / "out.jsonl").read_text()


def test_a_step_told_twice_counts_once_and_one_without_an_end_is_left_out(tmp_path: Path, capsys):
    life = Life(tmp_path / "r")
    life.asks(1, "fix", pages(1, 2))
    life.asks(1, "fix", pages(1, 2))
    life.ends(1, "fix")
    life.ends(1, "fix")
    life.asks(2, "fix", pages(3), base=2)
    life.over()

    (session,) = exported(tmp_path)

    assert len(session.steps) == 1
    assert "left out: 1 steps" in capsys.readouterr().out


def test_a_recording_that_began_late_keeps_lengths_and_what_it_saw(tmp_path: Path):
    life = Life(tmp_path / "r")
    life.asks(1, "fix", pages(7, 8), base=100)
    life.ends(1, "fix")
    life.asks(2, "fix", pages(9), base=102)
    life.ends(2, "fix")
    life.over()

    (session,) = exported(tmp_path)

    assert [step.blocks for step in session.steps] == [((1, 102),), ((1, 103),)]


@pytest.mark.parametrize("what", ["nothing finished", "no file", "another service", "no recording"])
def test_what_holds_nothing_is_refused_in_one_line(tmp_path: Path, what: str, capsys: pytest.CaptureFixture[str]):
    if what == "nothing finished":
        life = Life(tmp_path / "r")
        life.asks(1, "fix", pages(1))
        life.over()
    elif what == "another service":
        Recording(tmp_path / "r", header_frame("graph", "g0", MAKING)).close()
    elif what == "no recording":
        (tmp_path / "r").write_text("hello")

    assert main(["trace", "export", str(tmp_path / "r"), str(tmp_path / "out.jsonl")]) == 2

    assert capsys.readouterr().err.count("\n") == 1
    assert not (tmp_path / "out.jsonl").exists()
