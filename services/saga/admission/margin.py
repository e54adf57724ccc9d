"""How full workers are planned to be, learnt from what that costs. Called by `worker_budgets.py` at each revision.

Planned too full, sessions come back from a tool call to find their KV gone, and engines prefill again instead of
working. Planned too empty, KV lies idle while workflows wait. Forecasts of growth, gaps and shared prefixes err either
way, each workload and engine in its own manner; the engines' own time spent on prefilling again says by how much.
"""

from math import exp

from saga.admission.policy import Claims

FIRST_SHARE = 0.95  # of a worker's KV
LEAST_SHARE, MOST_SHARE = 0.7, 1.3  # more than one: much is shared, or claimed and not used
# Where filling more stops to pay, if the cost of prefilling again rises e-fold within about 5 % of KV, and 5 % more KV
# does about 4 % more work. Reasoned, not swept.
LOST_SHARE = 0.04  # of engines' time
ADAPT_S = 300.0  # engine-seconds of each worker, in which a share of time lost becomes one of KV


class Margin:
    """The share of a worker's KV that its members may be forecast to need together, for one pool."""

    def __init__(self, share: float = FIRST_SHARE) -> None:
        self.share = share
        self._seen_s = (0.0, 0.0)

    def learn(self, claims: Claims, *, crowded: bool) -> None:
        """Take in what has been spent and lost since. `crowded`: somebody waits for room; without, there is nothing to
        be learnt from losing little."""
        spent_s, lost_s = (now - then for now, then in zip((claims.spent_s, claims.lost_s), self._seen_s, strict=True))
        self._seen_s = (claims.spent_s, claims.lost_s)
        error_s = LOST_SHARE * spent_s - lost_s
        if error_s < 0.0 or crowded:
            share = self.share * exp(error_s / (ADAPT_S * max(1, len(claims.workers))))
            self.share = min(MOST_SHARE, max(LEAST_SHARE, share))
