"""What fault schedules assert can fail: with one safeguard of a core taken out, they say which promise is broken."""

import pytest
from fault_engine import Engine
from fault_run import run_under
from fault_schedule import Kill, Noise, Pause

from saga.admission.stepbook import StepBook
from saga.gateway.events import Run
from saga.gateway.state import GatewayState
from saga.placement.board import Board
from saga.placement.dispatch import Dispatcher
from saga.worker.leases import LeaseTable

SEED = 1


def noise(kind: str, *, lose: float = 0.0, double: float = 0.0, late: float = 0.0) -> Noise:
    """All through the time of faults, everywhere."""
    return Noise(0.0, 20.0, "*", "*", kind, lose, double, late, 4.0, reorder=True)


def problems(*faults) -> str:
    return "\n".join(run_under(tuple(sorted(faults, key=lambda fault: fault.at_s)), SEED).problems)


def run_any_grant(state: GatewayState, grant, now_s: float, once=GatewayState._granted):
    """Also when another was the first."""
    record = state._steps.get(grant.step_id)
    if record is None or record.grant is None:
        return once(state, grant, now_s)
    record.grant = grant
    return [state._taken(record, grant), Run(grant.step_id, grant.attempt, grant)]


def answer_from_the_beginning(engine: Engine, request, once=Engine.arrive):
    """As if nothing had been sent to the client."""
    request.at = 0
    once(engine, request)


def note_any_admission(dispatch: Dispatcher, fence: int) -> bool:
    """Whoever it is."""
    dispatch._admission_fence = max(dispatch._admission_fence, fence)
    return False


OVER = (noise("StepReady", double=0.8, late=0.9), noise("StepAdmitted", double=0.8, late=0.9))
PAUSED_LEADERS = tuple(Pause(at_s, 4.0, service) for at_s in (1.0, 8.0) for service in ("admission", "placement"))
UNHEARD = (Noise(0.0, 20.0, "g0", "placement", "", 0.8, 0.0, 0.0, 0.0, reorder=False),)
LATE_GRANTS = (noise("Grant", late=0.9), *(Kill(at_s, "placement", 1.0, silent=False) for at_s in (2.0, 8.0, 14.0)))
LATE_WORD = (noise("StepAdmitted", late=0.9), *(Kill(at_s, "admission", 1.0, silent=False) for at_s in (2.0, 8.0)))
GATEWAY_DIES = (Kill(3.0, "g0", 2.0, silent=True), Kill(12.0, "g1", 2.0, silent=True))
ENGINE_DIES = (Kill(4.0, "e0", 1.0, silent=False), Kill(9.0, "e1", 1.0, silent=False))


@pytest.mark.parametrize(
    ("where", "safeguard", "without", "faults", "broken"),
    [
        pytest.param(*case, id=case[-1])
        for case in [
            (StepBook, "has_ended", lambda *_: False, OVER, "admits step"),
            (Board, "has_ended", lambda *_: False, OVER, "grants step"),
            (GatewayState, "_fenced", lambda *_: False, LATE_GRANTS, "runs a grant"),
            (Dispatcher, "stale_admission", note_any_admission, LATE_WORD, "on the word of an older admission"),
            (Board, "free_lease", lambda *_: None, GATEWAY_DIES, "a slot leaks"),
            (LeaseTable, "expire", lambda *_: [], GATEWAY_DIES, "a storm"),
            (GatewayState, "_granted", run_any_grant, UNHEARD, "two attempts"),
            (GatewayState, "_tell_again", lambda *_: [], PAUSED_LEADERS, "hangs"),
            (Engine, "arrive", answer_from_the_beginning, ENGINE_DIES, "came again"),
        ]
    ],
)
def test_without_one_safeguard_a_promise_is_broken(monkeypatch, where, safeguard, without, faults, broken):
    assert problems(*faults) == "", "with it the same faults break nothing"

    monkeypatch.setattr(where, safeguard, without)

    assert broken in problems(*faults)
