"""Workers that an operator wants empty: their sessions go on elsewhere with their next step.

What runs there runs to its end; what waits for a slot there is scattered by `presence.py`, since nothing new starts.
Its agent lets go of the KV: a session that comes back finds no home and is placed anew.
"""

from saga.contract.ids import NO_WORKER, WorkerId
from saga.contract.messages import StepFinished
from saga.kernel.effects import Effect, Log
from saga.placement.board import Board
from saga.placement.records import Session, Worker

Effects = list[Effect]


class Drains:
    """Of one placement."""

    def __init__(self, board: Board) -> None:
        self._board = board
        self.workers: dict[WorkerId, None] = {}

    def told(self, worker: Worker, *, draining: bool) -> Effects:
        """The worker says whether it is to be empty."""
        if draining == worker.draining:
            return []
        worker.draining = draining
        worker_id = worker.hello.worker_id
        if not draining:
            self.workers.pop(worker_id, None)
            return [Log("placement.drain_undone", {"worker": worker_id})]
        self.workers[worker_id] = None
        homed = [session for session in self._board.sessions.values() if session.home == worker_id]
        for session in homed:
            self._unhome(session)
        return [Log("placement.draining", {"worker": worker_id, "sessions": len(homed), "steps": len(worker.leases)})]

    def finished(self, finished: StepFinished) -> None:
        """A step ended: if there, its session is at home there no more."""
        session = self._board.sessions.get(finished.session)
        if session is not None and session.home in self.workers:
            self._unhome(session)

    def _unhome(self, session: Session) -> None:
        self._board.settle(session, NO_WORKER, session.context_tokens)
