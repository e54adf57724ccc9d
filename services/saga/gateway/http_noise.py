"""Says what noise at the head of prompts costs: metrics, a log line for each agent class, a header for who asks."""

from collections.abc import Mapping
from typing import Final

from saga.contract.ids import TenantId
from saga.gateway.hygiene import Seen
from saga.gateway.receipts import EXPLAIN, wanted
from saga.runtime import metrics
from saga.runtime.log import get_logger

NOISE: Final = "X-Saga-Prefix-Noise"
STEPS: Final = metrics.counter(
    "saga_gateway_prefix_noise_steps_total", "Steps whose prompt's head differed without meaning to", ["noise"]
)
TOKENS: Final = metrics.counter(
    "saga_gateway_prefix_noise_tokens_total", "Tokens computed again because of it, by what differed first", ["noise"]
)
log = get_logger()


def told_noise(seen: Seen, tenant: TenantId) -> None:
    """Counts; and logs a class at its 1st, 2nd, 4th, 8th, ... noisy step."""
    if not seen.noises:
        return
    for noise in seen.noises:
        STEPS.labels(noise).inc()
    TOKENS.labels(seen.noises[0]).inc(seen.tokens)
    if seen.steps & (seen.steps - 1) == 0:
        log.warning(
            "prefix.noise",
            tenant=tenant,
            agent_class=seen.agent_class,
            noise=",".join(seen.noises),
            tokens=seen.tokens,
            steps=seen.steps,
            all_tokens=seen.all_tokens,
        )


def receipt_of(seen: Seen, headers: Mapping[str, str]) -> dict[str, str]:
    """A header of the answer, for who sends X-Saga-Explain."""
    if not seen.noises or not wanted(headers.get(EXPLAIN)):
        return {}
    return {NOISE: f"{','.join(seen.noises)}; tokens={seen.tokens}"}
