"""Which steps are refused at once, and what their client is told; how many workflows are remembered. For `state.py`."""

from collections.abc import Callable
from heapq import nsmallest
from typing import Final

import msgspec

from saga.admission.quotas import CLOSED_RETRY_S, Quotas
from saga.admission.records import Workflow
from saga.admission.roster import Roster
from saga.admission.stepbook import StepBook
from saga.contract.ids import RootId, TenantId
from saga.contract.messages import Refused, StepReady

CLOSE_AT_ONCE: Final = 64  # dormant workflows, when one more would be too many: looking for them takes a while
LOOK_AGAIN_S: Final = 1.0  # where none was dormant
ANYBODY: Final = TenantId("")


class Bounds(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """Of what one admission remembers, so that its memory has a bound whatever clients do."""

    max_waiting_steps: int = 10_000
    max_workflows: int = 100_000  # dormant ones too
    max_workflows_per_tenant: int = 25_000


class Door:
    """Of one admission."""

    def __init__(self, roster: Roster, book: StepBook, quotas: Quotas, bounds: Bounds) -> None:
        self._roster = roster
        self._book = book
        self._quotas = quotas
        self._bounds = bounds
        self._looked_s: dict[TenantId, float] = {}  # in vain

    def refusal_of(self, ready: StepReady) -> Refused | None:
        """The answer to a step that cannot run, or not now; None for one that may."""
        roster, book = self._roster, self._book
        pool = roster.pools.get(ready.pool)
        served = {name for name, other in roster.pools.items() if other.workers}
        if served and ready.pool not in served and (pool is None or not pool.needs):
            known = ", ".join(sorted(served))
            return book.refused(ready, "unknown_model", f"no worker serves {ready.pool!r}; served: {known}", 0.0)
        largest_tokens = pool.largest_kv_tokens if pool else 0
        if largest_tokens and ready.prompt_tokens > largest_tokens:
            detail = f"the prompt has {ready.prompt_tokens} tokens; the largest worker holds {largest_tokens}"
            return book.refused(ready, "too_large", detail, 0.0)
        if never := self._quotas.never(ready):
            roster.tenants.of(ready.tenant).refused += 1
            return book.refused(ready, "quota", never, CLOSED_RETRY_S)
        limit = self._bounds.max_waiting_steps
        if book.waiting >= limit:
            detail = f"{book.waiting} steps wait for their workflow's turn; the limit is {limit}"
            return book.refused(ready, "too_many_waiting", detail, 5.0)
        if full := self._full(ready)[1]:
            return book.refused(ready, "too_many_workflows", full, 30.0)
        return None

    def too_old(self, ready: StepReady, now_s: float) -> list[RootId]:
        """Where a new workflow would be one too many: those that have been dormant for longest, to be forgotten. The
        tenant's own when it has too many, else anybody's."""
        whose, full = self._full(ready)
        if not full or now_s < self._looked_s.get(whose, 0.0) + LOOK_AGAIN_S:
            return []
        found = nsmallest(CLOSE_AT_ONCE, self._dormant(lambda w: whose in (ANYBODY, w.tenant)))
        if not found:
            if len(self._looked_s) > 1_000:
                self._looked_s.clear()
            self._looked_s[whose] = now_s
        return [root for _, root in found]

    def _dormant(self, wanted: Callable[[Workflow], bool]) -> "list[tuple[float, RootId]]":
        pools = self._roster.pools
        return [
            (workflow.last_sign_s, root)
            for root, workflow in self._roster.workflows.items()
            if not workflow.steps and wanted(workflow) and root not in pools[workflow.pool].needs
        ]

    def _full(self, ready: StepReady) -> tuple[TenantId, str]:
        """Whose bound another workflow would break, and which; empty: none."""
        if ready.root in self._roster.workflows:
            return ANYBODY, ""
        known, limit = self._roster.tenants.of(ready.tenant).known, self._bounds.max_workflows_per_tenant
        if known >= limit:
            return ready.tenant, f"tenant {ready.tenant}: {known} workflows are open; the limit is {limit}"
        known, limit = len(self._roster.workflows), self._bounds.max_workflows
        return ANYBODY, f"{known} workflows are open; the limit is {limit}" if known >= limit else ""
