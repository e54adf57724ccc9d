"""Admission's core: which workflows are active, and the tag of each of their steps.

Leader and standbys run the same core on the same messages; only a leader speaks. It knows no bus, clock or event
loop: `service.py` and the simulator both drive it. The books are in `roster.py`, what a step costs and is told is in
`stepbook.py`, who is refused in `door.py`, the active set in `policy.py`, tags in `order.py` and `fairness.py`.
"""

from collections.abc import Iterable
from heapq import heappop, heappush

import msgspec

from saga.admission.active_set import ActiveSet
from saga.admission.door import refusal_of
from saga.admission.needs import UNFORETOLD, growth
from saga.admission.order import FairStart, TagPolicy
from saga.admission.policy import ActiveSetPolicy
from saga.admission.presence import WORKER_SILENT_S, Presence
from saga.admission.records import Session, Step, Workflow, load
from saga.admission.roster import Roster
from saga.admission.stepbook import StepBook
from saga.contract.ids import PoolId, RootId, StepId
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
    ResendSteps,
    StepCancelled,
    StepClaim,
    StepFinished,
    StepProgress,
    StepReady,
    StepRefused,
    StepStarted,
    WorkerHello,
    WorkerLeaving,
)
from saga.contract.subjects import Subjects
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
UNNAMED_S = 5.0  # a step that no beat names for so long is aborted
ASK_AGAIN_S = 0.5  # of a waiting step that a beat names and nobody sent: it may still be on its way
IDLE_CLOSE_S = 3_600.0  # a workflow without a sign of life is closed

Effects = list[Effect]


class Loaded(msgspec.Struct, frozen=True, gc=False):
    """Event: rows of the workflow table, read by a new leader before it is promoted."""

    rows: tuple[bytes, ...]


class AdmissionState:
    """Every workflow of a cell."""

    def __init__(
        self,
        subjects: Subjects,
        policy: ActiveSetPolicy,
        order: TagPolicy | None = None,
        *,
        wall_offset_s: float = 0.0,
        max_waiting_steps: int = 10_000,
        max_wait_s: float = 600.0,
        worker_silent_s: float = WORKER_SILENT_S,
        idle_tick_s: float = IDLE_TICK_S,
    ) -> None:
        self.leading = False
        self.roster = Roster(policy.rank, max_wait_s / 2)
        self.book = StepBook(subjects, self.roster, order or FairStart(), wall_offset_s)
        self._subjects = subjects
        self._set = ActiveSet(self.roster, self.book, policy, subjects)
        self._wall_offset_s = wall_offset_s
        self._max_waiting_steps = max_waiting_steps
        self._max_wait_s = max_wait_s
        self._idle_tick_s = idle_tick_s
        self._placement_fence = 0
        self._highest_fence = 0
        self._presence = Presence(self.roster, worker_silent_s)
        self._dormancy: list[tuple[float, RootId]] = []
        self._next_sweep_s = 0.0

    def check(self) -> None:
        """Assert what must always hold."""
        self.roster.check()
        self.book.check()

    def handle(self, event: Received | Tick | Promoted | Demoted | Reconnected | Loaded, now_s: float) -> Effects:
        """Take an event, return what to do about it. `now_s`: monotonic."""
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
            case Reconnected():
                self.book.name_all(now_s)
                self._presence.see_all(now_s)
                effects = []
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
                return self._beat(message, now_s)
            case StepClaim():
                return self._claim(message, now_s)
            case ResendSteps(service="placement"):
                return self.book.admit_again(message.step_ids)
            case LeaderHello():
                return self._leader_hello(message)
            case _:
                return []

    def _ready(self, ready: StepReady, now_s: float) -> Effects:
        accepted = Answer(self.book.accepted(ready))
        if self.book.has_ended(ready.step_id):
            return [accepted]
        if ready.step_id in self.book.steps:
            return [accepted, *self.book.repeated(ready, now_s)]
        refusal = refusal_of(ready, self.roster, self.book, self._max_waiting_steps)
        if refusal is not None:
            return [Answer(refusal)]
        workflow = self.roster.workflows.get(ready.root)
        effects: Effects = [accepted]
        if workflow is None:
            workflow = self.roster.begin(ready, now_s - ready.waited_s)
            effects.append(self.book.row(workflow))
        step = self.book.add(workflow, ready, now_s)
        workflow.final = workflow.final or ready.final
        self.roster.claim(workflow, now_s)
        effects += self._set.choose(workflow.pool, now_s, only=workflow)
        if step.life.state is StepState.WAITING:
            step.wait_cause = "inactive"
        return effects

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
            session.dormant_at_s = now_s + self._set.held_s(UNFORETOLD)
            heappush(self._dormancy, (session.dormant_at_s, finished.root))
            workflow.final = workflow.final or finished.final
        self.book.settle(finished)
        return self._over(finished.step_id, Move.FINISH, now_s)

    def _over(self, step_id: StepId, move: Move, now_s: float, *, silent: bool = False) -> Effects:
        workflow = self.book.end(step_id, move, now_s, silent=silent)
        if workflow is None:
            return []
        workflow.last_sign_s = now_s
        if workflow.final and not workflow.steps:
            return [*self._set.close(workflow), *self._set.choose(workflow.pool, now_s)]
        self.roster.claim(workflow, now_s)
        return [self.book.row(workflow), *self._set.choose(workflow.pool, now_s)]

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

    # --- gateways' beats and claims ----------------------------------------------------------------------------

    def _beat(self, beat: GatewayBeat, now_s: float) -> Effects:
        unknown: list[StepId] = []
        again: list[StepId] = []
        for waiting in beat.waiting:
            step = self.book.steps.get(waiting.step_id)
            if step is None:
                if waiting.waited_s > ASK_AGAIN_S and not self.book.has_ended(waiting.step_id):
                    unknown.append(waiting.step_id)
                continue
            step.named_s = now_s
            if waiting.attempt > step.step.attempt:  # its LeaseReturned was lost
                self.book.back_to_admitted(waiting.step_id, waiting.attempt)
                again.append(waiting.step_id)
        for running in beat.running:
            step = self.book.steps.get(running.step_id)
            if step is not None:
                step.named_s = now_s
                step.output_tokens = max(step.output_tokens, running.output_tokens)
            elif not self.book.has_ended(running.step_id):
                unknown.append(running.step_id)
        effects = self.book.admit_again(tuple(again))
        if unknown:
            ask = ResendSteps(service="admission", fence=self.book.fence, step_ids=tuple(unknown))
            effects.append(Publish(self._subjects.gateway(beat.gateway_id), ask))
        return effects

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

    def _promoted(self, fence: int, now_s: float) -> Effects:
        self.leading = True
        self.book.fence = self._highest_fence = fence
        self.book.name_all(now_s)
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
                effects += self._give_up_waiting(step, now_s)
        idle = [w for w in self.roster.workflows.values() if not w.steps and now_s - w.last_sign_s > IDLE_CLOSE_S]
        return effects + [effect for workflow in idle for effect in self._set.close(workflow)]

    def _give_up_waiting(self, step: Step, now_s: float) -> Effects:
        detail = f"the workflow waited {self._max_wait_s:.0f} s for its turn, the limit"
        refused = StepRefused(
            step_id=step.step.step_id,
            attempt=step.step.attempt,
            fence=self.book.fence,
            reason="wait_bound",
            detail=detail,
            retry_after_s=30.0,
        )
        publish = Publish(self._subjects.gateway(step.gateway_id), refused)
        return [publish, *self._over(step.step.step_id, Move.REFUSE, now_s)]
