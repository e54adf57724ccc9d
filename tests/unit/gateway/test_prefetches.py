"""Requests without output at the gateway: sent when asked for, unless the session is back, and ended when it comes."""

import msgspec
import pytest

from saga.contract.ids import GatewayId, PoolId, RootId, SessionId, StepId, TenantId, WorkerId, rid
from saga.contract.messages import PrefetchAsked, StepReady
from saga.contract.subjects import Subjects
from saga.gateway.events import EndPrefetch, Prefetch, Prefetched, Submitted
from saga.gateway.http_prefetch import Prefetcher
from saga.gateway.prefetches import MOST
from saga.gateway.sessions import Prompt, SessionChains
from saga.gateway.state import GatewayState
from saga.gateway.tenants import Tenants
from saga.kernel.effects import Received
from saga.kv.pages import PageChain
from saga.kv.tokens import encode_ids

LAST = StepId("f" * 32)
READY = StepReady(
    step_id=StepId("0" * 32),
    attempt=0,
    gateway_id=GatewayId("g0"),
    tenant=TenantId("t"),
    root=RootId("r"),
    session=SessionId("s"),
    pool=PoolId("m"),
    prompt_tokens=100,
    max_output_tokens=10,
    page_tokens=16,
)


def asked(session: str = "s", **changes) -> PrefetchAsked:
    values = {
        "worker_id": WorkerId("w0"),
        "engine_url": "http://w0",
        "gateway_id": GatewayId("g0"),
        "tenant": TenantId("default"),
        "session": SessionId(session),
        "step_id": LAST,
        "prompt_tokens": 40,
    }
    return PrefetchAsked(**(values | changes))


def gateway() -> GatewayState:
    return GatewayState(GatewayId("g0"), Subjects("c"))


def of(effects, kind):
    return [effect for effect in effects if isinstance(effect, kind)]


def test_what_is_asked_for_is_sent_under_an_id_as_long_as_a_steps():
    (prefetch,) = gateway().handle(Received(asked()), 0.0)
    assert isinstance(prefetch, Prefetch)
    assert len(prefetch.rid) == len(rid(LAST, 0))
    assert prefetch.rid.startswith(LAST)


def test_a_session_that_is_back_needs_none():
    state = gateway()
    state.handle(Submitted(READY), 0.0)
    assert state.handle(Received(asked()), 0.1) == []


def test_one_at_a_time_and_another_when_it_is_over():
    state = gateway()
    (prefetch,) = state.handle(Received(asked()), 0.0)
    assert state.handle(Received(asked()), 0.1) == []
    state.handle(Prefetched(SessionId("s"), prefetch.rid), 0.2)
    assert len(state.handle(Received(asked()), 0.3)) == 1


def test_a_step_ends_the_one_that_waits_for_it():
    state = gateway()
    (prefetch,) = state.handle(Received(asked()), 0.0)
    assert of(state.handle(Submitted(READY), 0.1), EndPrefetch) == [EndPrefetch("http://w0", prefetch.rid)]
    assert len(state.prefetches) == 0


def test_a_step_after_it_is_over_ends_nothing():
    state = gateway()
    (prefetch,) = state.handle(Received(asked()), 0.0)
    state.handle(Prefetched(SessionId("s"), prefetch.rid), 0.1)
    assert of(state.handle(Submitted(READY), 0.2), EndPrefetch) == []


def test_the_end_of_an_earlier_one_does_not_count_for_a_later():
    state = gateway()
    state.handle(Received(asked()), 0.0)
    state.handle(Prefetched(SessionId("s"), "another"), 0.1)
    assert len(state.prefetches) == 1


def test_there_are_never_more_than_so_many():
    state = gateway()
    for number in range(MOST + 10):
        state.handle(Received(asked(f"s{number}")), 0.0)
    assert len(state.prefetches) == MOST


def prefetcher(ids: range, tenants: Tenants | None = None) -> Prefetcher:
    chains = SessionChains(1_000_000)
    token_bytes = encode_ids(ids)
    chains.keep(SessionId("s"), Prompt(token_bytes, PageChain(16, "").extended(token_bytes)))
    return Prefetcher(None, None, tenants or Tenants(), chains)  # type: ignore[arg-type] # neither bus nor engine is asked


def test_the_request_has_the_prompts_ids_no_output_and_no_session_tag():
    body = prefetcher(range(40)).body(Prefetch(asked(), "rid"))
    assert body is not None
    assert msgspec.json.decode(body) == {
        "input_ids": list(range(40)),
        "sampling_params": {"max_new_tokens": 0},
        "rid": "rid",
        "priority": -1,
    }


def test_a_tenants_request_stays_in_its_namespace():
    tenants = Tenants.parse('[tenants.acme]\nkeys = ["k"]\n', "here")
    body = prefetcher(range(40), tenants).body(Prefetch(asked(tenant=TenantId("acme")), "rid"))
    assert body is not None
    assert msgspec.json.decode(body)["cache_salt"] == "acme"
    assert prefetcher(range(40), tenants).body(Prefetch(asked(tenant=TenantId("gone")), "rid")) is None


@pytest.mark.parametrize("changes", [{"session": SessionId("other")}, {"prompt_tokens": 41}])
def test_a_prompt_that_is_not_at_hand_as_the_engine_counted_it_is_not_sent(changes):
    assert prefetcher(range(40)).body(Prefetch(asked(**changes), "rid")) is None
