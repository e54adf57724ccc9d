"""A workflow's steps as messages tell them: into the table, and what is worth a line into the log of decisions."""

from typing import Final

from saga.console.decisions import Decisions
from saga.console.records import NAME_CHARS, TOOLS_TOLD, Session, Step, Workflow
from saga.console.shares import Shares
from saga.console.table import Table
from saga.console.wire import NEVER
from saga.contract.ids import RootId, TenantId
from saga.contract.messages import (
    Forecast,
    GatewayBeat,
    Grant,
    SessionsReleased,
    StepAdmitted,
    StepCancelled,
    StepFinished,
    StepReady,
    StepRefused,
    WorkflowEnded,
)

AWAY_S: Final = 60.0  # admission holds no claim for longer; it mostly says so itself, and earlier
LET_GO: Final = ("paused", "unbound", "dormant", "closed")  # the session is outside the active set


class Following:
    """What happens to workflows."""

    def __init__(self, table: Table, decisions: Decisions, shares: Shares) -> None:
        self._table = table
        self._decisions = decisions
        self._shares = shares
        self._placement_fence = 0

    # --- on its way to a grant -----------------------------------------------------------------------------------

    def ready(self, ready: StepReady, now_s: float) -> Step | None:
        """A step wants to run, or wants it still."""
        if self._table.has_ended(ready.step_id):
            return None
        step = self._table.steps.get(ready.step_id)
        if step is None:
            workflow = self._table.workflow(ready.root, ready.tenant, now_s)
            if not workflow.steps_ended and not workflow.live:
                workflow.submitted_s = min(workflow.submitted_s, now_s - ready.waited_s)
            workflow.deadline_s = ready.deadline_s or workflow.deadline_s
            workflow.agent_class = workflow.agent_class or ready.agent_class
            self._table.session(workflow, ready.session, ready.parent)
            step = self._table.begin(ready.step_id, workflow, ready.session, now_s - ready.waited_s)
            step.attempt = ready.attempt
            step.prompt_tokens = ready.prompt_tokens
        elif ready.attempt > step.attempt:
            self._decisions.restarted(step, now_s)
            step.attempt = ready.attempt
            self._table.run(step, running=False)
            step.phase, step.start_s = "waiting", NEVER
        elif step.prompt_tokens:
            step.named_s = now_s
            return step
        else:  # its Grant was quicker
            step.prompt_tokens = ready.prompt_tokens
            step.ready_s = min(step.ready_s, now_s - ready.waited_s)
            step.workflow.deadline_s = ready.deadline_s or step.workflow.deadline_s
            step.workflow.agent_class = step.workflow.agent_class or ready.agent_class
        self._table.note(step, now_s)
        return step

    def admitted(self, admitted: StepAdmitted, now_s: float) -> None:
        """It waits for a slot."""
        step = self.ready(admitted.step, now_s)
        if step is None or step.phase != "waiting" or admitted.step.attempt < step.attempt:
            return
        step.phase = "queued"
        step.worker = admitted.home
        step.cause = admitted.waited
        self._table.note(step, now_s)

    def granted(self, grant: Grant, now_s: float) -> None:
        """It runs from now on."""
        if grant.fence < self._placement_fence or self._table.has_ended(grant.step_id):
            return
        self._placement_fence = grant.fence
        step = self._table.steps.get(grant.step_id)
        if step is None:
            workflow = self._table.workflow(grant.root, tenant_of(grant.root), now_s)
            self._table.session(workflow, grant.session)
            step = self._table.begin(grant.step_id, workflow, grant.session, now_s)
        if grant.attempt < step.attempt:
            return
        workflow = step.workflow
        session = self._table.session(workflow, step.session)
        step.attempt = grant.attempt
        again = step.phase == "running"
        self._table.run(step, running=True)
        before = session.home if session.home != grant.worker_id else ""  # also of one that was let go in between
        step.worker = session.home = grant.worker_id
        step.start_s = now_s
        step.cause, step.reason, step.moved_from = grant.waited, grant.reason, grant.moved_from or before
        step.cached_tokens = grant.cached_tokens
        session.tokens = max(step.prompt_tokens, session.tokens if session.kept else 0)
        session.away_p50_s = NEVER
        workflow.last_s = now_s
        self._table.note(step, now_s)
        if not again:
            self._decisions.granted(step, grant, now_s)

    def refused(self, refused: StepRefused, now_s: float) -> None:
        """It waited in vain."""
        step = self._table.steps.get(refused.step_id)
        if step is not None and refused.attempt >= step.attempt:
            self._decisions.refused(step, refused.reason, now_s)
            self._table.end(step, "cancelled", now_s)

    # --- its end -------------------------------------------------------------------------------------------------

    def finished(self, finished: StepFinished, now_s: float, *, live: bool = True) -> None:
        """It has answered. Not `live`: it was so before we began, and `now_s` is when."""
        if self._table.has_ended(finished.step_id):
            return
        workflow = self._table.workflow(finished.root, finished.tenant, now_s)
        session = self._table.session(workflow, finished.session, finished.parent)
        step = self._table.steps.get(finished.step_id)
        if step is None:
            began_s = now_s - finished.engine_s - finished.waited_s
            workflow.submitted_s = min(workflow.submitted_s, began_s)
            step = self._table.begin(finished.step_id, workflow, finished.session, began_s)
        workflow.agent_class = workflow.agent_class or finished.agent_class
        step.start_s = max(step.ready_s, now_s - finished.engine_s)
        step.first_token_s = finished.first_token_s
        step.worker = session.home = finished.worker_id
        step.prompt_tokens, step.output_tokens = finished.prompt_tokens, finished.output_tokens
        step.cached_tokens = finished.cached_tokens
        step.tools = tuple(tool[:NAME_CHARS] for tool in finished.tools[:TOOLS_TOLD])
        self._table.end(step, "finished", now_s)
        session.tokens = finished.prompt_tokens + finished.output_tokens
        session.kept = not finished.final
        session.away_p50_s = NEVER
        session.dormant_s = now_s + AWAY_S
        session.remaining_s = 0.0
        if session.foretold is not None and session.foretold.step_id == finished.step_id:
            _expect(session, session.foretold)
        workflow.steps_ended += 1
        workflow.prompt_tokens += finished.prompt_tokens
        workflow.cached_tokens += finished.cached_tokens
        workflow.output_tokens += finished.output_tokens
        if live:
            workflow.engine_s += self._shares.served(finished, now_s)
        if finished.final and not workflow.live:
            self._close(workflow)

    def cancelled(self, cancelled: StepCancelled, now_s: float) -> None:
        """Its client left, or it failed."""
        step = self._table.steps.get(cancelled.step_id)
        if step is None:
            return
        step.output_tokens = cancelled.output_tokens
        if cancelled.failed:
            self._decisions.failed(step, now_s)
        self._table.end(step, "failed" if cancelled.failed else "cancelled", now_s)

    def beat(self, beat: GatewayBeat, now_s: float) -> None:
        """What its gateway still wants, and how far it is."""
        for waiting in beat.waiting:
            if (step := self._table.steps.get(waiting.step_id)) is not None:
                step.named_s = now_s
        for running in beat.running:
            if (step := self._table.steps.get(running.step_id)) is not None:
                step.named_s = now_s
                if running.output_tokens > step.output_tokens and running.attempt >= step.attempt:
                    step.output_tokens = running.output_tokens
                    self._table.note(step, now_s, alone=True)

    # --- between steps -------------------------------------------------------------------------------------------

    def forecast(self, forecast: Forecast) -> None:
        """When it is likely back."""
        workflow = self._table.workflows.get(forecast.root)
        session = workflow.sessions.get(forecast.session) if workflow is not None else None
        if workflow is None or session is None:
            return
        session.foretold = forecast
        if not session.live:  # else it was quicker than the end of its step, or the session is back
            _expect(session, forecast)
        self._table.touch(workflow)

    def released(self, released: SessionsReleased, now_s: float) -> None:
        """Their KV on that worker may go."""
        told: dict[int, tuple[Workflow, int]] = {}
        for session_id in released.sessions:
            workflow = self._table.of_session(session_id)
            if workflow is None:
                continue
            session: Session = workflow.sessions[session_id]
            if session.home == released.worker_id and not session.running:
                session.kept = False
                if released.reason in LET_GO:
                    session.dormant_s = min(session.dormant_s, now_s)
            told[workflow.number] = (workflow, told.get(workflow.number, (workflow, 0))[1] + 1)
        for workflow, sessions in told.values():
            if released.reason == "closed" and not workflow.live:
                self._close(workflow)
            self._table.touch(workflow)
            self._decisions.released(workflow, released, sessions, now_s)

    def over(self, ended: WorkflowEnded, now_s: float) -> None:
        """Its client says so."""
        workflow = self._table.workflows.get(ended.root)
        if workflow is None:
            return
        workflow.last_s = now_s
        if ended.session:
            session = workflow.sessions.get(ended.session)
            if session is not None:
                session.kept, session.dormant_s = False, min(session.dormant_s, now_s)
        elif not workflow.live:
            self._close(workflow)
        self._table.touch(workflow)

    def _close(self, workflow: Workflow) -> None:
        workflow.ended = True
        for session in workflow.sessions.values():
            session.kept = False
            session.remaining_s = 0.0


def _expect(session: Session, forecast: Forecast) -> None:
    """Its gap has begun."""
    session.remaining_s = forecast.remaining_engine_s
    session.away_p50_s = forecast.gap_p50_s if forecast.returns >= 0.5 else NEVER


def tenant_of(root: RootId) -> TenantId:
    """Whose workflow it is: the gateway puts the tenant before each id."""
    return TenantId(root.partition("/")[0])
