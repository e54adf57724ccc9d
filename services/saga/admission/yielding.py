"""Who yields when the members of a worker have outgrown it. Called by `worker_budgets.py`.

The youngest of the tenant that holds most KV there for its weight, and so on: with one tenant, the youngest. By what is
held and not by what was charged, because a pause moves the former towards balance and would turn the latter round: two
tenants would pause each other at every step.
"""

from collections.abc import Iterator, Sequence

from saga.admission.policy import Claims
from saga.admission.seats import Ranked
from saga.contract.ids import TenantId


def yielding(claims: Claims, members: Sequence[Ranked]) -> Iterator[Ranked]:
    """Members of one worker in the order in which they would be paused. `members`: in the order of their rank."""
    by_tenant: dict[TenantId, list[Ranked]] = {}
    for member in members:
        by_tenant.setdefault(claims.workflows[member[1]].tenant, []).append(member)
    weights = claims.turns.weights
    held = {
        tenant: sum(claims.needs[root][0] for _, root in own) / weights.guaranteed(tenant)
        for tenant, own in by_tenant.items()
    }
    while by_tenant:
        tenant = max(by_tenant, key=lambda t: (held[t], by_tenant[t][-1]))
        member = by_tenant[tenant].pop()
        held[tenant] -= claims.needs[member[1]][0] / weights.guaranteed(tenant)
        if not by_tenant[tenant]:
            del by_tenant[tenant]
        yield member
