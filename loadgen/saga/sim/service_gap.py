"""How unequal the service of tenants became: the largest difference between two tenants' normalised service over any
stretch of time in which both had a step waiting or running throughout.

Service is modelled engine-seconds (uncached prompt, output, context) over the tenant's weight, booked when a step ends.
That is what start-time fair queueing bounds. Called by `ledger`.
"""

from collections.abc import Mapping


class ServiceGap:
    """Books of all tenants of one run. `worst_s`: engine-seconds per unit of weight; 0 until two were busy at once."""

    def __init__(self, weights: Mapping[str, float]) -> None:
        self.worst_s = 0.0
        self._weights = weights
        self._steps = dict.fromkeys(weights, 0)  # waiting or running
        self._service_s = dict.fromkeys(weights, 0.0)
        # Of each pair that is busy now, in the order of `weights`: lowest and highest difference since both are.
        self._differences: dict[tuple[str, str], tuple[float, float]] = {}
        self._order = {tenant: index for index, tenant in enumerate(weights)}

    def submitted(self, tenant: str) -> None:
        """A step of the tenant waits."""
        if tenant not in self._steps:
            return
        self._steps[tenant] += 1
        if self._steps[tenant] == 1:
            for other in self._busy(tenant):
                difference_s = self._difference_s(pair := self._pair(tenant, other))
                self._differences[pair] = (difference_s, difference_s)

    def ended(self, tenant: str, engine_s: float) -> None:
        """A step of the tenant ended, having cost so much (a failed one: 0)."""
        if tenant not in self._steps:
            return
        self._service_s[tenant] += engine_s / self._weights[tenant]
        for other in self._busy(tenant):
            pair = self._pair(tenant, other)
            difference_s = self._difference_s(pair)
            low_s, high_s = self._differences[pair]
            low_s, high_s = min(low_s, difference_s), max(high_s, difference_s)
            self._differences[pair] = (low_s, high_s)
            self.worst_s = max(self.worst_s, high_s - low_s)
        self._steps[tenant] -= 1

    def _busy(self, beside: str) -> list[str]:
        return [other for other, steps in self._steps.items() if steps and other != beside]

    def _pair(self, one: str, other: str) -> tuple[str, str]:
        return (one, other) if self._order[one] < self._order[other] else (other, one)

    def _difference_s(self, pair: tuple[str, str]) -> float:
        return self._service_s[pair[0]] - self._service_s[pair[1]]
