"""When KV that was let go to the host tier is to be loaded back before its session returns: the choice alone. Pure.

A request without output loads it (`ahead` keeps the books, the session's gateway sends it). What it brings waits on the
device, and what it saves is the load, so it is worth it once returns per second of waiting (`gap.index`) exceed one
over the break-even gap: the time in which a context's room costs as much as its load, `kv_tokens * load_s_per_token`.
That is a second or two, so only a return that is known to the second pays; gaps that get likelier to go on the longer
they last, as those of people and of most tools, never do.
"""

from typing import Final, Protocol

import msgspec

from saga.contract.errors import StartError
from saga.contract.messages import Forecast, WorkerHello
from saga.kernel.effects import Decision
from saga.worker.gap import curve, index

NEVER_S: Final = float("inf")
CLEARLY: Final = 4.0  # times as quick as prefill: below this the tier saves too little to guess
LEAST_LOAD_S: Final = 0.02  # engine-seconds: a load that short hides in any iteration


class HostLink(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """What an engine says of its host tier."""

    kv_tokens: int  # of the device
    load_s_per_token: float  # engine-seconds; 0: no tier, or unknown
    prompt_s_per_token: float  # engine-seconds of prefill; 0: unknown
    speed: float = 1.0  # engine-seconds per second

    @classmethod
    def of(cls, hello: WorkerHello) -> "HostLink":
        """That of a worker."""
        return cls(
            kv_tokens=hello.kv_tokens,
            load_s_per_token=hello.load_s_per_token if hello.host_kv_tokens else 0.0,
            prompt_s_per_token=hello.cost.prompt_s_per_token,
            speed=hello.speed,
        )

    def load_s(self, tokens: int) -> float:
        """Real seconds to load so many tokens."""
        return tokens * self.load_s_per_token / self.speed


class PrefetchPolicy(Protocol):
    """Chooses when."""

    def ask_s(self, forecast: Forecast | None, away_s: float, tokens: int, link: HostLink) -> Decision[float]:
        """How long after the step's end to ask for `tokens` tokens of a session that has been away for `away_s`;
        NEVER_S: not in this gap."""
        ...


class NearReturn:
    """Once the return is so near and sure that the room which it waits in costs less than the load."""

    def ask_s(self, forecast: Forecast | None, away_s: float, tokens: int, link: HostLink) -> Decision[float]:
        """As PrefetchPolicy."""
        if not link.load_s_per_token:
            return Decision(NEVER_S, "no_host_tier")
        if link.load_s_per_token * CLEARLY > link.prompt_s_per_token:
            return Decision(NEVER_S, "prefill_is_as_quick")
        load_s = link.load_s(tokens)
        if load_s * link.speed < LEAST_LOAD_S:
            return Decision(NEVER_S, "short")
        if forecast is None or not forecast.samples:
            return Decision(NEVER_S, "unknown")
        least = 1.0 / link.load_s(link.kv_tokens)
        of = curve(forecast)
        for at_s, _ in of[1]:
            if at_s >= away_s and index(of, at_s) >= least:
                return Decision(max(away_s, at_s - load_s), "near_return")
        return Decision(NEVER_S, "unsure")


POLICIES: Final[dict[str, type[PrefetchPolicy] | None]] = {"saga": NearReturn, "off": None}


def prefetch_named(name: str) -> PrefetchPolicy | None:
    """The policy of that name; None for `off`. Raises StartError that lists the known ones."""
    if name not in POLICIES:
        raise StartError(f"SAGA_WORKER_PREFETCH={name!r}: no such policy; known are {', '.join(sorted(POLICIES))}")
    policy = POLICIES[name]
    return policy() if policy is not None else None
