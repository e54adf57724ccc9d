"""The life of a lease: taken, kept alive, given back, dead; and the end of its step. For `state.py` and `word.py`."""

from typing import Final

from saga.contract.ids import LeaseId, StepId
from saga.contract.messages import LeaseReturned, ReturnReason
from saga.kernel.effects import Effect, Log
from saga.kernel.steps import Move
from saga.placement.board import Board
from saga.placement.dispatch import LEASE_TTL_S, Dispatcher
from saga.placement.lease_accounts import LeaseEnd
from saga.placement.presence import Presence

RETURNED: Final[dict[ReturnReason, LeaseEnd]] = {"not_first": "aborted", "fenced": "aborted", "expired": "expired"}
UNNAMED_S = 5.0  # a step that no beat names for so long is aborted

Effects = list[Effect]


class Leasing:
    """What becomes of leases once they are given."""

    def __init__(self, board: Board, dispatch: Dispatcher, presence: Presence) -> None:
        self._board = board
        self._dispatch = dispatch
        self._presence = presence

    def running(self, step_id: StepId, lease_id: LeaseId, now_s: float, output_tokens: int = 0) -> Effects:
        """The gateway runs the step under this lease, whatever was believed of it."""
        lease = self._board.leases.get(lease_id)
        step = self._board.steps.get(step_id)
        if lease is not None:
            lease.taken = True
            lease.output_tokens = max(lease.output_tokens, output_tokens)
            lease.expires_s = now_s + LEASE_TTL_S
        if step is None or lease is None:
            return []
        step.named_s = now_s
        if step.lease is not lease:  # another grant, thought dead, was the first to arrive
            if step.lease is not None:
                self._board.free_lease(step.lease.lease_id, "aborted")
            self._board.dequeue(step_id)
            step.lease = lease
        if step.life.may(Move.TAKE):
            step.life.advance(Move.TAKE)
        return []

    def over(self, step_id: StepId, move: Move, now_s: float, *, silent: bool = False) -> Effects:
        """The step has ended: its slots are free. `silent`: nobody said so."""
        step = self._board.steps.get(step_id)
        freed = []
        for lease in self._board.leases_of(step_id):
            freed.append(lease.worker_id)
            used = move is Move.FINISH and (step is None or step.lease is lease)
            self._board.free_lease(lease.lease_id, None if silent else "finished" if used else "aborted")
        if step is not None:
            step.life.advance(move)
        self._board.forget_step(step_id, silent=silent)
        return [effect for worker_id in freed for effect in self._dispatch.serve(worker_id, now_s)]

    def returned(self, returned: LeaseReturned, now_s: float) -> Effects:
        """A gateway gives a lease back: its client has gone, another grant came first, or the engine is dead."""
        effects: Effects = []
        lease = self._board.leases.get(returned.lease_id)
        step = self._board.steps.get(returned.step_id)
        if returned.reason == "client_gone":
            return self.over(returned.step_id, Move.ABORT, now_s)
        if returned.reason == "engine_died":
            self._presence.suspect(returned.worker_id, now_s)
            effects.append(Log("placement.engine_unreachable", {"worker": returned.worker_id}))
        current = step is not None and step.lease is not None and step.lease.lease_id == returned.lease_id
        if lease is not None:
            self._board.free_lease(returned.lease_id, RETURNED.get(returned.reason))
        if step is not None and current and returned.reason == "fenced":
            # It was admitted or granted by a leader that its gateway knows to be replaced: granted again it would come
            # back again, at once. Whoever leads now admits it anew when the next beat shows that it is not known here.
            effects += self.over(returned.step_id, Move.ABORT, now_s, silent=True)
        elif step is not None and current:
            if returned.next_attempt >= step.attempt:
                step.attempt = returned.next_attempt
                step.wait_cause = "retry"
            step.life.advance(Move.RETURN)
            effects += self._dispatch.start_or_queue(returned.step_id, self._dispatch.home_of(step), now_s)
        return effects + self._dispatch.serve(returned.worker_id, now_s)

    def freed(self, lease_id: LeaseId, now_s: float) -> Effects:
        """A lease ended without its gateway's word: the step goes back if somebody still wants it."""
        lease = self._board.leases.get(lease_id)
        if lease is None:
            return []
        step = self._board.steps.get(lease.step_id)
        current = step is not None and step.lease is lease
        self._board.free_lease(lease_id)
        effects: Effects = []
        if step is not None and current:
            if lease.taken and now_s - step.named_s > UNNAMED_S:
                effects += self.over(lease.step_id, Move.ABORT, now_s, silent=True)
            else:
                step.wait_cause = "retry"
                step.life.advance(Move.RETURN)
                effects += self._dispatch.start_or_queue(lease.step_id, self._dispatch.home_of(step), now_s)
        return effects + self._dispatch.serve(lease.worker_id, now_s)
