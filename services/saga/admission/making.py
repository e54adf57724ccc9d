"""What an admission core is made from, and how: for the service that runs it and for whoever replays its recording."""

from typing import Final, get_args

import msgspec

from saga.admission.door import Bounds
from saga.admission.events import AdmissionEvent
from saga.admission.order import ORDERS
from saga.admission.policies import policy_named
from saga.admission.ranks import RANKS
from saga.admission.state import AdmissionState
from saga.contract.ids import TenantId
from saga.contract.subjects import Subjects

EVENTS: Final[tuple[type[msgspec.Struct], ...]] = get_args(AdmissionEvent)


class Making(msgspec.Struct, frozen=True, kw_only=True):
    """Everything that tells one admission core from another at its birth."""

    cell: str
    policy: str  # one of POLICIES
    order: str = "fair"  # one of ORDERS
    rank: str = "age"  # one of RANKS
    wall_offset_s: float
    max_waiting_steps: int
    max_wait_s: float
    weights: dict[str, float]  # by tenant, where nothing else is said of it
    max_workflows: int = Bounds().max_workflows
    max_workflows_per_tenant: int = Bounds().max_workflows_per_tenant
    infer_end_s: float = 0.0
    speed: float = 1.0  # of simulated engines and their agents
    kv_share: float = 0.0  # of a worker's, for the active set; 0: learnt


def make_core(making: Making) -> AdmissionState:
    """A core that has not heard anything yet."""
    bounds = Bounds(
        max_waiting_steps=making.max_waiting_steps,
        max_workflows=making.max_workflows,
        max_workflows_per_tenant=making.max_workflows_per_tenant,
    )
    return AdmissionState(
        Subjects(making.cell),
        policy_named(making.policy, making.kv_share),
        ORDERS[making.order](),
        RANKS[making.rank](),
        wall_offset_s=making.wall_offset_s,
        bounds=bounds,
        weights={TenantId(tenant): weight for tenant, weight in making.weights.items()},
        max_wait_s=making.max_wait_s,
        infer_end_s=making.infer_end_s,
        speed=making.speed,
        stories=True,
    )
