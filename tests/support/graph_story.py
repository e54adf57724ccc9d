"""A graph core that is told of steps, and forecasts that are checked on the way. For the graph's tests."""

import math

from saga.contract.ids import GatewayId, LeaseId, PoolId, RootId, SessionId, StepId, TenantId, WorkerId
from saga.contract.messages import Forecast, StepFinished, StepReady
from saga.contract.subjects import Subjects
from saga.graph.forecast import policy_named
from saga.graph.sketch import LARGEST_S
from saga.graph.state import GraphState
from saga.kernel.effects import Publish, Received


def core():
    return GraphState(Subjects("c"), policy_named("saga"))


def finished(step, root="r", *, tenant="t", agent_class="coder", session="", parent="", tools=("bash",), **fields):
    known = {
        "prompt_tokens": 100,
        "output_tokens": 5,
        "gap_s": 1.0,
        "engine_s": 0.5,
        "modelled_s": 0.25,
        "at": 1.0,
    }
    return StepFinished(
        step_id=StepId(step),
        attempt=0,
        lease_id=LeaseId("lease"),
        worker_id=WorkerId("w"),
        gateway_id=GatewayId("g"),
        tenant=TenantId(tenant),
        root=RootId(root),
        session=SessionId(session or root),
        parent=SessionId(parent),
        pool=PoolId("m"),
        agent_class=agent_class,
        cached_tokens=0,
        finish_reason="tool_calls",
        tools=tools,
        **(known | fields),
    )


def ready(step, root="r", *, tenant="t", **fields):
    return StepReady(
        step_id=StepId(step),
        attempt=0,
        gateway_id=GatewayId("g"),
        tenant=TenantId(tenant),
        root=RootId(root),
        session=SessionId(root),
        pool=PoolId("m"),
        agent_class="coder",
        prompt_tokens=100,
        max_output_tokens=10,
        page_tokens=16,
        **fields,
    )


def tell(state, message, now_s=0.0):
    said = [e.message for e in state.handle(Received(message), now_s) if isinstance(e, Publish)]
    for forecast in said:
        assert_sane(forecast)
    return said


def assert_sane(said: Forecast):
    numbers = (said.returns, said.new_tokens, said.remaining_steps, said.remaining_engine_s, *said.gap_quantiles_s)
    assert all(math.isfinite(number) and number >= 0 for number in numbers), said
    assert said.returns <= 1
    assert list(said.gap_quantiles_s) == sorted(said.gap_quantiles_s)
    assert said.gap_p99_s <= LARGEST_S * 1.02
