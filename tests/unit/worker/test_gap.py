"""What keeping an idle session is worth: the index against distributions whose answer is known."""

import pytest
from forecasts import forecast
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from saga.contract.messages import GAP_SHARES, UNKNOWN_GAPS_S
from saga.worker.gap import curve, index

FORECAST = forecast(returns=1.0, gap_p90_s=4.0, gap_p95_s=8.0, gap_p99_s=40.0)
SURE = replace(FORECAST, gap_quantiles_s=(10.0,) * len(GAP_SHARES))  # back after 10 s, or hardly later
QUICK_OR_LATE = replace(FORECAST, gap_quantiles_s=(0.5, 0.6, 0.8, 1.0, 100.0, 200.0, 300.0, 400.0))


def test_who_surely_returns_at_a_known_time_is_worth_more_the_less_is_left_of_it():
    # Nearly all of the mass lies at 10 s: one return for the 10 s, and for the one second left.
    late = replace(SURE, gap_quantiles_s=(9.999, *SURE.gap_quantiles_s[1:]))

    assert index(curve(late), 0.0) == pytest.approx(0.1, rel=0.05)
    assert index(curve(late), 9.0) == pytest.approx(1.0, rel=0.05)


def test_half_as_likely_is_worth_less_and_never_is_worth_next_to_nothing():
    whole, half, none = (curve(replace(FORECAST, returns=r)) for r in (1.0, 0.5, 0.0))

    assert index(whole, 0.5) > index(half, 0.5) > index(none, 0.5) == 0.0


def test_a_promise_that_was_not_kept_loses_its_worth_and_regains_some_before_the_next():
    of = curve(QUICK_OR_LATE)

    assert index(of, 0.5) > 10 * index(of, 1.5)
    assert index(of, 95.0) > index(of, 1.5)


def test_beyond_all_that_was_forecast_the_longest_away_is_worth_least():
    of = curve(SURE)

    assert index(of, 30.0) > index(of, 60.0) > index(of, 3600.0) > 0.0


def test_without_a_forecast_defaults_say_that_who_was_here_last_returns_first():
    of = curve(None)

    assert index(of, 0.0) > index(of, 5.0) > index(of, 100.0) > index(of, 5000.0)
    assert of == curve(replace(FORECAST, returns=0.9, gap_quantiles_s=UNKNOWN_GAPS_S))


def test_the_quantiles_of_an_older_graph_service_are_filled_in():
    _, points = curve(FORECAST)

    assert [round(gap_s, 3) for gap_s, _ in points[1:9]] == [0.1, 0.2, 0.5, 1.0, 2.0, 4.0, 8.0, 40.0]


@given(
    st.lists(st.floats(0.001, 1e5), min_size=8, max_size=8).map(sorted),
    st.floats(0.0, 1.0),
    st.floats(0.0, 1e6),
)
def test_an_index_is_finite_and_scales_with_time(gaps_s: list[float], returns: float, away_s: float):
    forecast = replace(FORECAST, returns=returns, gap_quantiles_s=tuple(gaps_s))
    worth = index(curve(forecast), away_s)

    assert 0.0 <= worth < float("inf")
    slower = replace(forecast, gap_quantiles_s=tuple(10.0 * gap_s for gap_s in gaps_s))
    if away_s < gaps_s[-1]:
        assert index(curve(slower), 10.0 * away_s) == pytest.approx(worth / 10.0, rel=1e-6)
