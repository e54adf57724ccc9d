"""Where a step without a home starts. A policy sees workers and proposes one; the state validates and commits.

To add one: a class with `choose`, a line in POLICIES, a test that reads like a sentence.
"""

from collections.abc import Sequence
from typing import Protocol

import msgspec

from saga.contract.ids import WorkerId
from saga.contract.messages import StepReady
from saga.kernel.effects import Decision


class Candidate(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """A worker with room for the step, as a policy sees it."""

    worker_id: WorkerId
    cached_tokens: int  # of the step's prompt, resident there
    leases: int
    leased_engine_s: float  # modelled work of what runs there
    homed_tokens: int  # context of the sessions at home there
    homed_sessions: int
    kv_tokens: int
    prompt_s_per_token: float


class PlacementPolicy(Protocol):
    """Chooses a worker for a step that has no home."""

    engine_queues: bool  # true: steps go to their worker at once and wait in the engine's own queue

    def choose(self, step: StepReady, candidates: Sequence[Candidate]) -> Decision[WorkerId]:
        """One of the candidates (there is at least one), and why."""
        ...


class SessionAffinity:
    """The published baseline: a session stays where it began, and begins on the least loaded worker.

    As SGLang's and vLLM's affinity routers: no queue before the engines, so that each engine orders its own.
    """

    engine_queues = True

    def choose(self, step: StepReady, candidates: Sequence[Candidate]) -> Decision[WorkerId]:  # noqa: ARG002 - the step has no say
        best = min(candidates, key=lambda c: (c.homed_tokens / c.kv_tokens, c.leases, c.homed_sessions, c.worker_id))
        return Decision(best.worker_id, "least_loaded")


class CheapestStart:
    """The default: the least engine-seconds until the prompt is in, counting the KV that it would displace."""

    engine_queues = False

    def choose(self, step: StepReady, candidates: Sequence[Candidate]) -> Decision[WorkerId]:
        def price_s(c: Candidate) -> float:
            prefill_s = (step.prompt_tokens - c.cached_tokens) * (c.prompt_s_per_token or 1e-4)
            # What is at home there competes for the KV that this session will need: a full worker will soon
            # have to prefill either this prompt or somebody else's again.
            displaced_s = (c.homed_tokens / c.kv_tokens) * step.prompt_tokens * (c.prompt_s_per_token or 1e-4)
            return prefill_s + displaced_s + c.leased_engine_s

        best = min(candidates, key=lambda c: (price_s(c), c.homed_sessions, c.worker_id))
        return Decision(best.worker_id, "resident_prefix" if best.cached_tokens else "cheapest_start")


POLICIES: dict[str, type[PlacementPolicy]] = {"saga": CheapestStart, "session-affinity": SessionAffinity}
