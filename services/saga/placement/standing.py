"""How workers stand, as `saga workers` and `saga drain` show it. Reads the books. Called by `state.py`."""

from heapq import nsmallest
from typing import Final

from saga.contract.messages import WorkersAsk, WorkersTold
from saga.contract.why_messages import Standing, WorkerTold
from saga.placement.board import Board
from saga.placement.records import Worker
from saga.placement.trust import Trust

PAGE: Final = 256  # workers in one answer, about 100 KiB at most


def answer(ask: WorkersAsk, board: Board, trust: Trust, fence: int, now_s: float) -> WorkersTold:
    """One page, in the order of ids."""
    asked = [worker_id for worker_id in board.workers if worker_id > ask.after]
    page = tuple(_told(board.workers[worker_id], board, trust, now_s) for worker_id in nsmallest(PAGE, asked))
    return WorkersTold(workers=page, more=len(asked) > len(page), fence=fence)


def _told(worker: Worker, board: Board, trust: Trust, now_s: float) -> WorkerTold:
    worker_id = worker.hello.worker_id
    standing, reason = _standing(worker, trust, now_s)
    conduct = trust.conduct(worker_id)
    return WorkerTold(
        worker=worker_id,
        pool=worker.hello.pool,
        engine_url=worker.hello.engine_url,
        standing=standing,
        reason=reason,
        seen_s=round(now_s - worker.seen_s, 3),
        leases=len(worker.leases),
        waiting_steps=len(board.at_home.get(worker_id, ())),
        homed_sessions=worker.homed_sessions,
        homed_tokens=worker.homed_tokens,
        resident_pages=board.index.pages_on(worker_id),
        expected_tokens=round(conduct.expected_tokens),
        cached_tokens=round(conduct.cached_tokens),
    )


def _standing(worker: Worker, trust: Trust, now_s: float) -> tuple[Standing, str]:
    if not worker.healthy:
        return "away", "its engine does not answer, or it is not heard"
    if now_s < worker.suspect_until_s:
        return "away", "a gateway could not reach its engine"
    if worker.draining:
        return "draining", ""
    reason = trust.standing(worker.hello.worker_id)[1]
    if worker.quarantined:
        return "quarantined", reason
    return ("probation", reason) if worker.on_probation else ("serving", "")
