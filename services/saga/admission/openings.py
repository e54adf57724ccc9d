"""Where a session without a home would fit, so that placement may choose among these by price. Called by `stepbook.py`.

Admission binds a workflow to the worker whose budget it joins. Its first session, and each sub-agent, may begin on any
other with room for it; who is promised a worker is not passed there.
"""

from saga.admission.needs import room_tokens
from saga.admission.roster import Pool
from saga.contract.ids import WorkerId

MOST_NAMED = 64  # the least full ones: a list of a thousand would cost more than the choice can gain


def openings(pool: Pool, claim_tokens: int, bound: WorkerId) -> tuple[WorkerId, ...]:
    """Workers where the step's KV fits beside what their members are forecast to need, least full first; `bound`, which
    counts it already, among them. Empty when there is no choice."""
    promised = pool.promised
    if promised is None or bound not in pool.workers or len(pool.workers) < 2:
        return ()
    fitting: list[tuple[float, WorkerId]] = []
    for worker_id, hello in pool.workers.items():
        more = 0 if worker_id == bound else claim_tokens
        fullness = (max(pool.seats.at(worker_id).tokens) + more) / max(1, room_tokens(hello))
        if worker_id == bound:
            fitting.append((-1.0, worker_id))  # named whatever else is
        elif fullness <= 1.0 and worker_id not in promised:
            fitting.append((fullness, worker_id))
    if len(fitting) < 2:
        return ()
    return tuple(worker_id for _, worker_id in sorted(fitting)[:MOST_NAMED])
