"""The active-set policies by name."""

from saga.admission.policy import ActiveSetPolicy, Everybody, OldestThatFit
from saga.admission.worker_budgets import WorkerBudgets

POLICIES: dict[str, type[ActiveSetPolicy]] = {"saga": WorkerBudgets, "pool": OldestThatFit, "open": Everybody}


def policy_named(name: str, kv_share: float = 0.0) -> ActiveSetPolicy:
    """One of POLICIES. `kv_share`: of each worker's KV that `saga` fills; 0: it learns how much."""
    if name == "saga" and kv_share > 0.0:
        return WorkerBudgets(kv_share, learns=False)
    return POLICIES[name]()
