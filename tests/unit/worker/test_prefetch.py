"""When KV is loaded back ahead of its session: where the tier is quick, and the return nearer than the room is dear."""

import pytest
from forecasts import forecast
from msgspec.structs import replace

from saga.contract.errors import StartError
from saga.contract.ids import PoolId, WorkerId
from saga.contract.messages import CostModel, WorkerHello
from saga.worker.prefetch import NEVER_S, HostLink, NearReturn, prefetch_named

FORECAST = forecast(
    returns=1.0,
    gap_p50_s=30.0,
    gap_p90_s=30.0,
    gap_p95_s=30.0,
    gap_p99_s=30.0,
    gap_quantiles_s=(30.0, 30.1, 30.2, 30.3, 30.4, 30.5, 30.6, 30.7),
)
LINK = HostLink(kv_tokens=2_000_000, load_s_per_token=0.6e-6, prompt_s_per_token=12e-6)  # breaks even after 1.2 s
TOKENS = 100_000  # 60 ms to load


def ask_s(forecast=FORECAST, away_s=0.0, tokens=TOKENS, link=LINK):
    return NearReturn().ask_s(forecast, away_s, tokens, link)


def test_a_tool_that_takes_thirty_seconds_is_waited_for_and_the_load_done_just_before():
    asked = ask_s()
    assert asked.reason == "near_return"
    assert asked.choice == pytest.approx(30.0 - 0.06)


def test_who_is_overdue_within_the_known_span_is_asked_for_at_once():
    assert ask_s(away_s=30.15).choice == pytest.approx(30.2 - 0.06, abs=0.06)


def test_people_are_never_waited_for():
    people = replace(FORECAST, gap_quantiles_s=(5.0, 10.0, 30.0, 60.0, 300.0, 900.0, 2_000.0, 9_000.0))
    assert ask_s(people) == (asked := ask_s(people, away_s=60.0))
    assert (asked.choice, asked.reason) == (NEVER_S, "unsure")


def test_nor_is_who_hardly_ever_returns():
    assert ask_s(replace(FORECAST, returns=0.05)).reason == "unsure"


def test_what_costs_more_to_load_may_wait_longer_on_the_device():
    vague = replace(FORECAST, gap_quantiles_s=(22.0, 24.0, 27.0, 30.0, 33.0, 36.0, 38.0, 40.0))
    slow = replace(LINK, load_s_per_token=3e-6)
    assert ask_s(vague, link=slow).choice < ask_s(vague).choice


@pytest.mark.parametrize(
    ("changed", "reason"),
    [
        ({"link": replace(LINK, load_s_per_token=0.0)}, "no_host_tier"),
        ({"link": replace(LINK, load_s_per_token=4e-6)}, "prefill_is_as_quick"),
        ({"tokens": 10_000}, "short"),
        ({"forecast": None}, "unknown"),
        ({"forecast": replace(FORECAST, samples=0)}, "unknown"),
    ],
)
def test_otherwise_it_says_why_not(changed, reason):
    asked = ask_s(**changed)
    assert (asked.choice, asked.reason) == (NEVER_S, reason)


def test_a_fast_engine_keeps_its_times_in_real_seconds():
    fast = HostLink.of(hello(speed=10.0))
    assert fast.load_s(TOKENS) == pytest.approx(0.006)


def test_an_engine_without_a_tier_has_no_link():
    assert HostLink.of(hello(host_kv_tokens=0)).load_s_per_token == 0.0


def hello(**changed):
    values = {
        "worker_id": WorkerId("w"),
        "engine_url": "http://e",
        "pool": PoolId("m"),
        "epoch": 1,
        "page_tokens": 64,
        "kv_tokens": 2_000_000,
        "context_tokens": 256_000,
        "max_running": 256,
        "session_tags": True,
        "cost": CostModel(prompt_s_per_token=12e-6),
        "host_kv_tokens": 6_000_000,
        "load_s_per_token": 0.6e-6,
    }
    return WorkerHello(**(values | changed))


def test_the_setting_names_what_there_is():
    assert isinstance(prefetch_named("saga"), NearReturn)
    assert prefetch_named("off") is None
    with pytest.raises(StartError, match=r"SAGA_WORKER_PREFETCH.*off, saga"):
        prefetch_named("oracle")
