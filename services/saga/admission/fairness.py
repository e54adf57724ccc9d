"""Start-time fair queueing over tenants: the virtual clock behind every tag.

A step's tag is its tenant's account when it is tagged; its cost moves the account on, by an estimate then, corrected
whenever more is known, at the weight that it was tagged with. Costs are modelled engine-seconds, never wall time.
What this guarantees, and the proof: docs/fairness.md. After Goyal, Vin, Cheng, "Start-time Fair Queueing", SIGCOMM
1996, which knows sizes beforehand; the two differ in `charge`. Called by `stepbook.py`.
"""

from collections.abc import Sequence

import msgspec

from saga.admission.charge import Charge
from saga.admission.weights import Weights
from saga.contract.ids import TenantId

IDLE_TENANTS = 10_000  # remembered with no charge ahead of the virtual time


class Account(msgspec.Struct, gc=False):
    """One tenant's."""

    finish_s: float = 0.0  # virtual time to which it has been charged: the start of its next step
    furthest_s: float = 0.0  # the latest start of those given out since it last had nothing waiting
    waiting: int = 0  # steps that have a tag and no slot
    live: int = 0  # steps that have a tag and are not over


class FairQueue:
    """Virtual time and each tenant's account, in modelled engine-seconds per unit of weight."""

    def __init__(self, weights: Weights | None = None) -> None:
        self.weights = weights or Weights()
        self._virtual_s = 0.0
        self._accounts: dict[TenantId, Account] = {}

    @property
    def virtual_s(self) -> float:
        """The largest start tag in service so far."""
        return self._virtual_s

    def set_weight(self, tenant: TenantId, weight: float) -> None:
        """A tenant's share is its weight over the sum of the weights of tenants with work. Positive."""
        self.weights.guarantee(tenant, weight)

    def charge(self, tenant: TenantId, cost_s: float) -> Charge:
        """Tag a step: `start_s`. The tenant's next step starts after this one's estimated cost.

        A tenant that has nothing waiting cannot save up: it starts at the virtual time at the earliest. Of one that
        has, the virtual time passes the account only after estimates were corrected downwards, and that is its due;
        it is moved up by no more than the virtual time has passed its furthest tag, when it waited where nobody was
        served.
        """
        account = self._accounts.get(tenant)
        if account is None:
            account = self._accounts[tenant] = Account()
        if account.waiting == 0:
            account.finish_s = account.furthest_s = max(account.finish_s, self._virtual_s)
        else:
            account.finish_s += max(0.0, self._virtual_s - max(account.furthest_s, account.finish_s))
        charge = Charge(tenant, account.finish_s, self.weights.of(tenant), cost_s)
        account.furthest_s = max(account.furthest_s, charge.start_s)
        account.finish_s += charge.normalised_s
        account.waiting += 1
        account.live += 1
        if len(self._accounts) > IDLE_TENANTS:
            self._forget_idle()
        return charge

    def correct(self, charge: Charge, cost_s: float) -> float:
        """The step costs this much, as is known now. The change, per unit of weight."""
        change_s = (cost_s - charge.cost_s) / charge.weight
        self._accounts[charge.tenant].finish_s += change_s
        charge.cost_s = cost_s
        return change_s

    def started(self, charge: Charge) -> None:
        """The step went into service."""
        if charge.waits:
            charge.waits = False
            self._accounts[charge.tenant].waiting -= 1
            self._virtual_s = max(self._virtual_s, charge.start_s)

    def returned(self, charge: Charge) -> None:
        """The step waits again, under its old tag."""
        if not charge.waits:
            charge.waits = True
            self._accounts[charge.tenant].waiting += 1

    def ended(self, charge: Charge) -> None:
        """The step is over, and corrected for the last time."""
        account = self._accounts[charge.tenant]
        account.live -= 1
        account.waiting -= charge.waits
        charge.waits = False

    def account(self, tenant: TenantId) -> Account:
        """A tenant's, to be looked at."""
        return self._accounts.get(tenant) or Account()

    def check(self, charges: Sequence[Charge]) -> None:
        """Assert that accounts count these, all that are live."""
        for tenant, account in self._accounts.items():
            assert account.live == sum(charge.tenant == tenant for charge in charges), tenant
            assert account.waiting == sum(charge.tenant == tenant and charge.waits for charge in charges), tenant

    def _forget_idle(self) -> None:
        """Who has nothing under way, and no charge ahead of the virtual time, would start there anyway."""
        self._accounts = {t: a for t, a in self._accounts.items() if a.live or a.finish_s > self._virtual_s}
