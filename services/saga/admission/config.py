"""Settings of admission, read once from SAGA_ADMISSION_* by `__main__`."""

from typing import Final

import msgspec

from saga.runtime.config import DEFAULT_NATS_URL

PREFIX: Final = "SAGA_ADMISSION_"
MOST_KV_SHARE: Final = 2.0  # more than one: answers are shorter than their limit, prefixes are shared


class AdmissionSettings(msgspec.Struct, frozen=True, kw_only=True):
    """What one admission process is told. Leader and standbys must be told the same."""

    nats_url: str = DEFAULT_NATS_URL
    cell: str = "main"
    id: str = ""  # unique in the cell; empty: random
    policy: str = "saga"  # of the active set, see saga.admission.policies
    kv_share: float = 0.0  # of each worker's KV that the policy `saga` fills; 0: it learns how much
    order: str = "fair"  # of steps, see saga.admission.order
    rank: str = "age"  # of the workflows of one tenant, see saga.admission.ranks
    max_waiting_steps: int = 10_000  # more are refused with 429
    max_workflows: int = 100_000  # remembered, of all tenants; more are refused with 429
    max_workflows_per_tenant: int = 25_000  # the same, of one
    max_wait_s: float = 600.0  # that a step may wait for its workflow's turn
    infer_end_s: float = 0.0  # of silence after answers that call no tool: the workflow is over; 0: only after an hour
    speed: float = 1.0  # of simulated engines and of the agents that use them: `saga bench live --speed`; else 1
    weights: tuple[str, ...] = ()  # "tenant=weight", where `saga tenants` says nothing; a tenant not named has weight 1

    def __post_init__(self) -> None:
        """Raises ValueError naming the setting."""
        for name in ("max_waiting_steps", "max_workflows", "max_workflows_per_tenant", "max_wait_s"):
            if getattr(self, name) <= 0:
                raise ValueError(f"{PREFIX}{name.upper()} must be positive")
        if not 0 < self.speed < float("inf"):
            raise ValueError(f"{PREFIX}SPEED must be a positive number")
        if not 0 <= self.infer_end_s < float("inf"):
            raise ValueError(f"{PREFIX}INFER_END_S must be a number of seconds, or 0")
        if not 0 <= self.kv_share <= MOST_KV_SHARE:
            raise ValueError(f"{PREFIX}KV_SHARE must be a share up to {MOST_KV_SHARE:g}, or 0 to let it be learnt")
        self.tenant_weights()

    def tenant_weights(self) -> dict[str, float]:
        """The weights, by tenant."""
        weights: dict[str, float] = {}
        for entry in self.weights:
            tenant, equals, weight = entry.partition("=")
            try:
                weights[tenant] = float(weight)
            except ValueError:
                equals = ""
            if not equals or not tenant or not 0 < weights[tenant] < float("inf"):
                raise ValueError(f"{PREFIX}WEIGHTS: {entry!r} is not tenant=weight with a positive weight")
        return weights
