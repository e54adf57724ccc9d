"""Baselines that know no sessions: routers of requests, asked for each step; the engines order their own queues."""

from collections.abc import Sequence

from saga.contract.ids import WorkerId
from saga.contract.messages import StepReady
from saga.kernel.effects import Decision
from saga.placement.candidate import Candidate
from saga.placement.pricing import Priced


class RoundRobin:
    """Each request to the next worker."""

    engine_queues = True
    stays_home = False

    def __init__(self) -> None:
        self._next = 0

    def choose(self, step: StepReady, candidates: Sequence[Candidate]) -> Decision[WorkerId]:  # noqa: ARG002 - the step has no say
        self._next += 1
        return Decision(candidates[self._next % len(candidates)].worker_id, "next")


class LeastLoaded:
    """Each request to the worker with the least outstanding work, running or queued in the engine."""

    stays_home = False

    def __init__(self, *, engine_queues: bool = True) -> None:
        """`engine_queues` false: the same choice with our queues before the engines."""
        self.engine_queues = engine_queues

    def choose(self, step: StepReady, candidates: Sequence[Candidate]) -> Decision[WorkerId]:  # noqa: ARG002 - the step has no say
        best = min(candidates, key=lambda c: (c.leases, c.leased_engine_s, c.worker_id))
        return Decision(best.worker_id, "least_loaded")


class PrefixAware:
    """SGLang's cache-aware router: to the longest resident prefix, unless loads differ too much or little would hit."""

    engine_queues = True
    stays_home = False
    IMBALANCE_REQUESTS = 64  # --balance-abs-threshold
    IMBALANCE_RATIO = 1.5  # --balance-rel-threshold
    LEAST_HIT = 0.3  # --cache-threshold

    def choose(self, step: StepReady, candidates: Sequence[Candidate]) -> Decision[WorkerId]:
        least = min(candidates, key=lambda c: (c.leases, c.leased_engine_s, c.worker_id))
        most = max(c.leases for c in candidates)
        if most - least.leases > self.IMBALANCE_REQUESTS and most > self.IMBALANCE_RATIO * least.leases:
            return Decision(least.worker_id, "imbalance")
        best = max(candidates, key=lambda c: (c.cached_tokens, -c.leases, c.worker_id))
        if best.cached_tokens > self.LEAST_HIT * step.prompt_tokens:
            return Decision(best.worker_id, "resident_prefix")
        return Decision(least.worker_id, "least_loaded")


class PricedRouter(Priced):
    """The default policy's homes, and no queue before the engines: what its prices are worth to a plain router."""

    engine_queues = True
