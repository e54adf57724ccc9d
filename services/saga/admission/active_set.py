"""The active set at work: who joins, who is paused at a step boundary, whose KV is released. Called by `state.py`."""

from collections.abc import Callable, Iterable
from functools import partial

from msgspec.structs import replace

from saga.admission.needs import held_s
from saga.admission.overheads import MOVED, PAUSED
from saga.admission.policy import ActiveSetPolicy, AsksAgain, HoldsClaims, KeepsPromises
from saga.admission.records import Session, Workflow
from saga.admission.roster import Roster
from saga.admission.stepbook import StepBook
from saga.contract.ids import NO_WORKER, PoolId, WorkerId
from saga.contract.messages import Forecast, ReleaseReason, SessionsReleased
from saga.contract.subjects import Subjects
from saga.kernel.effects import Effect, Forget, Publish
from saga.kernel.steps import StepState

Effects = list[Effect]


class ActiveSet:
    """Keeps each pool's active workflows as its policy chooses them."""

    def __init__(
        self, roster: Roster, book: StepBook, policy: ActiveSetPolicy, subjects: Subjects, speed: float = 1.0
    ) -> None:
        """`speed`: of simulated engines and their agents; how long KV is held is told in their seconds."""
        self._roster = roster
        self._book = book
        self._policy = policy
        self._subjects = subjects
        self.pauses = 0  # workflows that left the set while they had work
        hold = policy.held_s if isinstance(policy, HoldsClaims) else held_s
        self.held_s = hold if speed == 1.0 else partial(_held_at, speed, hold)  # how long claims last, by forecast
        # Asked once: what a class has is slow to find out, and these are asked at every event.
        self._asks_again = policy if isinstance(policy, AsksAgain) else None
        self._keeps_promises = policy if isinstance(policy, KeepsPromises) else None

    def impatient(self) -> Iterable[PoolId]:
        """Pools whose set may change with time alone."""
        return self._asks_again.impatient() if self._asks_again is not None else ()

    def choose(self, pool_id: PoolId, now_s: float, only: Workflow | None = None) -> Effects:
        """Revise the pool's active set. `only`: the one workflow that has a new step."""
        pool = self._roster.pool(pool_id)
        revision = self._policy.revise(pool, now_s)
        pool.seats.changed.clear()
        if self._keeps_promises is not None:
            pool.promised = self._keeps_promises.promised(pool_id)
        effects: Effects = []
        for root in revision.leaves:
            effects += self._pause(self._roster.workflows[root], now_s)
        # Who runs stays active until its step boundary, and an active workflow's steps are never held back.
        if only is not None and only.active:
            effects += self.activate(only)
        for root in revision.joins:
            workflow = self._roster.workflows[root]
            if root in revision.bound:
                effects += self._bind(workflow, revision.bound[root])
            effects += self.activate(workflow)
        return effects

    def activate(self, workflow: Workflow) -> Effects:
        """The workflow is in: its waiting steps go on, within its tenant's quotas."""
        self._roster.activate(workflow)
        return [
            effect
            for step in list(workflow.steps.values())
            if step.life.state is StepState.WAITING and not self._roster.tenants.holds(workflow, step)
            for effect in self._book.admit(workflow, step)
        ]

    def _pause(self, workflow: Workflow, now_s: float) -> Effects:
        """Leave the set, at a step boundary only: what runs is never cut."""
        if workflow.running():
            return []
        self.pauses += 1
        self._roster.pause(workflow)
        for session in workflow.sessions.values():
            if session.dormant_at_s > now_s:  # it had a claim to its KV
                session.taken = PAUSED
        return self.let_go(workflow, "paused")

    def _bind(self, workflow: Workflow, worker_id: WorkerId) -> Effects:
        """Its steps go there from now on. What it has left elsewhere is of no use any more: placement is told that its
        sessions are free, their old homes that they have moved."""
        workflow.bound = worker_id
        if self._policy.unbinds:
            return []  # they were when it left
        elsewhere = [s for s in workflow.sessions.values() if s.home not in (NO_WORKER, worker_id)]
        effects = self._released(elsewhere, "unbound") + self._released(elsewhere, "moved")
        for session in elsewhere:
            session.home = NO_WORKER
            if any(step.held for step in workflow.steps.values() if step.step.session == session.session):
                session.taken = MOVED
        return effects

    def let_go(self, workflow: Workflow, reason: ReleaseReason) -> Effects:
        """It is out of the set for now; where the policy unbinds such workflows, it has no home any more either."""
        if not self._policy.unbinds:
            return self.release(workflow, reason)
        effects = self.release(workflow, "unbound")
        for session in workflow.sessions.values():
            session.home = NO_WORKER
        return effects

    def let_sessions_go(self, sessions: Iterable[Session]) -> Effects:
        """As `let_go`, of some sessions of a workflow that may stay in the set."""
        gone = tuple(sessions)
        effects = self._released(gone, "unbound" if self._policy.unbinds else "paused")
        if self._policy.unbinds:
            for session in gone:
                session.home = NO_WORKER
        return effects

    def release(self, workflow: Workflow, reason: ReleaseReason) -> Effects:
        """Tell the homes of its sessions that their KV may go."""
        return self._released(workflow.sessions.values(), reason)

    def _released(self, released: Iterable[Session], reason: ReleaseReason) -> Effects:
        by_home: dict[WorkerId, list[Session]] = {}
        for session in released:
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

    def end(self, sessions: Iterable[Session]) -> Effects:
        """These are over: their KV may go."""
        return self._released(sessions, "closed")

    def close(self, workflow: Workflow, *, quietly: bool = False) -> Effects:
        """The workflow is over. `quietly`: so it seems, and its KV had better stay while there is room."""
        self._roster.remove(workflow)
        self._book.order.closed(workflow)
        return [*([] if quietly else self.release(workflow, "closed")), Forget(self._book.key(workflow.root))]


def _held_at(speed: float, held_s: Callable[[Forecast], float], forecast: Forecast) -> float:
    """Where all goes `speed` times as fast, gaps of a second were of so many."""
    p50_s, p90_s = speed * forecast.gap_p50_s, speed * forecast.gap_p90_s
    return held_s(replace(forecast, gap_p50_s=p50_s, gap_p90_s=p90_s)) / speed
