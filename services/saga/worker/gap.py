"""What it is worth to keep an idle session a while longer, from its forecast and how long it has been away. Pure.

KV that is kept takes room for as long as it waits, and saves its own prefill when its session returns. Both grow with
its tokens, so what is left to compare is returns per second of waiting: if one waits for the best moment from now on
and then gives up (Gittins' index). Ordering by it is optimal where room has a price; a full cache sets such a price.
A host tier changes what a return saves by the same factor for all, so it changes no order.
"""

from typing import Final

from saga.contract.messages import GAP_SHARES, UNKNOWN_GAPS_S, UNKNOWN_RETURNS, Forecast

TAIL_SHARES: Final = tuple(1.0 - (1.0 - GAP_SHARES[-1]) / 5.0**step for step in (1, 2))
"""Beyond the last known quantile: the tail goes on as between the last two, whose exceedances differ by 5."""
LEAST_GROWTH, MOST_GROWTH = 1.2, 10.0

Curve = tuple[float, tuple[tuple[float, float], ...]]
"""Probability of a return, and (gap in seconds, share of returns that come before) from the origin on."""


def curve(forecast: Forecast | None) -> Curve:
    """The distribution that a forecast stands for."""
    if forecast is None:
        return UNKNOWN_RETURNS, _points(UNKNOWN_GAPS_S)
    gaps_s = forecast.gap_quantiles_s
    if len(gaps_s) != len(GAP_SHARES):
        gaps_s = _of_few(forecast)
    return forecast.returns, _points(gaps_s)


def index(of: Curve, away_s: float) -> float:
    """Returns per second of waiting, at best, of a session that has been away for so long."""
    returns, points = of
    best = returned = waited_s = 0.0
    before_s, before = points[0]
    for gap_s, share in points[1:]:
        if gap_s > away_s:
            if before_s < away_s:
                before += (share - before) * (away_s - before_s) / (gap_s - before_s)
                before_s = away_s
            mass = returns * (share - before)
            returned += mass
            waited_s += mass * ((before_s + gap_s) / 2 - away_s)
            room_s = waited_s + (1.0 - returns * share) * (gap_s - away_s)
            if room_s > 0.0:
                best = max(best, returned / room_s)
        before_s, before = gap_s, share
    if best > 0.0:
        return best
    # Longer than anything forecast: hardly any, and the less the longer.
    left = returns * (1.0 - points[-1][1])
    return left / ((left + 1.0 - returns + 1e-9) * 5.0 * max(1.0, away_s))


def _points(gaps_s: tuple[float, ...]) -> tuple[tuple[float, float], ...]:
    growth = min(MOST_GROWTH, max(LEAST_GROWTH, gaps_s[-1] / max(gaps_s[-2], 1e-9)))
    tail = tuple((gaps_s[-1] * growth**step, share) for step, share in enumerate(TAIL_SHARES, 1))
    return ((0.0, 0.0), *zip(gaps_s, GAP_SHARES, strict=True), *tail)


def _of_few(forecast: Forecast) -> tuple[float, ...]:
    """The quantiles of an older graph service, which names four: below the median as if evenly spread."""
    p50, p90, p95, p99 = forecast.gap_p50_s, forecast.gap_p90_s, forecast.gap_p95_s, forecast.gap_p99_s
    known = {0.5: p50, 0.75: (p50 * p90) ** 0.5, 0.9: p90, 0.95: p95, 0.99: p99}
    return tuple(known.get(share, p50 * share / 0.5) for share in GAP_SHARES)
