"""The leases that are out on this worker: taken, renewed, ended, or expired because nobody renewed them. Pure.

Placement and the gateway own leases; this table only knows which requests may run here, so that a dead gateway's
requests end. Messages may be lost, doubled or late: an ended lease never comes back, an unknown one that somebody
renews by name of its step is taken in.
"""

from collections import OrderedDict
from typing import Final

import msgspec

from saga.contract.ids import LeaseId, SessionId, SessionTag, StepId
from saga.worker.deadlines import Deadlines

MAX_ENDED: Final = 8_192  # lease ids remembered so that late messages do not bring them back


class Lease(msgspec.Struct, frozen=True, gc=False):
    """One lease. Session and tag are empty when only a renewal told of it."""

    lease_id: LeaseId
    step_id: StepId
    attempt: int
    ttl_s: float
    session: SessionId = SessionId("")
    tag: SessionTag = SessionTag("")


class LeaseTable:
    """Leases by id, with the time at which each expires unless renewed."""

    __slots__ = ("_deadlines", "_default_ttl_s", "_ended", "_leases")

    def __init__(self, default_ttl_s: float) -> None:
        self._leases: dict[LeaseId, Lease] = {}
        self._deadlines: Deadlines[LeaseId] = Deadlines()
        self._ended: OrderedDict[LeaseId, None] = OrderedDict()
        self._default_ttl_s = default_ttl_s

    def take(self, lease: Lease, now_s: float) -> bool:
        """A gateway runs under this lease. False if it had ended already, or was known with its session."""
        if lease.lease_id in self._ended:
            return False
        known = self._leases.get(lease.lease_id)
        if known is not None and known.session:
            return False
        self._leases[lease.lease_id] = lease
        self._deadlines.set(lease.lease_id, now_s + lease.ttl_s)
        return True

    def renew(self, lease_id: LeaseId, now_s: float) -> None:
        """The gateway still holds it; an unknown id is ignored."""
        lease = self._leases.get(lease_id)
        if lease is not None:
            self._deadlines.set(lease_id, now_s + lease.ttl_s)

    def progress(self, lease_id: LeaseId, step_id: StepId, attempt: int, now_s: float) -> None:
        """The step moves. Its LeaseTaken may have been lost: the lease is taken in without a session."""
        if lease_id in self._leases:
            self.renew(lease_id, now_s)
        elif lease_id not in self._ended:
            self.take(Lease(lease_id, step_id, attempt, self._default_ttl_s), now_s)

    def end(self, lease_id: LeaseId) -> Lease | None:
        """The step finished, was cancelled or given back. The lease, if it was out."""
        self._ended[lease_id] = None
        if len(self._ended) > MAX_ENDED:
            self._ended.popitem(last=False)
        self._deadlines.drop(lease_id)
        return self._leases.pop(lease_id, None)

    def expire(self, now_s: float) -> list[Lease]:
        """Leases that nobody renewed in time; they have ended."""
        expired = (self.end(lease_id) for lease_id in self._deadlines.pop_due(now_s))
        return [lease for lease in expired if lease is not None]

    def clear(self) -> list[Lease]:
        """The engine died: nothing runs any more. The leases that were out."""
        out = [self.end(lease_id) for lease_id in list(self._leases)]
        return [lease for lease in out if lease is not None]

    def out(self, lease_id: LeaseId) -> bool:
        """Whether this lease is out."""
        return lease_id in self._leases

    def excuse(self, now_s: float) -> None:
        """Nobody could renew anything until now: every lease has its full time again."""
        for lease_id, lease in self._leases.items():
            self._deadlines.set(lease_id, now_s + lease.ttl_s)

    def not_before_s(self) -> float:
        """No lease expires before this: a bound that costs nothing."""
        return self._deadlines.not_before_s()

    def next_s(self) -> float:
        """When the next lease may expire."""
        return self._deadlines.next_s()

    def __len__(self) -> int:
        return len(self._leases)

    def check(self) -> None:
        """Raise AssertionError unless each lease out has a deadline and none of them has ended."""
        for lease_id in self._leases:
            if self._deadlines.at_s(lease_id) == float("inf"):
                raise AssertionError(f"lease {lease_id} never expires")
            if lease_id in self._ended:
                raise AssertionError(f"lease {lease_id} is out and has ended")
