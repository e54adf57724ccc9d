"""Where a step starts. A policy sees workers and proposes one; the state validates and commits.

To add one: a class with `choose`, a line in POLICIES, a test that reads like a sentence.
"""

from collections.abc import Sequence
from typing import Protocol

from saga.contract.ids import WorkerId
from saga.contract.messages import StepReady
from saga.kernel.effects import Decision
from saga.placement.candidate import Candidate
from saga.placement.pricing import Priced
from saga.placement.routers import LeastLoaded, PrefixAware, RoundRobin


class PlacementPolicy(Protocol):
    """Chooses a worker for a step that has no home, or for every step."""

    @property
    def engine_queues(self) -> bool:
        """True: steps go to their worker at once and wait in the engine's own queue."""
        ...

    @property
    def stays_home(self) -> bool:
        """True: a session's later steps follow its first, and nobody is asked. False: asked for each step."""
        ...

    def choose(self, step: StepReady, candidates: Sequence[Candidate]) -> Decision[WorkerId]:
        """One of the candidates (there is at least one), and why."""
        ...


class SessionAffinity:
    """The published baseline: a session stays where it began, and begins where the fewest requests are.

    As the affinity policies of SGLang's and vLLM's routers: load is the number of requests running or waiting there,
    and there is no queue before the engines, so that each engine orders its own.
    """

    stays_home = True

    def __init__(self, *, engine_queues: bool = True) -> None:
        """`engine_queues` false: the same choice with our queues before the engines, for orders that act there."""
        self.engine_queues = engine_queues

    def choose(self, step: StepReady, candidates: Sequence[Candidate]) -> Decision[WorkerId]:  # noqa: ARG002 - the step has no say
        best = min(candidates, key=lambda c: (c.leases, c.homed_sessions, c.homed_tokens, c.worker_id))
        return Decision(best.worker_id, "least_loaded")


class CheapestStart:
    """The former default: the least engine-seconds for this prompt and for the returns of its session, without decode.

    A session stays where it begins, so its first worker is chosen for all its steps: a shared prefix that is resident
    saves one prefill, a crowded KV pool costs one at each return.
    """

    engine_queues = False
    stays_home = True
    RETURNS = 10.0  # of a new session: the order of magnitude of what coding agents do; a forecast will replace it

    def choose(self, step: StepReady, candidates: Sequence[Candidate]) -> Decision[WorkerId]:
        def price_s(c: Candidate, below_s: float) -> float:
            load_s = c.leased_engine_s + c.queued_engine_s
            if load_s > below_s:  # whatever the prompt costs there
                return load_s
            prompt_s = step.prompt_tokens * (c.prompt_s_per_token or 1e-4)
            prefill_s = prompt_s * (1.0 - c.cached_tokens / max(1, step.prompt_tokens))
            # The fuller a pool is, the likelier somebody's KV is gone at the next return: this session's or another's.
            # Squared, because contexts grow: half full costs little, full costs everybody.
            fullness = (c.homed_tokens + step.prompt_tokens) / c.kv_tokens
            displaced_s = self.RETURNS * prompt_s * fullness * fullness
            return prefill_s + displaced_s + c.leased_engine_s + c.queued_engine_s

        best, best_s = candidates[0], float("inf")
        for candidate in candidates:
            this_s = price_s(candidate, best_s)
            if this_s < best_s or (this_s == best_s and _order(candidate) < _order(best)):
                best, best_s = candidate, this_s
        return Decision(best.worker_id, "resident_prefix" if best.cached_tokens else "cheapest_start")


def _order(candidate: Candidate) -> tuple[int, WorkerId]:
    """Of equally good ones."""
    return candidate.homed_sessions, candidate.worker_id


POLICIES: dict[str, type[PlacementPolicy]] = {
    "saga": Priced,
    "cheapest-start": CheapestStart,
    "session-affinity": SessionAffinity,
    "round-robin": RoundRobin,
    "least-loaded": LeastLoaded,
    "prefix-aware": PrefixAware,
}
