"""A forecast for tests, of which each says only what it is about."""

from saga.contract.ids import RootId, SessionId, StepId, WorkerId
from saga.contract.messages import Forecast


def forecast(**fields) -> Forecast:
    """Of a session that is nearly certain to be back within seconds."""
    given = {
        "root": RootId("r"),
        "session": SessionId("s"),
        "step_id": StepId("x"),
        "worker_id": WorkerId("w"),
        "returns": 0.9,
        "gap_p50_s": 1.0,
        "gap_p90_s": 2.0,
        "gap_p95_s": 3.0,
        "gap_p99_s": 9.0,
        "new_tokens": 100.0,
        "remaining_steps": 5.0,
        "remaining_engine_s": 3.0,
        "samples": 10,
    }
    return Forecast(**(given | fields))
