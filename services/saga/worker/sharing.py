"""The KV store that an engine shares with others, as its operator declares it. Pure.

SGLang says which storage backend it has behind its host tier, but not who else reaches the same store, nor how fast.
"""

from msgspec import structs

from saga.contract.errors import StartError
from saga.worker.events import EngineFacts


def with_shared_tier(facts: EngineFacts, tier: str, tokens_per_s: float, storage: str, url: str) -> EngineFacts:
    """The engine's facts with the declared tier; the same without one.

    `tokens_per_s`: of KV, read by the engine at `url`. `storage`: its backend, as it says itself. Raises StartError for
    an engine that has none: its steps would be placed by what it cannot read.
    """
    if not tier:
        return facts
    if not storage:
        raise StartError(
            f"SAGA_WORKER_SHARED_TIER={tier}, but {url} has no storage behind a host tier: start it with "
            "--enable-hierarchical-cache --hicache-storage-backend, or leave the setting out"
        )
    return structs.replace(facts, shared_tier=tier, shared_load_s_per_token=facts.speed / tokens_per_s)
