"""The active set at work: who joins, who is paused at a step boundary, whose KV is released. Called by `state.py`."""

from saga.admission.policy import ActiveSetPolicy
from saga.admission.records import Session, Workflow
from saga.admission.roster import Roster
from saga.admission.stepbook import StepBook
from saga.contract.ids import PoolId, WorkerId
from saga.contract.messages import ReleaseReason, SessionsReleased
from saga.contract.subjects import Subjects
from saga.kernel.effects import Effect, Forget, Publish
from saga.kernel.steps import StepState

Effects = list[Effect]


class ActiveSet:
    """Keeps each pool's active workflows as its policy chooses them."""

    def __init__(self, roster: Roster, book: StepBook, policy: ActiveSetPolicy, subjects: Subjects) -> None:
        self._roster = roster
        self._book = book
        self._policy = policy
        self._subjects = subjects

    def choose(self, pool_id: PoolId, only: Workflow | None = None) -> Effects:
        """Recompute the pool's active set. `only`: the one workflow that may have become a claimant."""
        pool = self._roster.pool(pool_id)
        outside = len(pool.needs) - len(pool.active) - (only is not None and not only.active)
        if outside <= 0 and self._policy.fits(pool.together_tokens, pool.kv_tokens):
            return self.activate(only) if only is not None else []
        chosen = self._policy.active(self._roster.claimants(pool), pool.kv_tokens)
        effects: Effects = []
        for root in sorted(pool.active - chosen):
            effects += self._pause(self._roster.workflows[root])
        # Who runs stays active until its step boundary, and an active workflow's steps are never held back.
        if only is not None and only.active:
            effects += self.activate(only)
        for root in sorted(chosen - pool.active, key=lambda root: self._roster.workflows[root].age_key):
            effects += self.activate(self._roster.workflows[root])
        return effects

    def activate(self, workflow: Workflow) -> Effects:
        """The workflow is in: its waiting steps go on."""
        workflow.active = True
        self._roster.pool(workflow.pool).active.add(workflow.root)
        return [
            effect
            for step in list(workflow.steps.values())
            if step.life.state is StepState.WAITING
            for effect in self._book.admit(workflow, step)
        ]

    def _pause(self, workflow: Workflow) -> Effects:
        """Leave the set, at a step boundary only: what runs is never cut."""
        if workflow.running():
            return []
        workflow.active = False
        self._roster.pool(workflow.pool).active.discard(workflow.root)
        return self.release(workflow, "paused")

    def release(self, workflow: Workflow, reason: ReleaseReason) -> Effects:
        """Tell the homes of its sessions that their KV may go."""
        by_home: dict[WorkerId, list[Session]] = {}
        for session in workflow.sessions.values():
            if session.home:
                by_home.setdefault(session.home, []).append(session)
        return [
            Publish(
                self._subjects.sessions_released(home),
                SessionsReleased(
                    worker_id=home,
                    sessions=tuple(session.session for session in sessions),
                    reason=reason,
                    fence=self._book.fence,
                ),
            )
            for home, sessions in by_home.items()
        ]

    def close(self, workflow: Workflow) -> Effects:
        """The workflow is over."""
        self._roster.remove(workflow)
        return [*self.release(workflow, "closed"), Forget(self._book.key(workflow.root))]
