"""How long a session's tag stays open in the gap after a step, and what it is worth: the choices by name.

`saga` is ours; `values` is the same for an engine with our eviction plugin. `tags` goes by the forecast time alone.
`walru`, `ttl` and `paper` are the published rules, `lru` leaves the engine's own order alone: no session is tagged.
Not the books of tags (`tags`), nor who asks (`keeping`).
"""

from collections.abc import Callable
from typing import Final

from saga.contract.errors import StartError
from saga.worker.idle import UNLIKELY_RETURN, Idle, RetentionPolicy
from saga.worker.policies.lru import Lru
from saga.worker.policies.paper import Paper
from saga.worker.policies.saga import Saga, Values
from saga.worker.policies.tags import Tags
from saga.worker.policies.ttl import Ttl
from saga.worker.policies.walru import WaLru

__all__ = [
    "POLICIES", "UNLIKELY_RETURN", "Idle", "Lru", "Paper", "RetentionPolicy", "Saga", "Tags", "Ttl", "Values", "WaLru",
    "policy_named",
]  # fmt: skip

POLICIES: Final[dict[str, Callable[[float, float], RetentionPolicy]]] = {
    "saga": Saga,
    "values": Values,
    "tags": Tags,
    "walru": WaLru,
    "ttl": Ttl,
    "paper": Paper,
    "lru": Lru,
}


def policy_named(name: str, default_s: float, cap_s: float) -> RetentionPolicy:
    """The policy of that name. Raises StartError that lists the known ones."""
    policy = POLICIES.get(name)
    if policy is None:
        raise StartError(f"SAGA_WORKER_RETENTION={name!r}: no such policy; known are {', '.join(sorted(POLICIES))}")
    return policy(default_s, cap_s)
