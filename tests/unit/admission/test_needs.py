"""How far a set of workflows can grow, and who may therefore join it."""

import msgspec
import pytest
from forecasts import forecast

from saga.admission.needs import HORIZONS, LONGEST_HELD_S, NO_GROWTH, growth, held_s, minus, plus
from saga.admission.policy import Claimant, OldestThatFit
from saga.contract.ids import RootId
from saga.contract.messages import Forecast

KV = 10_000


def growing(new_tokens: float, remaining_steps: float, samples: int = 10) -> Forecast:
    return forecast(new_tokens=new_tokens, remaining_steps=remaining_steps, samples=samples)


def claimant(name: str, *needs: int, active: bool = False, active_after: int = 0) -> Claimant:
    padded = (*needs, *(needs[-1:] * (len(HORIZONS) - len(needs))))
    return Claimant(root=RootId(name), needs_tokens=padded, active=active, active_after=active_after)


def test_a_long_workflow_grows_and_a_short_one_makes_room():
    long, short = growth(growing(500, 50), 2_000, 100_000), growth(growing(500, 1), 2_000, 100_000)

    assert long[0] == short[0] == 0
    assert long[2] > 1_500
    assert short[1] == -2_000  # it will have ended


def test_a_context_grows_no_longer_than_the_pool_takes():
    assert max(growth(growing(10_000, 1_000), 2_000, 8_000)) <= 6_000


def test_what_nobody_has_learnt_does_not_change():
    assert growth(growing(500, 50, samples=0), 2_000, 100_000) == NO_GROWTH


def test_sums_go_horizon_by_horizon():
    assert minus(plus((1, 2, 3, 4, 5, 6), (1,) * 6), (1,) * 6) == (1, 2, 3, 4, 5, 6)


def test_a_young_set_is_closed_before_it_is_full():
    young = [claimant("a", 2_000, 4_000), claimant("b", 2_000, 4_000), claimant("c", 2_000, 4_000)]

    assert set(OldestThatFit(0.95, 1.0).active(young, KV)) == {"a", "b"}


def test_one_that_ends_makes_room_for_one_that_grows():
    mixed = [claimant("ends", 5_000, 0), claimant("grows", 4_000, 8_000)]

    assert set(OldestThatFit(0.95, 1.0).active(mixed, KV)) == {"ends", "grows"}


def test_who_is_in_stays_while_what_is_needed_now_fits():
    grown = [claimant("a", 5_000, 9_000, active=True, active_after=1), claimant("b", 4_900, 9_000, active=True)]

    assert set(OldestThatFit(0.95, 1.0).active(grown, KV)) == {"a", "b"}


def test_the_youngest_is_paused_when_even_the_present_does_not_fit():
    grown = [claimant("a", 6_000, active=True, active_after=1), claimant("b", 6_000, active=True)]

    assert set(OldestThatFit(0.95, 1.0).active(grown, KV)) == {"a"}


def test_a_newcomer_does_not_pass_one_that_may_not_join():
    waiting = [claimant("a", 5_000), claimant("large", 6_000), claimant("small", 100)]

    assert set(OldestThatFit(0.95, 1.0).active(waiting, KV)) == {"a"}


@pytest.mark.parametrize("needs", [(50_000,), (100, 50_000)])
def test_the_oldest_is_always_in(needs):
    assert set(OldestThatFit(0.95, 1.0).active([claimant("huge", *needs)], KV)) == {"huge"}


def forecast_of(p50_s: float, p90_s: float) -> Forecast:
    return msgspec.structs.replace(growing(500.0, 10.0), gap_p50_s=p50_s, gap_p90_s=p90_s)


def test_kv_is_held_for_nine_in_ten_tool_calls_but_not_for_a_slow_tenth():
    assert held_s(forecast_of(2.0, 20.0)) == 20.0
    assert held_s(forecast_of(9.0, 600.0)) == LONGEST_HELD_S


def test_kv_is_not_held_for_people():
    assert held_s(forecast_of(200.0, 3_000.0)) == 0.0
