"""What gateways say of their steps: beats that name those that wait and run, claims of those granted before. Called by
`state.py`."""

from saga.contract.ids import StepId
from saga.contract.messages import GatewayBeat, ResendSteps, StepAdmitted, StepClaim, Tag
from saga.contract.subjects import Subjects
from saga.kernel.effects import Effect, Publish
from saga.kernel.steps import StepLife, StepState
from saga.placement.board import Board
from saga.placement.dispatch import LEASE_TTL_S, Dispatcher
from saga.placement.leasing import Leasing
from saga.placement.presence import Presence
from saga.placement.records import Lease, Step

ASK_AGAIN_S = 0.5  # of a waiting step that a beat names and nobody admitted: messages may still be on their way

Effects = list[Effect]


class GatewayWord:
    """Brings the books in line with what gateways say."""

    def __init__(
        self, board: Board, dispatch: Dispatcher, leasing: Leasing, presence: Presence, subjects: Subjects
    ) -> None:
        self._board = board
        self._dispatch = dispatch
        self._leasing = leasing
        self._presence = presence
        self._subjects = subjects

    def beat(self, beat: GatewayBeat, now_s: float) -> Effects:
        """Steps that it names live; ask for those that are not known here."""
        effects: Effects = []
        unadmitted: list[StepId] = []
        unclaimed: list[StepId] = []
        for waiting in beat.waiting:
            step = self._board.steps.get(waiting.step_id)
            if step is None:
                if waiting.waited_s > ASK_AGAIN_S and not self._board.has_ended(waiting.step_id):
                    unadmitted.append(waiting.step_id)
                continue
            step.named_s = now_s
            if waiting.attempt > step.attempt and step.lease is not None:  # its LeaseReturned was lost
                step.attempt = waiting.attempt
                self._presence.suspect(step.lease.worker_id, now_s)
                effects += self._leasing.freed(step.lease.lease_id, now_s)
        for running in beat.running:
            if running.lease_id in self._board.leases and running.step_id in self._board.steps:
                effects += self._leasing.running(running.step_id, running.lease_id, now_s)
            elif not self._board.has_ended(running.step_id):
                unclaimed.append(running.step_id)
        fence = self._dispatch.fence
        if unadmitted:
            ask = ResendSteps(service="placement", fence=fence, step_ids=tuple(unadmitted))
            effects.append(Publish(self._subjects.placement_word(), ask))
        if unclaimed:
            ask = ResendSteps(service="placement", fence=fence, step_ids=tuple(unclaimed))
            effects.append(Publish(self._subjects.gateway(beat.gateway_id), ask))
        return effects

    def claim(self, claim: StepClaim, now_s: float) -> Effects:
        """A step that runs already, granted by a leader before this one."""
        step_id = claim.step.step_id
        if self._board.has_ended(step_id):
            return []
        step = self._board.steps.get(step_id)
        if step is None:
            admitted = StepAdmitted(step=claim.step, tag=Tag(0.0, 0.0), home=claim.worker_id, fence=0)
            step = self._board.steps[step_id] = Step(admitted, StepLife(step_id, StepState.ADMITTED), now_s)
            self._board.enqueue(step_id, claim.worker_id)
        if claim.lease_id not in self._board.leases:
            self._board.add_lease(
                Lease(claim.lease_id, step_id, claim.worker_id, step.tokens, 0.0, now_s + LEASE_TTL_S, taken=True)
            )
        session = self._board.session(claim.step.session, claim.step.root)
        session.ran_at = claim.worker_id
        self._board.settle(session, claim.worker_id, claim.step.prompt_tokens)
        asks = self._dispatch.learn_chain(claim.step)
        self._dispatch.follow_claim(step, claim.session_tag)
        return asks + self._leasing.running(step_id, claim.lease_id, now_s)
