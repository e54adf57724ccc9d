"""What a step's worker was chosen from, kept as the policy saw it, and put into words only when somebody asks."""

from collections.abc import Sequence
from heapq import nsmallest
from typing import Final

from msgspec import Struct, structs

from saga.contract.ids import WorkerId
from saga.contract.why_messages import Fact, Weighed
from saga.kernel.effects import Decision
from saga.placement.candidate import Candidate

OTHERS_TOLD: Final = 6  # candidates that were not chosen: those with a price or a part of the prompt, the least loaded
MOST_COMPARED: Final = 64  # to find these; of more, any


class Choice:
    """One question to a policy, and its answer."""

    __slots__ = ("_best", "_others", "_prices", "chosen")

    def __init__(self, candidates: Sequence[Candidate], decision: Decision[WorkerId]) -> None:
        """A policy that decides by prices tells them with its decision."""
        self.chosen = decision.choice
        self._prices: dict[WorkerId, Struct] = {p.worker_id: p for p in getattr(decision, "prices", ())}
        self._best = next(c for c in candidates if c.worker_id == self.chosen)
        rest = [c for c in candidates if c is not self._best]
        if self._prices:
            rest = [c for c in rest if c.worker_id in self._prices]
        self._others = nsmallest(OTHERS_TOLD, rest, _interest) if len(rest) <= MOST_COMPARED else rest[:OTHERS_TOLD]

    def told(self) -> list[Weighed]:
        """The chosen one first."""
        return [self._weighed(self._best, chosen=True), *(self._weighed(c, chosen=False) for c in self._others)]

    def _weighed(self, candidate: Candidate, *, chosen: bool) -> Weighed:
        price = self._prices.get(candidate.worker_id)
        priced = structs.asdict(price) if price is not None else {}
        terms: dict[str, Fact] = {name: round(value, 4) for name, value in priced.items() if name != "worker_id"}
        terms |= {
            "home": int(candidate.is_home),
            "cached_tokens": candidate.cached_tokens,
            "running": candidate.leases,
            "queued": candidate.queued_steps,
            "running_engine_s": round(candidate.leased_engine_s, 3),
            "queued_engine_s": round(candidate.queued_engine_s, 3),
            "homed_tokens": candidate.homed_tokens,
            "kv_tokens": candidate.kv_tokens,
        }
        return Weighed(worker=candidate.worker_id, chosen=chosen, terms=terms)


def told(
    choice: Choice | None, worker_id: WorkerId, reason: str, barred: Sequence[tuple[WorkerId, str]]
) -> tuple[Weighed, ...]:
    """What a Grant to this worker was chosen from. `choice`: None, or another's, where no policy was asked for it."""
    found = choice.told() if choice is not None else []
    if choice is None or choice.chosen != worker_id:
        others = [structs.replace(one, chosen=False) for one in found if one.worker != worker_id]
        found = [Weighed(worker=worker_id, chosen=True, terms={"reason": reason}), *others]
    return (*found, *(Weighed(worker=worker, barred=why) for worker, why in barred))


def _interest(candidate: Candidate) -> tuple[bool, float, WorkerId]:
    """Those with a part of the prompt or of the session first, then the least loaded."""
    plain = not (candidate.cached_tokens or candidate.is_home)
    return plain, candidate.leased_engine_s + candidate.queued_engine_s, candidate.worker_id
