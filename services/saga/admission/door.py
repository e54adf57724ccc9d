"""Which steps are refused at once, and what their client is told. Called by `state.py` for each new step."""

from saga.admission.roster import Roster
from saga.admission.stepbook import StepBook
from saga.contract.messages import Refused, StepReady


def refusal_of(ready: StepReady, roster: Roster, book: StepBook, max_waiting_steps: int) -> Refused | None:
    """The answer to a step that cannot run, or not now; None for one that may."""
    pool = roster.pools.get(ready.pool)
    served = {name for name, other in roster.pools.items() if other.workers}
    if served and ready.pool not in served and (pool is None or not pool.needs):
        known = ", ".join(sorted(served))
        return book.refused(ready, "unknown_model", f"no worker serves {ready.pool!r}; served: {known}", 0.0)
    largest_tokens = pool.largest_kv_tokens if pool else 0
    if largest_tokens and ready.prompt_tokens > largest_tokens:
        detail = f"the prompt has {ready.prompt_tokens} tokens; the largest worker holds {largest_tokens}"
        return book.refused(ready, "too_large", detail, 0.0)
    if book.waiting >= max_waiting_steps:
        detail = f"{book.waiting} steps wait for their workflow's turn; the limit is {max_waiting_steps}"
        return book.refused(ready, "too_many_waiting", detail, 5.0)
    return None
