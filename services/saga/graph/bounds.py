"""What a message may say before it teaches anything: ids of a sane length, finite durations, bounded tokens. Pure."""

import math
from typing import Final

from saga.contract.messages import StepCancelled, StepFinished, StepReady
from saga.graph.sketch import LARGEST_S

MAX_ID_CHARS: Final = 256  # gateways make shorter ones
MAX_ENGINE_S: Final = 3_600.0
MAX_TOKENS: Final = 100_000_000
MAX_GROWTH_TOKENS: Final = 1_000_000
LATEST_AT: Final = 4_102_444_800.0  # the year 2100
AHEAD_S: Final = 24 * 3_600.0  # that one step may be newer than the newest before it


def sane(message: StepReady | StepFinished | StepCancelled) -> bool:
    """Whether its ids may be remembered."""
    return (
        len(message.root) <= MAX_ID_CHARS
        and len(message.session) <= MAX_ID_CHARS
        and len(message.step_id) <= MAX_ID_CHARS
        and len(message.tenant) <= MAX_ID_CHARS
        and (isinstance(message, StepCancelled) or len(message.agent_class) + len(message.parent) <= MAX_ID_CHARS)
    )


def seconds(value_s: float, most_s: float = LARGEST_S) -> float:
    """A duration within bounds; negative: unknown, as is what is no duration."""
    return min(value_s, most_s) if 0.0 <= value_s < math.inf else -1.0


def tokens(count: int, most: int = MAX_TOKENS) -> int:
    """A number of tokens within bounds."""
    return min(max(count, 0), most)


def newest(known_at: float, at: float) -> float:
    """Wall time of the newest step, after one at `at`: a clock that is far ahead does not hide what comes after it."""
    if not known_at < at < LATEST_AT:
        return known_at
    return min(at, known_at + AHEAD_S) if known_at else at
