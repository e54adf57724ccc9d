"""The workflows shown, their live steps, and what of them has changed. Bounded: the longest silent one leaves first."""

from itertools import islice
from typing import Final

from saga.console.records import NO_SESSION, Session, Step, Workflow
from saga.contract.ids import RootId, SessionId, StepId, TenantId

CLOSED_KEPT_S: Final = 60.0  # after its end a workflow can be looked at for so long
SILENT_KEPT_S: Final = 3_600.0  # as admission closes it then
UNNAMED_S: Final = 15.0  # a step of which nobody speaks any more is over
MAX_STEPS: Final = 20_000  # live at once
ENDED_KEPT: Final = 8_192  # ids of ended steps, so that what is said twice counts once
_LOOKED_AT: Final = 64  # for one to leave, from the longest silent on


class Table:
    """Every workflow that the page can show."""

    def __init__(self, max_workflows: int) -> None:
        self.workflows: dict[RootId, Workflow] = {}  # the longest silent first
        self.steps: dict[StepId, Step] = {}  # live ones
        self.left_out = 0  # workflows that had to leave while they were open
        self.gathering = False  # somebody looks
        self.changed: dict[int, Workflow] = {}
        self.changed_steps: dict[int, Step] = {}
        self.gone: list[int] = []
        self._by_session: dict[SessionId, Workflow] = {}
        self._ended: dict[StepId, None] = {}
        self._max_workflows = max_workflows
        self._numbers = 0
        self._step_numbers = 0

    def check(self) -> None:
        """Assert what must always hold."""
        assert len(self.workflows) <= self._max_workflows
        assert len(self.steps) <= MAX_STEPS
        assert len(self._ended) <= ENDED_KEPT
        assert {step_id for w in self.workflows.values() for step_id in w.live} == set(self.steps)
        assert set(self._by_session) == {s for w in self.workflows.values() for s in w.sessions}
        for workflow in self.workflows.values():
            for session_id, session in workflow.sessions.items():
                live = [step for step in workflow.live.values() if step.session == session_id]
                assert session.live == len(live)
                assert session.running == sum(step.phase == "running" for step in live)
        if not self.gathering:
            assert not self.changed
            assert not self.changed_steps
            assert not self.gone

    def gather(self, *, on: bool) -> None:
        """From now on, note what changes, or no longer."""
        self.gathering = on
        self.changed.clear()
        self.changed_steps.clear()
        self.gone.clear()

    # --- workflows -----------------------------------------------------------------------------------------------

    def workflow(self, root: RootId, tenant: TenantId, now_s: float) -> Workflow:
        """The workflow, perhaps a new one. It has given a sign of life."""
        workflow = self.workflows.pop(root, None)
        if workflow is None:
            if len(self.workflows) >= self._max_workflows:
                self._make_room()
            self._numbers += 1
            workflow = Workflow(root, tenant, self._numbers, now_s)
        self.workflows[root] = workflow  # now the last to leave
        workflow.last_s = max(workflow.last_s, now_s)
        workflow.ended = False
        self.touch(workflow)
        return workflow

    def session(self, workflow: Workflow, session_id: SessionId, parent: SessionId = NO_SESSION) -> Session:
        """A session of it, perhaps a new one."""
        if session_id not in workflow.sessions:
            known = set(workflow.sessions)
            workflow.session(session_id, parent)
            for forgotten in known - set(workflow.sessions):
                self._by_session.pop(forgotten, None)
            self._by_session[session_id] = workflow
        return workflow.sessions[session_id]

    def of_session(self, session_id: SessionId) -> Workflow | None:
        """The workflow that has this session."""
        return self._by_session.get(session_id)

    def touch(self, workflow: Workflow) -> None:
        """Something of it has changed."""
        if self.gathering:
            self.changed[workflow.number] = workflow

    def remove(self, workflow: Workflow) -> None:
        """It is no longer shown."""
        self.workflows.pop(workflow.root, None)
        for step_id in workflow.live:
            self.steps.pop(step_id, None)
        for session_id in workflow.sessions:
            self._by_session.pop(session_id, None)
        self.changed.pop(workflow.number, None)
        if self.gathering:
            self.gone.append(workflow.number)

    def sweep(self, now_s: float) -> None:
        """What time alone brings: gaps that have become too long, what is over and forgotten, steps nobody names."""
        for step in [s for s in self.steps.values() if now_s - s.named_s > UNNAMED_S]:
            self.end(step, "cancelled", now_s)
        for workflow in list(self.workflows.values()):
            silent_s = now_s - workflow.last_s
            state = workflow.state(now_s)
            if (state == "closed" and silent_s > CLOSED_KEPT_S) or (not workflow.live and silent_s > SILENT_KEPT_S):
                self.remove(workflow)
            elif state != workflow.told:
                self.touch(workflow)

    def _make_room(self) -> None:
        oldest = list(islice(self.workflows.values(), _LOOKED_AT))
        leaving = next((w for w in oldest if w.ended and not w.live), None)
        leaving = leaving or next((w for w in oldest if not w.live), oldest[0])
        self.left_out += not leaving.ended
        self.remove(leaving)

    # --- steps ---------------------------------------------------------------------------------------------------

    def begin(self, step_id: StepId, workflow: Workflow, session_id: SessionId, ready_s: float) -> Step:
        """A step that was not known."""
        if len(self.steps) >= MAX_STEPS:
            self.end(next(iter(self.steps.values())), "cancelled", ready_s)
        self._step_numbers += 1
        step = Step(step_id, self._step_numbers, workflow, session_id, ready_s)
        self.steps[step_id] = workflow.live[step_id] = step
        workflow.sessions[session_id].live += 1
        return step

    def note(self, step: Step, now_s: float, *, alone: bool = False) -> None:
        """Somebody has spoken of it, and it has changed; not `alone`: its workflow with it."""
        step.named_s = now_s
        if self.gathering:
            self.changed_steps[step.number] = step
            if not alone:
                self.changed[step.workflow.number] = step.workflow

    def run(self, step: Step, *, running: bool) -> None:
        """It is at an engine, or back from one."""
        if (step.phase == "running") != running:
            session = step.workflow.sessions.get(step.session)
            if session is not None:
                session.running += 1 if running else -1
        step.phase = "running" if running else step.phase

    def end(self, step: Step, how: str, now_s: float) -> None:
        """It is over."""
        self._forget(step, now_s)
        step.phase = "finished" if how == "finished" else "failed" if how == "failed" else "cancelled"
        step.end_s = now_s
        step.workflow.steps.append(step)
        self.note(step, now_s)

    def has_ended(self, step_id: StepId) -> bool:
        """Whether it was over before."""
        return step_id in self._ended

    def _forget(self, step: Step, now_s: float) -> None:
        self.run(step, running=False)
        self.steps.pop(step.step_id, None)
        step.workflow.live.pop(step.step_id, None)
        session = step.workflow.sessions.get(step.session)
        if session is not None:
            session.live -= 1
            session.since_s = now_s
        self._ended[step.step_id] = None
        if len(self._ended) > ENDED_KEPT:
            del self._ended[next(iter(self._ended))]
