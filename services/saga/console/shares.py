"""Tenants: what each was served in the last minute, against what its weight entitles it to; and the cell's rates."""

from collections.abc import Iterable
from heapq import nlargest
from typing import Final

from saga.console.minute import Minute
from saga.console.records import Workflow
from saga.console.wire import TenantRow
from saga.contract.ids import PoolId, TenantId
from saga.contract.messages import CostModel, StepFinished
from saga.contract.tenant_messages import TenantUse

TOLD: Final = 64  # tenants that the page is told of: the busiest
RATE_S: Final = 10
_FEW: Final = 1e-12


class Shares:
    """Modelled engine-seconds by tenant; steps and tokens of all."""

    def __init__(self) -> None:
        self.costs: dict[PoolId, CostModel] = {}
        self.uses: dict[TenantId, TenantUse] = {}
        self._served = Minute()
        self._rates = Minute(RATE_S)
        self._cache = Minute()
        self._since_s: float | None = None

    def served(self, finished: StepFinished, now_s: float) -> float:
        """A step has ended; its modelled engine-seconds."""
        cost = self.costs.get(finished.pool)
        engine_s = finished.modelled_s if finished.modelled_s >= 0 else finished.engine_s
        if finished.modelled_s < 0 and cost is not None and cost.output_s_per_token:
            cached = min(finished.cached_tokens, finished.prompt_tokens)
            engine_s = cost.step_s(finished.prompt_tokens, cached, finished.output_tokens)
        if self._since_s is None:
            self._since_s = now_s
        self._served.count(finished.tenant, now_s, engine_s)
        self._rates.count("steps", now_s)
        self._rates.count("tokens", now_s, finished.output_tokens)
        self._cache.count("prompt", now_s, finished.prompt_tokens)
        self._cache.count("cached", now_s, finished.cached_tokens)
        return engine_s

    def told(self, uses: Iterable[TenantUse]) -> None:
        """What admission says, of all tenants that use something."""
        self.uses = {use.tenant: use for use in uses}

    def settle(self, now_s: float) -> None:
        """Forget what is too old."""
        for window in (self._served, self._rates, self._cache):
            window.forget(now_s)

    def rate(self, what: str, now_s: float) -> float:
        """Of `steps` or output `tokens`, a second."""
        since_s = now_s - self._since_s if self._since_s is not None else 0.0
        return round(self._rates.sums.get(what, 0.0) / min(RATE_S, max(1.0, since_s)), 2)

    def cached_share(self) -> float:
        """Of prompt tokens; negative: no step ended in the last minute."""
        prompt = self._cache.sums.get("prompt", 0.0)
        return round(self._cache.sums.get("cached", 0.0) / prompt, 4) if prompt else -1.0

    def rows(self, workflows: Iterable[Workflow], now_s: float) -> tuple[list[TenantRow], int]:
        """The busiest tenants in the order of their names, and how many there are."""
        counts: dict[TenantId, list[int]] = {}
        for workflow in workflows:
            here = counts.setdefault(workflow.tenant, [0] * 8)
            _add(here, workflow, now_s)
        names = {*counts, *self.uses, *(TenantId(name) for name in self._served.sums)}
        total_s = self._served.total
        wants = {
            name: self._weight(name) for name in names if self._served.sums.get(name) or counts.get(name, _NOTHING)[7]
        }
        weights = sum(wants.values())
        made = [
            self._row(name, counts.get(name, _NOTHING), total_s, wants.get(name, 0.0) / max(weights, _FEW))
            for name in names
        ]
        busiest = nlargest(TOLD, made, key=lambda row: (row.share, row.entitled, row.active, row.name))
        return sorted(busiest, key=lambda row: row.name), len(names)

    def _weight(self, name: TenantId) -> float:
        use = self.uses.get(name)
        return use.weight if use is not None else 1.0

    def _row(self, name: TenantId, counts: list[int], total_s: float, entitled: float) -> TenantRow:
        use = self.uses.get(name) or TenantUse(tenant=name)
        active, queued, running, waiting, on_time, at_risk, late, _wants = counts
        return TenantRow(
            name,
            use.weight,
            round(self._served.sums.get(name, 0.0) / total_s, 4) if total_s else 0.0,
            round(entitled, 4),
            active,
            queued,
            running,
            waiting,
            use.kv_tokens,
            use.held_for,
            on_time,
            at_risk,
            late,
        )


_NOTHING: Final = [0] * 8


def _add(counts: list[int], workflow: Workflow, now_s: float) -> None:
    """active, queued, running steps, waiting steps, on time, at risk, late, wants something"""
    state = workflow.state(now_s)
    if state == "closed":
        return
    counts[0] += state in ("running", "gap")
    counts[1] += state == "queued"
    for step in workflow.live.values():
        counts[2 if step.phase == "running" else 3] += 1
    counts[7] += bool(workflow.live)
    if workflow.deadline_s > 0 and state != "dormant":
        left_s = workflow.submitted_s + workflow.deadline_s - now_s
        counts[4 if left_s > workflow.remaining_s() else 5 if left_s > 0 else 6] += 1
