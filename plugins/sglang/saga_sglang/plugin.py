"""The entry point that SGLang calls in each of its processes before it reads its command line.

It makes `saga` an eviction policy that can be named there. The channel is opened when the scheduler builds its cache,
so an error ends the start of the server with a message.
"""

import logging
from pathlib import Path

from saga_sglang.channel import open_ring
from saga_sglang.policy import SagaStrategy
from saga_sglang.ring import RingReader

NAME = "saga"
log = logging.getLogger(__name__)


def register() -> None:
    """Add the policy. Called by SGLang's `load_plugins`."""
    from sglang.srt.arg_groups.choices import (  # type: ignore[import-not-found]  # noqa: PLC0415 - not in SAGA's own environment
        add_radix_eviction_policy_choices,
    )
    from sglang.srt.mem_cache.utils import (  # type: ignore[import-not-found]  # noqa: PLC0415 - the same
        _EVICTION_POLICY_FACTORIES,
    )

    if NAME not in _EVICTION_POLICY_FACTORIES:
        _EVICTION_POLICY_FACTORIES[NAME] = strategy
        add_radix_eviction_policy_choices([NAME])


def strategy(file: str = "") -> SagaStrategy:
    """The policy over the channel at `file`. Raises ValueError for what cannot work, OSError for a bad path."""
    from sglang.srt.mem_cache.unified_cache.component_type import (  # type: ignore[import-not-found]  # noqa: PLC0415 - as above
        ComponentType,
    )

    if not file:
        raise ValueError(
            """--radix-eviction-policy saga needs --radix-eviction-policy-config '{"file":"/dev/shm/NAME"}'"""
        )
    ranks = _ranks()
    if ranks > 1:
        raise ValueError(
            f"--radix-eviction-policy saga is for one rank per replica, not {ranks}: ranks of tensor or pipeline "
            "parallelism must evict the same, and read the values at different moments; use lru"
        )
    log.info("eviction by the retention values in %s", file)
    return SagaStrategy(RingReader(open_ring(Path(file))), int(ComponentType.FULL))


def _ranks() -> int:
    """Schedulers that hold shards of the same KV."""
    from sglang.srt.runtime_context import get_parallel  # type: ignore[import-not-found]  # noqa: PLC0415 - as above

    parallel = get_parallel()
    return int(parallel.tp_size) * int(parallel.pp_size)
