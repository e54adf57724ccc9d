"""What Prometheus is told of grants."""

import msgspec
import pytest

from saga.contract.ids import LeaseId, RootId, SessionId, SessionTag, StepId, WorkerId
from saga.contract.messages import Grant
from saga.kernel.effects import Publish, Tick
from saga.placement.grant_metrics import counted
from saga.runtime.metrics import REGISTRY

GRANT = Grant(
    step_id=StepId("0" * 32),
    attempt=0,
    lease_id=LeaseId("lease"),
    root=RootId("r"),
    session=SessionId("r"),
    worker_id=WorkerId("w0"),
    engine_url="http://w",
    session_tag=SessionTag(""),
    cached_tokens=0,
    reason="home",
    ttl_s=1.0,
    lease_ttl_s=1.0,
    ran_at=WorkerId("w0"),
    admission_fence=1,
    fence=1,
)


def moves() -> dict[str, float]:
    causes = ("worker_gone", "stolen", "chosen")
    return {cause: REGISTRY.get_sample_value("saga_placement_moves_total", {"cause": cause}) or 0.0 for cause in causes}


def grants(reason: str) -> float:
    return REGISTRY.get_sample_value("saga_placement_grants_total", {"reason": reason}) or 0.0


def moved_by(**fields) -> dict[str, float]:
    """Which causes were counted once a core has granted this."""
    before = moves()
    effects = [Publish("saga.gateway", msgspec.structs.replace(GRANT, **fields))]
    assert counted(lambda _event, _now_s: effects)(Tick(), 1.0) is effects
    return {cause: count - before[cause] for cause, count in moves().items() if count != before[cause]}


def test_a_step_at_home_is_no_move():
    before = grants("home")

    assert moved_by() == {}
    assert grants("home") == before + 1.0


def test_a_sessions_first_step_is_no_move():
    assert moved_by(ran_at=WorkerId(""), reason="cheapest_start") == {}


@pytest.mark.parametrize("reason", ["stolen", "saves_wait"])
def test_what_waited_at_home_and_started_elsewhere_was_stolen(reason):
    assert moved_by(ran_at=WorkerId("w1"), reason=reason) == {"stolen": 1.0}


def test_what_has_lost_its_worker_was_not_stolen():
    assert moved_by(ran_at=WorkerId("w1"), reason="stolen", left_gone=True) == {"worker_gone": 1.0}


def test_what_had_no_home_any_more_was_placed_anew():
    assert moved_by(ran_at=WorkerId("w1"), reason="cheapest_start") == {"chosen": 1.0}
