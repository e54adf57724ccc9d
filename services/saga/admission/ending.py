"""How steps, sessions and workflows end: by their end, by their client's word, by silence, or refused after a wait.

A client's word may overtake the end of the last step, so nothing is let go while a step of it runs. Silence proves
nothing: who is closed by it is only struck from the books, and its KV left to what the workers make of it. Called by
`state.py`.
"""

from saga.admission.active_set import ActiveSet
from saga.admission.beats import UNNAMED_S
from saga.admission.quotas import CLOSED_RETRY_S, Quotas
from saga.admission.records import Session, Step, Workflow
from saga.admission.roster import Roster
from saga.admission.stepbook import StepBook
from saga.contract.ids import StepId, TenantId
from saga.contract.messages import RefusalReason, WorkflowEnded
from saga.kernel.effects import Effect
from saga.kernel.steps import Move, StepState

IDLE_CLOSE_S = 3_600.0  # a workflow without a sign of life is closed
WAITED_RETRY_S = 30.0

Effects = list[Effect]


class Ending:
    """Of one admission."""

    def __init__(
        self,
        roster: Roster,
        book: StepBook,
        active_set: ActiveSet,
        quotas: Quotas,
        *,
        max_wait_s: float,
        infer_end_s: float,
    ) -> None:
        self._roster = roster
        self._book = book
        self._set = active_set
        self._quotas = quotas
        self._max_wait_s = max_wait_s
        self._infer_end_s = infer_end_s

    # --- by word -----------------------------------------------------------------------------------------------

    def step(self, step_id: StepId, move: Move, now_s: float, *, silent: bool = False) -> Effects:
        """A step is over. `silent`: nobody said so, nobody named it."""
        workflow = self._book.end(step_id, move, now_s, silent=silent)
        return self._went_on(workflow, now_s) if workflow is not None else []

    def said(self, ended: WorkflowEnded, now_s: float) -> Effects:
        """A client says that its workflow is over, or one session of it."""
        workflow = mark(ended, self._roster)
        return self._went_on(workflow, now_s) if workflow is not None else []

    def _went_on(self, workflow: Workflow, now_s: float) -> Effects:
        """A step of the workflow is over, or all of it is."""
        workflow.last_sign_s = now_s
        if workflow.final and not workflow.steps:
            return [*self._set.close(workflow), *self._set.choose(workflow.pool, now_s)]
        ended = self._set.end(take_out(workflow))
        self._roster.claim(workflow, now_s)
        return [*ended, self._book.row(workflow), *self._set.choose(workflow.pool, now_s)]

    # --- by refusal --------------------------------------------------------------------------------------------

    def give_up(self, step: Step, reason: RefusalReason, detail: str, retry_after_s: float, now_s: float) -> Effects:
        """Refuse a step that waited. Silently ended: should the word be lost, its gateway asks again and hears it."""
        told = self._book.given_up(step, reason, detail, retry_after_s)
        return [told, *self.step(step.step.step_id, Move.REFUSE, now_s, silent=True)]

    def what_never_can_go_on(self, tenant: TenantId, now_s: float) -> Effects:
        """The tenant's terms have changed: what waits and could only wait for ever is refused; what runs goes on."""
        effects: Effects = []
        for step in list(self._book.steps.values()):
            if step.step.tenant == tenant and step.life.state is StepState.WAITING:
                never = self._quotas.never(step.step)
                effects += self.give_up(step, "quota", never, CLOSED_RETRY_S, now_s) if never else []
        return effects

    def _waited_too_long(self, step: Step, now_s: float) -> Effects:
        quota = self._quotas.waits_for(step)
        cause = f"its turn: tenant {step.step.tenant} is at its quota {quota}" if quota else "its turn"
        detail = f"the workflow waited {self._max_wait_s:.0f} s, the limit, for {cause}"
        return self.give_up(step, "wait_bound", detail, WAITED_RETRY_S, now_s)

    # --- by time -----------------------------------------------------------------------------------------------

    def sweep(self, now_s: float) -> Effects:
        """Once a second: steps that nobody names or that have waited for too long, workflows that fell silent."""
        effects: Effects = []
        for step_id, step in list(self._book.steps.items()):
            if now_s - step.named_s > UNNAMED_S:
                effects += self.step(step_id, Move.ABORT, now_s, silent=True)
            elif step.life.state is StepState.WAITING and now_s - step.since_s > self._max_wait_s:
                effects += self._waited_too_long(step, now_s)
        silent = [w for w in self._roster.workflows.values() if fell_silent(w, now_s, IDLE_CLOSE_S, self._infer_end_s)]
        for workflow in silent:
            effects += self._set.close(workflow, quietly=now_s - workflow.last_sign_s <= IDLE_CLOSE_S)
        return effects


def mark(ended: WorkflowEnded, roster: Roster) -> Workflow | None:
    """The workflow, which knows now what is over; None: there is no such workflow of this tenant."""
    workflow = roster.workflows.get(ended.root)
    if workflow is None or workflow.tenant != ended.tenant:
        return None
    if not ended.session:
        workflow.final = True
    elif ended.session in workflow.sessions:
        workflow.sessions[ended.session].over = True
    return workflow


def fell_silent(workflow: Workflow, now_s: float, idle_close_s: float, infer_end_s: float) -> bool:
    """Whether it counts as over. Soonest when each of its sessions has answered without calling a tool, and stays away
    longer than forecast (it is dormant), and for `infer_end_s` at least; 0: never so."""
    if workflow.steps:
        return False
    silent_s = now_s - workflow.last_sign_s
    if silent_s > idle_close_s:
        return True
    return 0 < infer_end_s < silent_s and workflow.seems_over(now_s)


def take_out(workflow: Workflow) -> list[Session]:
    """Its sessions that are over, now that none of their steps runs."""
    over = [session for session in workflow.sessions.values() if session.over and not session.live_steps]
    for session in over:
        del workflow.sessions[session.session]
    return over
