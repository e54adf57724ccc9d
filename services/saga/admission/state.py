"""Admission's core: which workflows are active, and the tag of each of their steps.

Leader and standbys run the same core on the same messages; only a leader speaks. It knows no bus, clock or event
loop: `service.py` and the simulator both drive it. The books are in `roster.py`, what a step costs and is told is in
`stepbook.py`, who is refused in `door.py`, quotas of tenants in `quotas.py`, the active set in `policy.py`, tags in
`order.py` and `fairness.py`.
"""

from collections.abc import Iterable, Mapping
from heapq import heappop, heappush

from saga.admission import beats, usage
from saga.admission.active_set import ActiveSet
from saga.admission.beats import UNNAMED_S
from saga.admission.door import Bounds, Door
from saga.admission.ending import fell_silent, mark, take_out
from saga.admission.events import AdmissionEvent, Loaded, TenantChanged
from saga.admission.needs import UNFORETOLD, growth
from saga.admission.order import FairStart, TagPolicy
from saga.admission.policy import ActiveSetPolicy
from saga.admission.presence import WORKER_SILENT_S, Presence
from saga.admission.quotas import CLOSED_RETRY_S, Quotas
from saga.admission.records import Session, Step, Workflow, load
from saga.admission.roster import Roster
from saga.admission.stepbook import StepBook
from saga.contract.ids import PoolId, RootId, StepId, TenantId
from saga.contract.messages import (
    Forecast,
    GatewayBeat,
    Grant,
    Heartbeat,
    LeaderHello,
    LeaseReleased,
    LeaseReturned,
    LeaseTaken,
    Message,
    RefusalReason,
    ResendSteps,
    StepCancelled,
    StepClaim,
    StepFinished,
    StepProgress,
    StepReady,
    StepStarted,
    TenantsAsk,
    WorkerHello,
    WorkerLeaving,
    WorkflowEnded,
)
from saga.contract.subjects import Subjects
from saga.contract.tenants import TenantTerms
from saga.kernel.effects import (
    Answer,
    Demoted,
    Effect,
    Log,
    Promoted,
    Publish,
    Received,
    Reconnected,
    Tick,
    WakeAt,
)
from saga.kernel.steps import Move, StepState

TICK_S = 0.25
IDLE_TICK_S = 1.0  # without a step
IDLE_CLOSE_S = 3_600.0  # a workflow without a sign of life is closed

Effects = list[Effect]


class AdmissionState:
    """Every workflow of a cell."""

    def __init__(
        self,
        subjects: Subjects,
        policy: ActiveSetPolicy,
        order: TagPolicy | None = None,
        *,
        wall_offset_s: float = 0.0,
        bounds: Bounds = Bounds(),  # noqa: B008 - frozen
        weights: Mapping[TenantId, float] = {},
        max_wait_s: float = 600.0,
        infer_end_s: float = 0.0,
        worker_silent_s: float = WORKER_SILENT_S,
        idle_tick_s: float = IDLE_TICK_S,
    ) -> None:
        self.leading = False
        self.roster = Roster(policy.rank, max_wait_s / 2)
        self.book = StepBook(subjects, self.roster, order or FairStart(), wall_offset_s)
        self._subjects = subjects
        self._set = ActiveSet(self.roster, self.book, policy, subjects)
        self._wall_offset_s = wall_offset_s
        self._quotas = Quotas(self.roster, self.book, self._set, weights)
        self._door = Door(self.roster, self.book, self._quotas, bounds)
        self._max_wait_s = max_wait_s
        self._infer_end_s = infer_end_s
        self._idle_tick_s = idle_tick_s
        self._placement_fence = 0
        self._highest_fence = 0
        self._presence = Presence(self.roster, worker_silent_s)
        self._dormancy: list[tuple[float, RootId]] = []
        self._next_sweep_s = 0.0
        for tenant, weight in weights.items():
            self.book.fair.set_weight(tenant, weight)

    def check(self) -> None:
        """Assert what must always hold."""
        self.roster.check()
        self.book.check()

    def handle(self, event: AdmissionEvent, now_s: float) -> Effects:
        """Take an event, return what to do about it. `now_s`: monotonic."""
        self.roster.tenants.now_s = now_s
        match event:
            case Received(message):
                effects = self._received(message, now_s)
            case Tick():
                effects = self._tick(now_s)
            case Promoted(fence):
                effects = self._promoted(fence, now_s)
            case Demoted():
                self.leading = False
                effects = []
            case Loaded(rows):
                effects = self._loaded(rows, now_s)
            case TenantChanged(tenant, terms):
                effects = self._agreed(tenant, terms, now_s)
            case Reconnected():
                self.book.name_all(now_s)
                self._presence.see_all(now_s)
                effects = []
        if self.roster.tenants.dirty:
            effects += self._quotas.settle(now_s)
        return effects if self.leading else [effect for effect in effects if isinstance(effect, WakeAt)]

    # --- messages ----------------------------------------------------------------------------------------------

    def _received(self, message: Message, now_s: float) -> Effects:
        match message:
            case StepReady():
                return self._ready(message, now_s)
            case Grant():
                if message.fence >= self._placement_fence:
                    self._placement_fence = message.fence
                    self.book.granted(message)
                return []
            case LeaseTaken():
                return self._taken(message, now_s)
            case StepStarted() | StepProgress():
                self.book.running(message, now_s)
                return []
            case StepFinished():
                return self._finished(message, now_s)
            case StepCancelled():
                move = Move.FAIL if message.failed else Move.ABORT
                self.book.generated(message.step_id, message.output_tokens)
                return self._over(message.step_id, move, now_s)
            case LeaseReturned(reason="client_gone"):
                return self._over(message.step_id, Move.ABORT, now_s)
            case LeaseReturned():
                self.book.returned(message, now_s)
                return []
            case LeaseReleased():
                self.book.back_to_admitted(message.step_id, message.attempt)
                return []
            case Forecast():
                return self._forecast(message, now_s)
            case Heartbeat():
                return self._choose(self._presence.said(message.worker, now_s, serves=message.healthy), now_s)
            case WorkerHello():
                return self._choose(self._presence.said(message, now_s, serves=True), now_s)
            case WorkerLeaving():
                return self._choose(self._presence.gone(message.worker_id), now_s)
            case GatewayBeat():
                return beats.heard(message, self.book, self._subjects, now_s)
            case StepClaim():
                return self._claim(message, now_s)
            case WorkflowEnded():
                ended = mark(message, self.roster)
                return self._went_on(ended, now_s) if ended is not None else []
            case ResendSteps(service="placement"):
                return self.book.admit_again(message.step_ids)
            case LeaderHello():
                return self._leader_hello(message)
            case TenantsAsk():
                return [Answer(usage.answer(message, self.roster.tenants, self._quotas, self.book.fence, now_s))]
            case _:
                return []

    def _ready(self, ready: StepReady, now_s: float) -> Effects:
        accepted = Answer(self.book.accepted(ready))
        if self.book.has_ended(ready.step_id):
            return [accepted]
        if ready.step_id in self.book.steps:
            return [accepted, *self.book.repeated(ready, now_s)]
        effects = [e for root in self._door.too_old(ready, now_s) for e in self._set.close(self.roster.workflows[root])]
        refusal = self._door.refusal_of(ready)
        if refusal is not None:
            return [Answer(refusal), *effects]
        known = self.roster.workflows.get(ready.root)
        workflow = known or self.roster.begin(ready, now_s - ready.waited_s)
        step = self.book.add(workflow, ready, now_s)
        self.roster.claim(workflow, now_s)
        effects += self._set.choose(workflow.pool, now_s, only=workflow)
        if step.life.state is StepState.WAITING:
            step.wait_cause = "inactive"
            effects += self._quotas.settle(now_s)
            if too_many := self._quotas.too_many_wait(step):
                return [*self._turned_away(workflow, step, too_many, now_s, new=known is None), *effects]
        workflow.final = workflow.final or ready.final
        return [accepted, *effects] if known else [accepted, self.book.row(workflow), *effects]

    def _turned_away(self, workflow: Workflow, step: Step, why: str, now_s: float, *, new: bool) -> Effects:
        """Too many wait already; the step is forgotten, with its workflow if that began with it."""
        retry_after_s = self._quotas.retry_after_s(workflow.tenant, now_s)
        refused = Answer(self.book.refused(step.step, "quota", why, retry_after_s))
        if not new:
            return [refused, *self._over(step.step.step_id, Move.REFUSE, now_s, silent=True)]
        self.book.end(step.step.step_id, Move.REFUSE, now_s, silent=True)
        self.roster.remove(workflow)
        return [refused, *self._set.choose(workflow.pool, now_s)]

    def _taken(self, taken: LeaseTaken, now_s: float) -> Effects:
        self.book.running(taken, now_s)
        workflow = self.roster.workflows.get(taken.root)
        session = workflow.sessions.get(taken.session) if workflow else None
        if workflow is not None and session is not None:
            session.home = taken.worker_id
            self.roster.moved(workflow)
        return []

    def _finished(self, finished: StepFinished, now_s: float) -> Effects:
        workflow = self.roster.workflows.get(finished.root)
        if workflow is not None:
            session = workflow.sessions.get(finished.session)
            if session is None:
                session = workflow.sessions[finished.session] = Session(finished.session, finished.parent)
            session.home = finished.worker_id
            session.context_tokens = finished.prompt_tokens + finished.output_tokens
            session.answered = not finished.tools and finished.finish_reason != "tool_calls"
            session.dormant_at_s = now_s + self._set.held_s(UNFORETOLD)
            heappush(self._dormancy, (session.dormant_at_s, finished.root))
            workflow.final = workflow.final or finished.final
        self.book.settle(finished)
        return self._over(finished.step_id, Move.FINISH, now_s)

    def _over(self, step_id: StepId, move: Move, now_s: float, *, silent: bool = False) -> Effects:
        workflow = self.book.end(step_id, move, now_s, silent=silent)
        return self._went_on(workflow, now_s) if workflow is not None else []

    def _went_on(self, workflow: Workflow, now_s: float) -> Effects:
        """A step of the workflow is over, or all of it is."""
        workflow.last_sign_s = now_s
        if workflow.final and not workflow.steps:
            return [*self._set.close(workflow), *self._set.choose(workflow.pool, now_s)]
        ended = self._set.end(take_out(workflow))
        self.roster.claim(workflow, now_s)
        return [*ended, self.book.row(workflow), *self._set.choose(workflow.pool, now_s)]

    def _forecast(self, forecast: Forecast, now_s: float) -> Effects:
        workflow = self.roster.workflows.get(forecast.root)
        session = workflow.sessions.get(forecast.session) if workflow else None
        if workflow is None or session is None:
            return []
        pool = self.roster.pool(workflow.pool)
        session.growth_tokens = growth(forecast, session.context_tokens, pool.context_tokens)
        session.remaining_engine_s = forecast.remaining_engine_s
        if forecast.samples and not workflow.foretold:
            workflow.foretold = True
            pool.learn_newcomer(session)
        if workflow.foretold:
            workflow.remaining_engine_s = sum(s.remaining_engine_s for s in workflow.sessions.values())
            self.roster.rank(workflow)
        if session.live_steps:
            return []  # it is back already: this gap is history
        session.dormant_at_s = now_s + self._set.held_s(forecast)
        heappush(self._dormancy, (session.dormant_at_s, forecast.root))
        return []

    def _claim(self, claim: StepClaim, now_s: float) -> Effects:
        """A step that runs already, admitted by a leader before this one."""
        step_id = claim.step.step_id
        if self.book.has_ended(step_id):
            return []
        if step_id not in self.book.steps:
            workflow = self.roster.workflows.get(claim.step.root)
            if workflow is None:
                workflow = self.roster.begin(claim.step, now_s - claim.step.waited_s)
            self.book.add(workflow, claim.step, now_s)
        self.book.claimed(claim, now_s)
        workflow = self.roster.workflows[claim.step.root]
        workflow.final = workflow.final or claim.step.final
        workflow.sessions[claim.step.session].home = claim.worker_id
        self.roster.claim(workflow, now_s)
        effects = self._set.activate(workflow)
        self.roster.moved(workflow)
        return effects + self._set.choose(workflow.pool, now_s)

    # --- leadership --------------------------------------------------------------------------------------------

    def _loaded(self, rows: tuple[bytes, ...], now_s: float) -> Effects:
        for row in rows:
            saved = load(row)
            known = self.roster.workflows.get(saved.root)
            submitted_s = min(now_s, saved.submitted_at - self._wall_offset_s)
            if known is None:
                self.roster.add(Workflow.restored(saved, submitted_s, now_s))
        return []

    def _agreed(self, tenant: TenantId, terms: TenantTerms | None, now_s: float) -> Effects:
        """What waits now and never could go on is refused; what runs goes on."""
        self._quotas.agree(tenant, terms)
        effects: Effects = []
        for step in list(self.book.steps.values()):
            if step.step.tenant == tenant and step.life.state is StepState.WAITING:
                never = self._quotas.never(step.step)
                effects += self._give_up(step, "quota", never, CLOSED_RETRY_S, now_s) if never else []
        return effects

    def _promoted(self, fence: int, now_s: float) -> Effects:
        self.leading = True
        self.book.fence = self._highest_fence = fence
        self.book.name_all(now_s)
        self._quotas.taken_over(now_s)
        hello = LeaderHello(service="admission", fence=fence)
        effects: Effects = [
            Publish(self._subjects.leader_hello(), hello),
            Log("admission.leading", {"fence": fence, "workflows": len(self.roster.workflows)}),
        ]
        return effects + self.book.admit_again(tuple(self.book.steps))

    def _leader_hello(self, hello: LeaderHello) -> Effects:
        if hello.service == "admission":
            if hello.fence > self._highest_fence:
                self._highest_fence = hello.fence
                self.leading = False  # replaced, even if KV could not say so yet
            return []
        if hello.fence < self._placement_fence:
            return []
        self._placement_fence = hello.fence
        return self.book.admit_again(tuple(self.book.steps))

    def _choose(self, pool_ids: Iterable[PoolId], now_s: float) -> Effects:
        return [effect for pool_id in pool_ids for effect in self._set.choose(pool_id, now_s)]

    # --- time --------------------------------------------------------------------------------------------------

    def _tick(self, now_s: float) -> Effects:
        effects: Effects = []
        pools = set(self._set.impatient())
        while self._dormancy and self._dormancy[0][0] <= now_s:
            workflow = self.roster.workflows.get(heappop(self._dormancy)[1])
            if (
                workflow is not None
                and workflow.root in self.roster.pool(workflow.pool).needs
                and workflow.dormant(now_s)
            ):
                self.roster.claim(workflow, now_s)
                effects += self._set.let_go(workflow, "dormant")
                pools.add(workflow.pool)
        effects += self._choose(sorted(pools), now_s)
        effects += self._quotas.tick(now_s)
        for worker_id in self._presence.silent(now_s):
            effects += self._choose(self._presence.gone(worker_id), now_s)
        if now_s >= self._next_sweep_s:
            self._next_sweep_s = now_s + 1.0
            effects += self._sweep(now_s)
        dormancy_s = self._dormancy[0][0] - now_s if self._dormancy else self._idle_tick_s
        next_s = TICK_S if self.book.steps else max(TICK_S, min(self._idle_tick_s, dormancy_s))
        return [*effects, WakeAt(now_s + next_s)]

    def _sweep(self, now_s: float) -> Effects:
        effects: Effects = []
        for step_id, step in list(self.book.steps.items()):
            if now_s - step.named_s > UNNAMED_S:
                effects += self._over(step_id, Move.ABORT, now_s, silent=True)
            elif step.life.state is StepState.WAITING and now_s - step.since_s > self._max_wait_s:
                effects += self._waited_too_long(step, now_s)
        for workflow in [
            w for w in self.roster.workflows.values() if fell_silent(w, now_s, IDLE_CLOSE_S, self._infer_end_s)
        ]:
            effects += self._set.close(workflow, quietly=now_s - workflow.last_sign_s <= IDLE_CLOSE_S)
        return effects

    def _waited_too_long(self, step: Step, now_s: float) -> Effects:
        quota = self._quotas.waits_for(step)
        cause = f"its turn: tenant {step.step.tenant} is at its quota {quota}" if quota else "its turn"
        detail = f"the workflow waited {self._max_wait_s:.0f} s, the limit, for {cause}"
        return self._give_up(step, "wait_bound", detail, 30.0, now_s)

    def _give_up(self, step: Step, reason: RefusalReason, detail: str, retry_after_s: float, now_s: float) -> Effects:
        """Refuse a step that waited. Silently ended: should the word be lost, its gateway asks again and hears it."""
        told = self.book.given_up(step, reason, detail, retry_after_s)
        return [told, *self._over(step.step.step_id, Move.REFUSE, now_s, silent=True)]
