"""Prefill that was done again by our own doing: booked to the cell, not to the tenant. Called by `stepbook.py`.

A session that was paused, moved or evicted while it had a claim to its KV comes back to find it gone. Its tenant pays
for its step as if that had not happened; the rest is overhead, by cause. A session that stayed away for longer than its
claim, or whose prompt was rewritten, pays for its prefill itself.
"""

from typing import Final

from saga.admission.records import Session, Step
from saga.admission.roster import Pool

PAUSED: Final = "paused"  # it left the active set in a gap
MOVED: Final = "moved"  # its workflow was bound to another worker, or its step was stolen
EVICTED: Final = "evicted"  # it had a claim, and its KV was let go all the same: the set was planned too full
CAUSES: Final = (PAUSED, MOVED, EVICTED)


OWN: Final = "own"  # none of these: its own long gap, or nothing that we know
CACHED: Final = "cached"
NEW: Final = "new"
REGENERATED: Final = "regenerated"


class Overheads:
    """Of steps that have ended: modelled engine-seconds by cause, and what became of their prompts' tokens.

    A token of a prompt was cached; or it was prefilled for the first time (new); or its session had prefilled it
    before, and it was gone (regenerated, by cause).
    """

    def __init__(self) -> None:
        self.lost_s: dict[str, float] = dict.fromkeys(CAUSES, 0.0)
        self.prompt_tokens: dict[str, float] = dict.fromkeys((CACHED, NEW, REGENERATED), 0.0)
        self.regenerated_tokens: dict[str, float] = dict.fromkeys((*CAUSES, OWN), 0.0)

    def count(self, step: Step, prompt_tokens: int, cached_tokens: int, cause: str) -> None:
        """A step has ended, with a prompt and a cached part of it that turned out to be this long."""
        cached = min(cached_tokens, prompt_tokens)
        regenerated = max(0, known_tokens(step, prompt_tokens) - cached)
        self.prompt_tokens[CACHED] += cached
        self.prompt_tokens[REGENERATED] += regenerated
        self.prompt_tokens[NEW] += prompt_tokens - cached - regenerated
        self.regenerated_tokens[cause or OWN] += regenerated

    def book(self, cause: str, lost_s: float) -> None:
        """A step that ended had to prefill this much again."""
        self.lost_s[cause] += lost_s


def cause_of(step: Step, session: Session, pool: Pool) -> str:
    """Of what its session does not find cached any more; empty: its own long gap, or nothing that we know."""
    if step.moved_from in pool.workers or session.taken == MOVED:
        return MOVED
    return session.taken or (EVICTED if step.held else "")


def spared_tokens(step: Step, prompt_tokens: int, cached_tokens: int, cause: str) -> int:
    """Of its prompt, as long as that turned out to be: what its tenant does not pay the prefill of."""
    return max(cached_tokens, known_tokens(step, prompt_tokens)) if cause else cached_tokens


def known_tokens(step: Step, prompt_tokens: int) -> int:
    """Of its prompt, as long as that turned out to be: what its session had prefilled before. The last token never
    counts: an engine always computes that."""
    return min(step.step.base_pages * step.step.page_tokens, prompt_tokens - 1)
