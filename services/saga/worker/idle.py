"""What a retention policy is, and what it sees of a session between two steps. Data only.

The policies are in `policies`, by name in `retention`; `keeping` asks them.
"""

from typing import Final, Protocol

import msgspec

from saga.contract.messages import Forecast, ReleaseReason
from saga.kernel.effects import Decision

UNLIKELY_RETURN: Final = 0.02  # below this a session that may come back is not worth keeping
FOREVER_S: Final = float("inf")


class Idle(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """A session whose step has ended, as its worker sees it."""

    final: bool = False  # the step was the workflow's last
    ended_s: float = 0.0  # on the worker's clock
    now_s: float = 0.0  # on the same
    context_tokens: int = 0  # prompt and answer of the step; 0: its end was not heard
    speed: float = 1.0  # of the engine's time, by which what is set in engine-seconds is divided
    used_share: float = 0.0  # of the engine's KV, idle sessions included


class RetentionPolicy(Protocol):
    """Chooses the seconds for which an idle session keeps its tag, and what it is worth meanwhile.

    Classes that implement it need not say what is the default here if they inherit from it.
    """

    tags: bool = True
    """Whether sessions are tagged at all."""
    tells: bool = False
    """Whether the engine is told what sessions are worth: it takes our plugin to listen."""
    room_share: float = FOREVER_S
    """Of the engine's KV that tagged sessions may fill together: beyond it the tag that is worth least is closed."""

    outlives: frozenset[ReleaseReason] = frozenset()
    """Releases that leave a session's tag to `value`: it has no claim to its KV, but may well come back to it."""

    def keep_s(self, forecast: Forecast | None, idle: Idle) -> Decision[float]:
        """Real seconds from the step's end. `forecast`: of this gap; None until one comes."""
        ...

    def value(self, forecast: Forecast | None, idle: Idle) -> float | None:
        """What keeping it is worth now: higher is kept longer. None: nothing to say, the engine goes by age alone."""
        del forecast, idle
        return None

    def good_s(self, forecast: Forecast | None, idle: Idle) -> float:
        """Seconds from now after which `value` should be asked again."""
        del forecast, idle
        return FOREVER_S
