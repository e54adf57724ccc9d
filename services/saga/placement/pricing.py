"""What a step costs on each worker, in seconds of delay: its own, and that of those it would share the engine with.

A session stays where it begins, so its home is priced for its returns too. Pure arithmetic on what a `Candidate` says;
asked by the `saga` policies of placing and of stealing. A price is kept with the step, so that a placement can be
explained afterwards.
"""

from collections.abc import Sequence
from heapq import nsmallest
from typing import Final

import msgspec

from saga.contract.ids import NO_WORKER, WorkerId
from saga.contract.messages import StepReady
from saga.kernel.effects import Decision
from saga.placement.candidate import Candidate

RETURNS: Final = 10.0  # of a new session: the order of magnitude of what coding agents do
OUTPUT_TOKENS: Final = 256  # of a usual answer, by the same order of magnitude
BATCH: Final = 32  # sequences over which a profile spreads what a pass costs: `saga.engine.profile.NOMINAL_BATCH`
UNKNOWN_PROMPT_S: Final = 1e-4  # per token, of an engine that has not said
MOST_PRICED: Final = 8  # of the workers of one kind that hold nothing of a step, and of those that hold some
EXPLAINED: Final = 6  # prices kept with a decision: the chosen, and the cheapest


class Price(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """Of one step on one worker; seconds."""

    worker_id: WorkerId
    wait_s: float  # until it may start there
    prefill_s: float  # of what is not resident there
    load_s: float  # of what is resident, but in the host tier
    shared_s: float  # of reading from a tier that it shares what is not resident there; its engine goes on
    decode_s: float  # of its answers, and of its session's to come, beside what runs there now
    interference_s: float  # for those that run there: they stall while it is prefilled, their passes read its context
    behind_s: float = 0.0  # for those who wait behind it there: each starts later by its work
    displaced_s: float  # of prefilling again what it, or what it pushes out, has lost by its returns

    @property
    def total_s(self) -> float:
        """All of it."""
        return self.now_s + self.decode_s + self.interference_s + self.behind_s + self.displaced_s

    @property
    def now_s(self) -> float:
        """Of this step alone, to whoever pays: what a move must save."""
        return self.wait_s + self.prefill_s + self.load_s + self.shared_s


class Placed(Decision[WorkerId], frozen=True, gc=False):
    """A choice of worker, its reason, and what the best ones would have cost."""

    prices: tuple[Price, ...] = ()


def wait_s(candidate: Candidate, needs_tokens: int) -> float:
    """How long until a step that needs so much KV may start there. What runs ends about evenly spread over the work
    under way; what waits there goes first."""
    c = candidate
    fits = c.leased_tokens + needs_tokens <= c.kv_tokens and c.leases < c.slots
    if not c.leases or (fits and not c.queued_steps):
        return 0.0
    return (c.leased_engine_s / c.leases + c.queued_engine_s) / c.speed


def price(step: StepReady, candidate: Candidate, *, returns: float = RETURNS) -> Price:
    """Of this step there. `returns`: steps to come for which it is the session's home."""
    c = candidate
    prompt_tokens, output_tokens = step.prompt_tokens, min(OUTPUT_TOKENS, step.max_output_tokens)
    prompt_s = c.prompt_s_per_token or UNKNOWN_PROMPT_S
    resident_tokens = max(c.cached_tokens, c.coming_tokens)
    shared_tokens = max(0, c.cached_tokens + c.shared_tokens - resident_tokens)
    prefill_s = max(0, prompt_tokens - resident_tokens - shared_tokens) * prompt_s
    beyond_device = max(0.0, 1.0 - c.kv_tokens / c.homed_tokens) if c.homed_tokens else 0.0
    answers = (1.0 + returns) * output_tokens
    # Whoever is at home there runs there again and again: what runs this moment says less. Contexts grow to the usual.
    batch_tokens = max(c.leased_tokens, min(c.homed_tokens, c.kv_tokens))
    sharers = max(c.leases, c.homed_sessions)
    context_tokens = max(prompt_tokens, c.homed_tokens // max(1, c.homed_sessions))
    pass_s = BATCH * c.output_s_per_token + batch_tokens * c.context_s_per_token
    # The fuller a pool is, the likelier somebody's KV is gone at the next return: this session's or another's. Squared,
    # because contexts grow: half full costs little, full costs everybody.
    fullness = (c.homed_tokens + prompt_tokens) / c.kv_tokens
    return Price(
        worker_id=c.worker_id,
        wait_s=wait_s(c, prompt_tokens + output_tokens),
        prefill_s=prefill_s / c.speed,
        load_s=c.cached_tokens * c.load_s_per_token * beyond_device / c.speed,
        shared_s=shared_tokens * c.shared_load_s_per_token / c.speed,
        decode_s=answers * pass_s / c.speed,
        interference_s=(c.leases * prefill_s + sharers * answers * context_tokens * c.context_s_per_token) / c.speed,
        behind_s=c.behind_engine_s / c.speed,
        displaced_s=returns * prompt_tokens * prompt_s * fullness * fullness / c.speed,
    )


def shortlist(step: StepReady, candidates: Sequence[Candidate]) -> list[Candidate]:
    """Those worth a price: home, the warmest, and of each kind of worker those with the least work and contexts.

    Among equal workers that hold nothing of the step, a price rises with just these two, so nothing is lost by it; to
    price a thousand would take longer than the choice may.
    """
    if len(candidates) <= 2 * MOST_PRICED:
        return list(candidates)
    kinds: dict[tuple[float, int], list[Candidate]] = {}
    warm: list[Candidate] = []
    listed: list[Candidate] = []
    for c in candidates:
        if c.is_home:
            listed.append(c)
        elif c.cached_tokens or c.coming_tokens:
            warm.append(c)
        else:
            kinds.setdefault((c.prompt_s_per_token, c.kv_tokens), []).append(c)

    def rough_s(c: Candidate) -> float:
        fullness = (c.homed_tokens + step.prompt_tokens) / c.kv_tokens
        displaced_s = RETURNS * step.prompt_tokens * c.prompt_s_per_token * fullness * fullness
        return c.leased_engine_s + c.queued_engine_s + displaced_s

    for cold in kinds.values():
        listed += nsmallest(MOST_PRICED, cold, key=rough_s)
    held = {c.worker_id: max(c.cached_tokens, c.coming_tokens) * c.prompt_s_per_token for c in warm}
    return listed + nsmallest(MOST_PRICED, warm, key=lambda c: rough_s(c) - held[c.worker_id])


class Priced:
    """The default: the lowest price, home by preference.

    Sessions that share a prefix meet where it is resident, or on its way, because that spares its prefill. When that
    worker is so hot that waiting and interfering there cost clearly more, the next one prefills the prefix once more
    and the two share what comes. `clearly`: by which share of the whole price, decoding included, so that a prefix is
    copied on purpose, not by a moment's noise, and a session is not sent away from its workflow's budget for little.
    """

    engine_queues = False
    stays_home = True

    def __init__(self, clearly: float = 0.2) -> None:
        self._clearly = clearly

    def choose(self, step: StepReady, candidates: Sequence[Candidate]) -> Placed:
        """As PlacementPolicy."""
        worth_pricing = shortlist(step, candidates)
        prices = sorted((price(step, c) for c in worth_pricing), key=lambda p: (p.total_s, p.worker_id))
        best = prices[0]
        cached = {c.worker_id: max(c.cached_tokens, c.coming_tokens) for c in worth_pricing}
        warmest = max(cached.values())
        home = next((c.worker_id for c in worth_pricing if c.is_home), NO_WORKER)
        stays = home
        if not home and warmest:
            stays = next(p.worker_id for p in prices if cached[p.worker_id] == warmest)
        if stays and stays != best.worker_id:
            there = next(p for p in prices if p.worker_id == stays)
            if there.total_s <= (1.0 + self._clearly) * best.total_s:
                best = there
        told = (best, *[p for p in prices[:EXPLAINED] if p is not best])
        return Placed(best.worker_id, _reason(best.worker_id, home, cached, warmest), told)


def _reason(chosen: WorkerId, home: WorkerId, cached: dict[WorkerId, int], warmest: int) -> str:
    if chosen == home:
        return "home"
    if cached[chosen]:
        return "resident_prefix"
    return "replicates_prefix" if warmest else "cheapest_start"
