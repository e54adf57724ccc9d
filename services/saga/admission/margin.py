"""How full workers are planned to be, learnt from what that costs. Called by `worker_budgets.py` at each revision.

Planned too full, sessions come back from a tool call to find their KV gone, and engines prefill again instead of
working. Planned too empty, KV lies idle while workflows wait. Forecasts of growth, gaps and shared prefixes err either
way, each workload and engine in its own manner; the engines' own time spent on prefilling again says by how much.

Where a host tier is the room, it says so too late: the tier holds more than the device can run, and those beyond only
wait inside instead of outside, until all have grown and the tier overflows at once. So there the steps under way say
how many to have: as many as want the device and somewhat more.
"""

from math import exp

from saga.admission.needs import room_tokens
from saga.admission.policy import Claims

FIRST_SHARE = 0.95  # of a worker's KV
LEAST_SHARE, MOST_SHARE = 0.7, 1.3  # more than one: much is shared, or claimed and not used
# Where filling more stops to pay, if the cost of prefilling again rises e-fold within about 5 % of KV, and 5 % more KV
# does about 4 % more work. Reasoned, not swept.
LOST_SHARE = 0.04  # of engines' time
ADAPT_S = 300.0  # engine-seconds of each worker, in which a share of time lost becomes one of KV
# With a tier: what members with a step under way hold together, of the device's KV. More than one, as steps end and
# begin all the time and a free slot should find one that waits.
WANTED_SHARE = 1.15
WANTED_ADAPT_S = 1_200.0  # engine-seconds of each worker, in which what is too much or too little becomes one of KV
LOOKED_S = 1.0  # between two looks at who runs


class Margin:
    """The share of a worker's KV that its members may be forecast to need together, for one pool."""

    def __init__(self, share: float = FIRST_SHARE) -> None:
        self.share = share
        self._seen_s = (0.0, 0.0)
        self._tiered = False
        self._least = LEAST_SHARE
        self._looked_at_s = float("-inf")
        self._looked_spent_s = 0.0

    def learn(self, claims: Claims, now_s: float, *, crowded: bool) -> None:
        """Take in what has been spent and lost since. `crowded`: somebody waits for room; without, there is nothing to
        be learnt from losing little."""
        spent_s, lost_s = (now - then for now, then in zip((claims.spent_s, claims.lost_s), self._seen_s, strict=True))
        self._seen_s = (claims.spent_s, claims.lost_s)
        error_s = LOST_SHARE * spent_s - lost_s
        if error_s < 0.0 or (crowded and not self._tiered):
            self._change(error_s / (ADAPT_S * max(1, len(claims.workers))))
        if now_s >= self._looked_at_s + LOOKED_S:
            self._looked_at_s = now_s
            self._look(claims, crowded=crowded)

    def _look(self, claims: Claims, *, crowded: bool) -> None:
        """At the steps under way, where a host tier is the room."""
        spent_s, self._looked_spent_s = claims.spent_s - self._looked_spent_s, claims.spent_s
        device_tokens = sum(hello.kv_tokens for hello in claims.workers.values())
        most_tokens = sum(room_tokens(hello) for hello in claims.workers.values())
        self._tiered = most_tokens > device_tokens
        if not self._tiered:
            self._least = LEAST_SHARE
            return
        self._least = LEAST_SHARE * device_tokens / most_tokens
        workflows, needs = claims.workflows, claims.needs
        wanted_tokens = sum(needs[root][0] for _, root in claims.inside if workflows[root].running())
        error = WANTED_SHARE - wanted_tokens / device_tokens
        if error < 0.0 or crowded:
            self._change(error * spent_s / (WANTED_ADAPT_S * len(claims.workers)))

    def _change(self, by: float) -> None:
        self.share = min(MOST_SHARE, max(self._least, self.share * exp(by)))
