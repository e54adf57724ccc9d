"""The active-set policies by name."""

from saga.admission.policy import ActiveSetPolicy, Everybody, OldestThatFit
from saga.admission.worker_budgets import WorkerBudgets

POLICIES: dict[str, type[ActiveSetPolicy]] = {"saga": WorkerBudgets, "pool": OldestThatFit, "open": Everybody}
