"""Admission's core: which workflows are active, and the tag of each of their steps.

Leader and standbys run the same core on the same messages; only a leader speaks. It knows no bus, clock or event
loop: `service.py` and the simulator both drive it. The books are in `roster.py`, what a step costs and is told is in
`stepbook.py`, who is refused in `door.py`, how things end in `ending.py`, gaps between steps in `gaps.py`, quotas of
tenants in `quotas.py`, the active set in `policy.py`, the order inside a tenant in `ranks.py`, tags in `order.py` and
`fairness.py`.
"""

from collections.abc import Iterable, Mapping

from saga.admission import beats, usage
from saga.admission.active_set import ActiveSet
from saga.admission.door import Bounds, Door
from saga.admission.ending import Ending
from saga.admission.events import AdmissionEvent, Loaded, TenantChanged
from saga.admission.gaps import Gaps
from saga.admission.order import FairStart, TagPolicy
from saga.admission.policy import ActiveSetPolicy
from saga.admission.presence import WORKER_SILENT_S, Presence
from saga.admission.quotas import Quotas
from saga.admission.ranks import ByAge, Rank
from saga.admission.records import Step, Workflow, load
from saga.admission.roster import Roster
from saga.admission.stepbook import StepBook
from saga.admission.stories import AdmissionStories
from saga.contract.ids import PoolId, TenantId
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
    TenantsAsk,
    WhyAsk,
    WorkerHello,
    WorkerLeaving,
    WorkerStands,
    WorkflowEnded,
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

Effects = list[Effect]


class AdmissionState:
    """Every workflow of a cell."""

    def __init__(
        self,
        subjects: Subjects,
        policy: ActiveSetPolicy,
        order: TagPolicy | None = None,
        rank: Rank | None = None,
        *,
        wall_offset_s: float = 0.0,
        bounds: Bounds = Bounds(),  # noqa: B008 - frozen
        weights: Mapping[TenantId, float] = {},
        max_wait_s: float = 600.0,
        infer_end_s: float = 0.0,
        speed: float = 1.0,  # of simulated engines and their agents
        worker_silent_s: float = WORKER_SILENT_S,
        idle_tick_s: float = IDLE_TICK_S,
        stories: bool = False,  # remember recent steps for `saga why`
    ) -> None:
        self.leading = False
        self.roster = Roster(rank or ByAge(), max_wait_s / 2)
        self.book = StepBook(subjects, self.roster, order or FairStart(), wall_offset_s, speed)
        self._subjects = subjects
        self._set = ActiveSet(self.roster, self.book, policy, subjects, speed)
        self._wall_offset_s = wall_offset_s
        self._quotas = Quotas(self.roster, self.book, self._set, weights)
        self._door = Door(self.roster, self.book, self._quotas, bounds)
        self._gaps = Gaps(self.roster, self._set)
        self._ending = Ending(
            self.roster, self.book, self._set, self._quotas, max_wait_s=max_wait_s, infer_end_s=infer_end_s
        )
        self._idle_tick_s = idle_tick_s
        self._placement_fence = 0
        self._highest_fence = 0
        self._presence = Presence(self.roster, worker_silent_s)
        self._stories = AdmissionStories(self.roster, self.book, self._quotas) if stories else None
        self._next_sweep_s = 0.0
        for tenant, weight in weights.items():
            self.book.fair.set_weight(tenant, weight)

    @property
    def pauses(self) -> int:
        """Workflows taken out of the active set at a step boundary, since the core was made."""
        return self._set.pauses

    def check(self) -> None:
        """Assert what must always hold."""
        self.roster.check()
        self.book.check()

    def handle(self, event: AdmissionEvent, now_s: float) -> Effects:
        """Take an event, return what to do about it. `now_s`: monotonic."""
        self.roster.tenants.now_s = now_s
        heard = event.message if isinstance(event, Received) else None
        if self._stories is not None:
            self._stories.heard(heard, now_s)
        effects: Effects = []
        match event:
            case Received(message):
                effects = self._received(message, now_s)
            case Tick():
                effects = self._tick(now_s)
            case Promoted(fence):
                effects = self._promoted(fence, now_s)
            case Demoted():
                self.leading = False
            case Loaded(rows):
                effects = self._loaded(rows, now_s)
            case TenantChanged(tenant, terms):
                self._quotas.agree(tenant, terms)
                effects = self._ending.what_never_can_go_on(tenant, now_s)
            case Reconnected():
                self.book.name_all(now_s)
                self._presence.see_all(now_s)
        if self.roster.tenants.dirty:
            effects += self._quotas.settle(now_s)
        if self._stories is not None and self.leading:
            self._stories.said(heard, effects, now_s)
        return effects if self.leading else [effect for effect in effects if isinstance(effect, WakeAt)]

    # --- messages ----------------------------------------------------------------------------------------------

    def _received(self, message: Message, now_s: float) -> Effects:
        match message:
            case StepReady():
                return self._ready(message, now_s)
            case Grant():
                self._led_by(message.admission_fence)
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
                return self._ending.step(message.step_id, move, now_s)
            case LeaseReturned(reason="client_gone"):
                return self._ending.step(message.step_id, Move.ABORT, now_s)
            case LeaseReturned():
                self.book.returned(message, now_s)
                return []
            case LeaseReleased():
                self.book.back_to_admitted(message.step_id, message.attempt)
                return []
            case Forecast():
                self._gaps.foretold(message, now_s)
                return []
            case Heartbeat():
                return self._choose(self._presence.beaten(message, now_s), now_s)
            case WorkerHello():
                return self._choose(self._presence.said(message, now_s, serves=True), now_s)
            case WorkerLeaving():
                return self._choose(self._presence.gone(message.worker_id), now_s)
            case WorkerStands() if message.fence >= self._placement_fence:
                return self._choose(self._presence.stands(message), now_s)
            case GatewayBeat():
                return beats.heard(message, self.book, self._subjects, now_s)
            case StepClaim():
                return self._claim(message, now_s)
            case WorkflowEnded():
                return self._ending.said(message, now_s)
            case ResendSteps(service="placement"):
                return self.book.admit_again(message.step_ids)
            case ResendSteps() | StepRefused():  # said by an admission to a gateway
                self._led_by(message.fence)
                return []
            case LeaderHello():
                return self._leader_hello(message)
            case WhyAsk() if self._stories is not None:
                return [Answer(self._stories.answer(message, self.book.fence, now_s))]
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
            return [refused, *self._ending.step(step.step.step_id, Move.REFUSE, now_s, silent=True)]
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
            self._gaps.begins(workflow, finished, now_s)
            workflow.final = workflow.final or finished.final
        self.book.settle(finished)
        return self._ending.step(finished.step_id, Move.FINISH, now_s)

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
            if saved is None:
                continue
            known = self.roster.workflows.get(saved.root)
            submitted_s = min(now_s, saved.submitted_at - self._wall_offset_s)
            if known is None:
                self.roster.add(Workflow.restored(saved, submitted_s, now_s))
        return []

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
            self._led_by(hello.fence)
            return []
        if hello.fence < self._placement_fence:
            return []
        self._placement_fence = hello.fence
        self._presence.placement_is_new()
        return self.book.admit_again(tuple(self.book.steps))

    def _led_by(self, fence: int) -> None:
        """Somebody heard this leader of admissions: a later one has replaced us, even if KV could not say so yet."""
        if fence > self._highest_fence:
            self._highest_fence = fence
            self.leading = False

    def _choose(self, pool_ids: Iterable[PoolId], now_s: float) -> Effects:
        return [effect for pool_id in pool_ids for effect in self._set.choose(pool_id, now_s)]

    # --- time --------------------------------------------------------------------------------------------------

    def _tick(self, now_s: float) -> Effects:
        effects, pools = self._gaps.ended(now_s)
        pools.update(self._set.impatient())
        effects += self._choose(sorted(pools), now_s)
        effects += self._quotas.tick(now_s)
        for worker_id in self._presence.silent(now_s):
            effects += self._choose(self._presence.gone(worker_id), now_s)
        if now_s >= self._next_sweep_s:
            self._next_sweep_s = now_s + 1.0
            effects += self._ending.sweep(now_s)
        next_s = TICK_S
        if not self.book.steps:
            gap_ends_s = self._gaps.next_s()
            next_s = self._idle_tick_s if gap_ends_s is None else min(self._idle_tick_s, gap_ends_s - now_s)
        return [*effects, WakeAt(now_s + max(TICK_S, next_s))]
