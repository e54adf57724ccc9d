"""Whose turn it is to join a pool's active set: fair between tenants, by rank (age) inside one.

A tenant's account is what its steps here were charged, plus what the workflows that it has inside are expected to
cost yet; the tenant with the lowest account comes first. So sizes need not be known: what a workflow turns out to cost
beyond expectation, its tenant's next one waits for. Kept up change by change: a step boundary looks at those in front.
What it guarantees is in docs/fairness.md. Called by `roster.py` and `stepbook.py`, asked by policies of the active set.
"""

from bisect import bisect_left, insort
from collections.abc import Callable, Iterator, Mapping
from heapq import heappop, heappush

from saga.admission.records import Workflow
from saga.admission.seats import Ranked
from saga.admission.weights import Weights
from saga.contract.ids import RootId, TenantId

IDLE_TENANTS = 10_000  # remembered with nothing in the pool
WAIT_BOUND_S = 300.0  # that a tenant may have workflows waiting and none inside

WorkLeft = Callable[[Workflow], float]  # modelled engine-seconds
Front = tuple[float, Ranked, TenantId]  # account, first in line, whose


class Account:
    """One tenant's in one pool. Times are engine-seconds per unit of weight."""

    __slots__ = ("asks", "line", "pledged", "pledged_s", "served_s")

    def __init__(self) -> None:
        self.served_s = 0.0  # charged so far, and what it was moved up by when it came back
        self.pledged_s = 0.0
        self.pledged: dict[RootId, float] = {}  # of each workflow inside: what is still expected
        self.line: list[Ranked] = []  # workflows outside with a step that waits
        self.asks: dict[RootId, float] = {}  # what each of those was expected to cost when it came

    @property
    def at_s(self) -> float:
        """Its place."""
        return self.served_s + self.pledged_s


class Turns:
    """The line before one pool's active set."""

    def __init__(
        self,
        workflows: Mapping[RootId, Workflow],
        weights: Weights,
        work_left_s: WorkLeft,
        wait_bound_s: float = WAIT_BOUND_S,
    ) -> None:
        self.weights = weights
        self._workflows = workflows
        self._work_left_s = work_left_s
        self._wait_bound_s = wait_bound_s
        self._now_s = 0.0  # as last told
        self._level_s = 0.0  # what the tenant had been charged that last had a workflow join in its turn
        self._accounts: dict[TenantId, Account] = {}
        self._fronts: list[Front] = []  # of tenants with a line, in order
        self._shut_out_since_s: dict[TenantId, float] = {}  # with a line and nobody inside, longest first

    # --- questions ---------------------------------------------------------------------------------------------

    def in_turn(self, now_s: float) -> Iterator[Ranked]:
        """Workflows outside with a step that waits, each after those whose turn comes before.

        Who would be next if those before had joined: a tenant's second comes after what its first is expected to cost.
        """
        self._now_s = max(self._now_s, now_s)
        first = self._overdue()
        yield from first
        passed = set(first)
        ahead: list[tuple[float, Ranked, TenantId, int]] = []
        fronts = iter(self._fronts)
        front = next(fronts, None)
        while front is not None or ahead:
            if front is not None and (not ahead or front <= ahead[0][:3]):
                at_s, place, tenant = front
                index = 0
                front = next(fronts, None)
            else:
                at_s, place, tenant, index = heappop(ahead)
            if place not in passed:
                yield place
            account = self._accounts[tenant]
            index += 1
            if index < len(account.line):
                heappush(ahead, (at_s + account.asks[place[1]], account.line[index], tenant, index))

    def before(self, one: Ranked, other: Ranked) -> bool:
        """Whose turn comes first, of two workflows inside or outside, whether they wait now or not."""
        whose, others = self._workflows[one[1]].tenant, self._workflows[other[1]].tenant
        if whose == others:
            return one < other
        return (self._at_s(whose), one) < (self._at_s(others), other)

    def ahead_s(self, most: int) -> dict[TenantId, float]:
        """By how much tenants with a line have been charged more than the one of them that was least; the furthest."""
        served = {tenant: self._accounts[tenant].served_s for _, _, tenant in tuple(self._fronts)}
        least_s = min(served.values(), default=0.0)
        furthest = sorted(served, key=lambda tenant: (-served[tenant], tenant))[:most]
        return {tenant: served[tenant] - least_s for tenant in furthest}

    def before_it(self, root: RootId, tenant: TenantId, most: int) -> tuple[int, int, list[RootId]]:
        """(workflows of its own tenant in line before it, tenants whose turn comes before its own, the first of each).

        All of its own tenant's where it is not in line itself. Changes nothing, unlike `in_turn`.
        """
        account = self._accounts.get(tenant)
        line = account.line if account is not None else []
        own = next((i for i, (_, other) in enumerate(line) if other == root), len(line))
        tenants = next((i for i, (_, _, other) in enumerate(self._fronts) if other == tenant), len(self._fronts))
        first = [place[1] for _, place, _ in self._fronts[: min(tenants, most)]]
        if own and line and len(first) < most:
            first.append(line[0][1])
        return own, tenants, first

    @property
    def waiting(self) -> set[RootId]:
        """Everybody in line."""
        return {root for account in self._accounts.values() for _, root in account.line}

    # --- changes -----------------------------------------------------------------------------------------------

    def at(self, now_s: float) -> None:
        """What time it is."""
        self._now_s = max(self._now_s, now_s)

    def charged(self, tenant: TenantId, normalised_s: float) -> None:
        """A step of the tenant costs this much more, per unit of weight (less: negative)."""
        account = self._account(tenant)
        with _Moving(self, tenant, account):
            account.served_s += normalised_s

    def waits(self, place: Ranked, tenant: TenantId) -> None:
        """A workflow outside has a step that waits. A tenant that had none in line cannot have saved up: it starts
        level with the first of those that wait, or with whoever joined last, in what was charged, not expected: an
        expectation that is wrong may cost a turn, and is forgotten."""
        account = self._account(tenant)
        at = bisect_left(account.line, place)
        if at < len(account.line) and account.line[at] == place:
            return
        with _Moving(self, tenant, account):
            if not account.line:
                level_s = self._accounts[self._fronts[0][2]].served_s if self._fronts else self._level_s
                account.served_s = max(account.served_s, level_s)
            account.line.insert(at, place)
            account.asks[place[1]] = self._expected_s(place[1], tenant)

    def leaves(self, place: Ranked, tenant: TenantId) -> None:
        """It does not wait any more: it joins, or its step is over."""
        account = self._account(tenant)
        at = bisect_left(account.line, place)
        if at < len(account.line) and account.line[at] == place:
            with _Moving(self, tenant, account):
                del account.line[at]
                del account.asks[place[1]]

    def joins(self, place: Ranked, tenant: TenantId) -> None:
        """It is inside from now on."""
        account = self._account(tenant)
        if not self._is_overdue(tenant):  # one that is let in by its wait says nothing
            self._level_s = account.served_s
        self.leaves(place, tenant)
        self.expects(place[1], tenant)

    def expects(self, root: RootId, tenant: TenantId) -> None:
        """What a workflow inside is expected to cost may have changed."""
        self._pledge(tenant, root, self._expected_s(root, tenant))

    def left(self, root: RootId, tenant: TenantId) -> None:
        """It is inside no more."""
        self._pledge(tenant, root, None)

    def check(self) -> None:
        """Assert what must hold between accounts and fronts."""
        fronts = [(a.at_s, a.line[0], tenant) for tenant, a in self._accounts.items() if a.line]
        assert self._fronts == sorted(fronts)
        shut_out = {tenant for tenant, a in self._accounts.items() if a.line and not a.pledged}
        assert set(self._shut_out_since_s) == shut_out
        for tenant, account in self._accounts.items():
            assert account.line == sorted(account.line)
            assert set(account.asks) == {root for _, root in account.line}
            assert account.served_s > -1e-6, f"{tenant}: {account.served_s}"
            drift_s = account.pledged_s - sum(account.pledged.values())
            assert abs(drift_s) < 1e-6 * (1.0 + account.pledged_s), (
                f"{tenant}: {drift_s} {account.pledged} {account.pledged_s}"
            )

    # --- inside ------------------------------------------------------------------------------------------------

    def _overdue(self) -> list[Ranked]:
        """The first in line of each tenant that has been shut out for too long, longest first."""
        found = []
        for tenant in self._shut_out_since_s:
            if not self._is_overdue(tenant):
                break
            found.append(self._accounts[tenant].line[0])
        return found

    def _is_overdue(self, tenant: TenantId) -> bool:
        return self._now_s - self._shut_out_since_s.get(tenant, self._now_s) > self._wait_bound_s

    def _account(self, tenant: TenantId) -> Account:
        account = self._accounts.get(tenant)
        if account is None:
            if len(self._accounts) >= IDLE_TENANTS:
                self._accounts = {t: a for t, a in self._accounts.items() if a.line or a.pledged}
            account = self._accounts[tenant] = Account()
            account.served_s = self._level_s
        return account

    def _at_s(self, tenant: TenantId) -> float:
        account = self._accounts.get(tenant)
        return account.at_s if account is not None else self._level_s

    def _expected_s(self, root: RootId, tenant: TenantId) -> float:
        return self._work_left_s(self._workflows[root]) / self.weights.of(tenant)

    def _pledge(self, tenant: TenantId, root: RootId, expected_s: float | None) -> None:
        account = self._account(tenant)
        known_s = account.pledged.get(root)
        if known_s == expected_s:
            return
        with _Moving(self, tenant, account):
            account.pledged_s += (expected_s or 0.0) - (known_s or 0.0)
            if expected_s is None:
                del account.pledged[root]
                if not account.pledged:
                    account.pledged_s = 0.0  # sums of floats drift
            else:
                account.pledged[root] = expected_s

    def step_aside(self, tenant: TenantId, account: Account) -> None:
        """An account is about to change: take it out of the order."""
        if account.line:
            del self._fronts[bisect_left(self._fronts, (account.at_s, account.line[0], tenant))]

    def step_back(self, tenant: TenantId, account: Account) -> None:
        """It has changed."""
        if account.line:
            insort(self._fronts, (account.at_s, account.line[0], tenant))
        if not account.line or account.pledged:
            self._shut_out_since_s.pop(tenant, None)
        else:
            self._shut_out_since_s.setdefault(tenant, self._now_s)


class _Moving:
    """An account's place in the order is kept while it changes."""

    def __init__(self, turns: Turns, tenant: TenantId, account: Account) -> None:
        self._turns, self._tenant, self._account = turns, tenant, account

    def __enter__(self) -> None:
        self._turns.step_aside(self._tenant, self._account)

    def __exit__(self, *_: object) -> None:
        self._turns.step_back(self._tenant, self._account)
