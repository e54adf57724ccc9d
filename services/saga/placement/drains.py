"""Workers that an operator wants empty: their sessions go on elsewhere with their next step, and no KV waits for them.

What runs there runs to its end; what waits for a slot there was scattered by `presence.py`, since nothing new starts.
"""

from typing import Final

from saga.contract.ids import NO_WORKER, SessionId, WorkerId
from saga.contract.messages import SessionsReleased, StepFinished
from saga.contract.subjects import Subjects
from saga.kernel.effects import Effect, Log, Publish
from saga.placement.board import Board
from saga.placement.dispatch import Dispatcher
from saga.placement.records import Lease, Worker

SESSIONS_IN_MESSAGE: Final = 1_000  # about 130 KiB at most

Effects = list[Effect]


class Drains:
    """Of one placement."""

    def __init__(self, board: Board, dispatch: Dispatcher, subjects: Subjects) -> None:
        self._board = board
        self._dispatch = dispatch
        self._subjects = subjects
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
        busy = {self._board.steps[lease.step_id].admitted.step.session for lease in self._held(worker)}
        idle = [s.session for s in self._board.sessions.values() if s.home == worker_id and s.session not in busy]
        told = Log("placement.draining", {"worker": worker_id, "sessions": len(idle), "steps": len(worker.leases)})
        return [told, *self._let_go(worker_id, idle)]

    def finished(self, finished: StepFinished) -> Effects:
        """A step ended: if there, its session has come to its step boundary."""
        worker = self._board.workers.get(finished.worker_id)
        if worker is None or not worker.draining or finished.final:
            return []
        busy = any(
            self._board.steps[lease.step_id].admitted.step.session == finished.session for lease in self._held(worker)
        )
        return [] if busy else self._let_go(finished.worker_id, [finished.session])

    def _held(self, worker: Worker) -> list[Lease]:
        return [lease for lease in worker.leases.values() if lease.step_id in self._board.steps]

    def _let_go(self, worker_id: WorkerId, sessions: list[SessionId]) -> Effects:
        for session_id in sessions:
            session = self._board.sessions.get(session_id)
            if session is not None and session.home == worker_id:
                self._board.settle(session, NO_WORKER, session.context_tokens)
        return [
            Publish(
                self._subjects.sessions_released(worker_id),
                SessionsReleased(
                    worker_id=worker_id,
                    sessions=tuple(sessions[start : start + SESSIONS_IN_MESSAGE]),
                    reason="moved",
                    fence=self._dispatch.fence,
                ),
            )
            for start in range(0, len(sessions), SESSIONS_IN_MESSAGE)
        ]
