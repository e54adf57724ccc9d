"""Start-time fair queueing over tenants: the virtual clock behind every tag.

A step's tag is the later of the virtual time and its tenant's last finish; its cost moves that finish on, by an
estimate when it is tagged, corrected when the truth is known. Costs are modelled engine-seconds, never wall time.
Source: Goyal, Vin, Cheng, "Start-time Fair Queueing", SIGCOMM 1996.
"""

from saga.contract.ids import TenantId

IDLE_TENANTS = 10_000  # remembered with no charge ahead of the virtual time


class FairQueue:
    """Virtual time and each tenant's virtual finish, in modelled engine-seconds per unit of weight."""

    def __init__(self) -> None:
        self._virtual_s = 0.0
        self._finish_s: dict[TenantId, float] = {}
        self._weights: dict[TenantId, float] = {}

    @property
    def virtual_s(self) -> float:
        """The largest start tag in service so far."""
        return self._virtual_s

    def set_weight(self, tenant: TenantId, weight: float) -> None:
        """A tenant's share is its weight over the sum of the weights of tenants with work. Positive."""
        if weight <= 0:
            raise ValueError(f"weight of tenant {tenant} must be positive, not {weight}")
        self._weights[tenant] = weight

    def charge(self, tenant: TenantId, cost_s: float) -> float:
        """Tag a step: its virtual start. The tenant's next step starts after this one's estimated cost."""
        start_s = max(self._virtual_s, self._finish_s.get(tenant, 0.0))
        self._finish_s[tenant] = start_s + cost_s / self._weights.get(tenant, 1.0)
        if len(self._finish_s) > IDLE_TENANTS:
            self._finish_s = {t: f for t, f in self._finish_s.items() if f > self._virtual_s}
        return start_s

    def correct(self, tenant: TenantId, difference_s: float) -> None:
        """A step cost this much more than was charged (less: negative; a step that never ran: all of it)."""
        finish_s = self._finish_s.get(tenant)
        if finish_s is not None:
            self._finish_s[tenant] = finish_s + difference_s / self._weights.get(tenant, 1.0)

    def started(self, virtual_start_s: float) -> None:
        """A step with this tag went into service."""
        self._virtual_s = max(self._virtual_s, virtual_start_s)
