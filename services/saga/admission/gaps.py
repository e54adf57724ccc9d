"""Sessions between two steps: what is forecast of their gaps, and when they lose their claim. Called by `state.py`."""

from heapq import heappop, heappush

from saga.admission.active_set import ActiveSet
from saga.admission.needs import UNFORETOLD, growth
from saga.admission.records import Session, Workflow
from saga.admission.roster import Roster
from saga.contract.ids import PoolId, RootId
from saga.contract.messages import Forecast, StepFinished
from saga.kernel.effects import Effect

Effects = list[Effect]


class Gaps:
    """Of all workflows. Who is dormant is found when its time comes, not by looking at everybody."""

    def __init__(self, roster: Roster, active_set: ActiveSet) -> None:
        self._roster = roster
        self._set = active_set
        self._ends: list[tuple[float, RootId]] = []  # a heap of when claims may run out

    def next_s(self) -> float | None:
        """When a workflow may next be dormant; None: nobody is in a gap."""
        return self._ends[0][0] if self._ends else None

    def begins(self, workflow: Workflow, finished: StepFinished, now_s: float) -> None:
        """A step of the workflow ended: how long its session keeps its claim until a forecast says better."""
        session = workflow.sessions.get(finished.session)
        if session is None:
            session = workflow.sessions[finished.session] = Session(finished.session, finished.parent)
        if session.ended_s is not None:
            self._roster.pool(workflow.pool).cycle.learn(now_s - session.ended_s)
        if session.ended_s is None and not session.context_tokens:
            session.shared_tokens = finished.cached_tokens
            self._roster.pool(workflow.pool).learn_shared(finished.cached_tokens)
        session.ended_s = now_s
        session.home = finished.worker_id
        session.context_tokens = finished.prompt_tokens + finished.output_tokens
        session.answered = not finished.tools and finished.finish_reason != "tool_calls"
        self._until(session, workflow.root, now_s + self._set.held_s(UNFORETOLD))

    def foretold(self, forecast: Forecast, now_s: float) -> None:
        """The graph says what the session will do next."""
        workflow = self._roster.workflows.get(forecast.root)
        session = workflow.sessions.get(forecast.session) if workflow else None
        if workflow is None or session is None:
            return
        pool = self._roster.pool(workflow.pool)
        session.growth_tokens = growth(forecast, session.context_tokens, pool.context_tokens)
        session.remaining_engine_s = forecast.remaining_engine_s
        if forecast.samples and not workflow.foretold:
            workflow.foretold = True
            pool.learn_newcomer(session)
        if workflow.foretold:
            workflow.remaining_engine_s = sum(s.remaining_engine_s for s in workflow.sessions.values())
            self._roster.rank(workflow)
        if not session.live_steps:  # else it is back already, and this gap is history
            self._until(session, workflow.root, now_s + self._set.held_s(forecast))

    def _until(self, session: Session, root: RootId, dormant_at_s: float) -> None:
        session.dormant_at_s = dormant_at_s
        heappush(self._ends, (dormant_at_s, root))

    def ended(self, now_s: float) -> tuple[Effects, set[PoolId]]:
        """Who has been away for too long has no claim any more; the pools that have room now."""
        effects: Effects = []
        pools: set[PoolId] = set()
        while self._ends and self._ends[0][0] <= now_s:
            workflow = self._roster.workflows.get(heappop(self._ends)[1])
            if workflow is None or workflow.root not in self._roster.pool(workflow.pool).needs:
                continue
            if workflow.dormant(now_s):
                if workflow.seems_over(now_s):
                    self._roster.expectations.learn(workflow)
                self._roster.claim(workflow, now_s)
                effects += self._set.let_go(workflow, "dormant")
                pools.add(workflow.pool)
        return effects, pools
