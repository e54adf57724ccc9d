"""How much KV a workflow will need, now and some steps ahead, so that a set of them can be checked for its peak.

A young set grows together and peaks later; in a mixed one, those that end make room for those that grow. Which of the
two a set is shows in the sum over its members at several horizons, not in a reserve for each.
"""

from operator import add, sub

from saga.contract.ids import NO_WORKER, RootId, SessionId, StepId
from saga.contract.messages import GAP_SHARES, UNKNOWN_GAPS_S, UNKNOWN_RETURNS, Forecast, WorkerHello

HORIZONS = (0, 4, 8, 16, 32, 64)  # steps ahead
Tokens = tuple[int, ...]  # one per horizon
NO_GROWTH: Tokens = (0,) * len(HORIZONS)
LONGEST_HELD_S = 60.0  # a gap in which KV is held for a session; one that is mostly longer is not worth it
_P50_S, _P90_S, _P95_S, _P99_S = (UNKNOWN_GAPS_S[GAP_SHARES.index(share)] for share in (0.5, 0.9, 0.95, 0.99))
UNFORETOLD = Forecast(
    root=RootId(""),
    session=SessionId(""),
    step_id=StepId(""),
    worker_id=NO_WORKER,
    returns=UNKNOWN_RETURNS,
    gap_p50_s=_P50_S,
    gap_p90_s=_P90_S,
    gap_p95_s=_P95_S,
    gap_p99_s=_P99_S,
    new_tokens=0.0,
    remaining_steps=UNKNOWN_RETURNS / (1.0 - UNKNOWN_RETURNS),
    remaining_engine_s=0.0,
    samples=0,
    gap_quantiles_s=UNKNOWN_GAPS_S,
)
"""What is expected of a gap until the graph says better, or when there is none."""
CLEARLY = 4.0  # times as quick as prefill: below this a host tier is no room to count on


def room_tokens(hello: WorkerHello) -> int:
    """KV that a worker keeps for the sessions of active workflows.

    With a host tier that is the tier, which has a copy of all: a context that the device let go is loaded back while
    the engine computes. What runs at one time must fit the device; placement sees to that.
    """
    quick = hello.load_s_per_token * CLEARLY <= hello.cost.prompt_s_per_token  # or nothing is known of either
    return max(hello.kv_tokens, hello.host_kv_tokens) if quick else hello.kv_tokens


def growth(forecast: Forecast, context_tokens: int, longest_tokens: int) -> Tokens:
    """Expected change of a session's context by each horizon: it grows by a mean per step, up to the longest context
    of the pool, or ends, with the same chance at each step. What nobody has learnt yet does not change."""
    if not forecast.samples:
        return NO_GROWTH
    goes_on = 1.0 - 1.0 / max(1.0, forecast.remaining_steps)
    return tuple(
        int(min(context_tokens + steps * forecast.new_tokens, longest_tokens) * goes_on**steps) - context_tokens
        for steps in HORIZONS
    )


def held_s(forecast: Forecast) -> float:
    """How long into its gap a session keeps its claim: nine in ten are back by then, unless that takes too long.

    Tools answer in seconds; people take minutes, and KV held for them is KV that nobody uses meanwhile.
    """
    if forecast.gap_p50_s > LONGEST_HELD_S:
        return 0.0
    return min(forecast.gap_p90_s, LONGEST_HELD_S)


def plus(first: Tokens, second: Tokens) -> Tokens:
    """Horizon by horizon."""
    return tuple(map(add, first, second))


def minus(first: Tokens, second: Tokens) -> Tokens:
    """Horizon by horizon."""
    return tuple(map(sub, first, second))
