"""Admission's view of every step: its life, its charge, and what is said of it. Called by `state.py` alone."""

import hashlib
from collections import OrderedDict
from collections.abc import Sequence

import msgspec

from saga.admission.fairness import FairQueue
from saga.admission.openings import openings
from saga.admission.order import TagPolicy
from saga.admission.overheads import Overheads, cause_of, spared_tokens
from saga.admission.records import Session, Step, Workflow, save
from saga.admission.roster import Pool, Roster
from saga.contract.ids import RootId, StepId
from saga.contract.messages import (
    Accepted,
    Grant,
    LeaseReturned,
    LeaseTaken,
    RefusalReason,
    Refused,
    StepAdmitted,
    StepClaim,
    StepFinished,
    StepProgress,
    StepReady,
    StepRefused,
    StepStarted,
    Tag,
)
from saga.contract.subjects import Subjects
from saga.kernel.effects import Effect, Persist, Publish
from saga.kernel.steps import Move, StepState

MAX_ENDED = 20_000  # step ids remembered so that a late message cannot bring one back


class StepBook:
    """Steps that are not over, and the fair queue that tags them."""

    def __init__(
        self, subjects: Subjects, roster: Roster, order: TagPolicy, wall_offset_s: float, speed: float = 1.0
    ) -> None:
        """`speed`: engine-seconds in a second, of simulated engines."""
        self.fence = 0
        self.fair = FairQueue(roster.weights)
        self.overheads = Overheads()
        self.order = order
        self.steps: dict[StepId, Step] = {}
        self._subjects = subjects
        self._roster = roster
        self._wall_offset_s = wall_offset_s
        self._speed = speed
        self._waiting: set[StepId] = set()
        self._ended: OrderedDict[StepId, None] = OrderedDict()

    # --- questions ---------------------------------------------------------------------------------------------

    @property
    def waiting(self) -> int:
        """Steps whose workflow is not active."""
        return len(self._waiting)

    def has_ended(self, step_id: StepId) -> bool:
        """Whether the step was over not long ago."""
        return step_id in self._ended

    def check(self) -> None:
        """Assert what must hold between steps and workflows."""
        in_workflows = {step_id for w in self._roster.workflows.values() for step_id in w.steps}
        assert in_workflows == set(self.steps)
        assert self._waiting == {i for i, step in self.steps.items() if step.life.state is StepState.WAITING}
        for step_id, step in self.steps.items():
            assert (step.tag is None) == (step.charge is None) == (step.life.state is StepState.WAITING), step_id
            assert step.charge is None or step.charge.waits == (step.life.state is StepState.ADMITTED), step_id
        self.fair.check([step.charge for step in self.steps.values() if step.charge is not None])

    # --- what is said ------------------------------------------------------------------------------------------

    def accepted(self, ready: StepReady) -> Accepted:
        """The step is known."""
        return Accepted(step_id=ready.step_id, attempt=ready.attempt, fence=self.fence)

    def refused(self, ready: StepReady, reason: RefusalReason, detail: str, retry_after_s: float) -> Refused:
        """The step will not run."""
        return Refused(
            step_id=ready.step_id,
            attempt=ready.attempt,
            fence=self.fence,
            reason=reason,
            detail=detail,
            retry_after_s=retry_after_s,
        )

    def given_up(self, step: Step, reason: RefusalReason, detail: str, retry_after_s: float) -> Publish:
        """A step that was accepted will not run after all."""
        refused = StepRefused(
            step_id=step.step.step_id,
            attempt=step.step.attempt,
            fence=self.fence,
            reason=reason,
            detail=detail,
            retry_after_s=retry_after_s,
        )
        self._roster.tenants.of(step.step.tenant).refused += reason == "quota"
        return Publish(self._subjects.gateway(step.gateway_id), refused)

    def key(self, root: RootId) -> str:
        """A workflow's key in the table: KV keys allow few characters."""
        return hashlib.sha256(root.encode()).hexdigest()[:40]

    def row(self, workflow: Workflow) -> Persist:
        """A workflow's row in the table."""
        return Persist(self.key(workflow.root), save(workflow, self._wall_offset_s))

    def _admitted(self, workflow: Workflow, step: Step) -> Publish:
        assert step.tag is not None
        session = workflow.sessions[step.step.session]
        new_session = not session.home and not session.context_tokens
        pool = self._roster.pool(workflow.pool)
        admitted = StepAdmitted(
            step=step.step,
            tag=step.tag,
            home=session.home or workflow.bound,
            waited=step.wait_cause,
            output_claim_tokens=step.output_claim_tokens,
            fence=self.fence,
            new_session=new_session,
            fits=openings(pool, step.claim_tokens, workflow.bound) if new_session else (),
        )
        return Publish(self._subjects.step_admitted(), admitted)

    # --- the life of a step ------------------------------------------------------------------------------------

    def add(self, workflow: Workflow, ready: StepReady, now_s: float) -> Step:
        """A new step."""
        output_tokens = self._roster.pool(ready.pool).outputs.claim_tokens(ready.max_output_tokens)
        step = self.steps[ready.step_id] = workflow.steps[ready.step_id] = Step(ready, now_s, output_tokens)
        self._waiting.add(ready.step_id)
        self._roster.tenants.waits(step)
        workflow.last_sign_s, workflow.unseen = now_s, False
        session = workflow.sessions.get(ready.session)
        if session is None:
            workflow.forget_sessions(now_s)
            session = workflow.sessions[ready.session] = Session(ready.session, ready.parent)
        step.held = session.dormant_at_s > now_s - ready.waited_s
        session.live_steps += 1
        session.over = False
        return step

    def repeated(self, ready: StepReady, now_s: float) -> list[Effect]:
        """The gateway sent it again: an answer was lost, or a leader changed."""
        step = self.steps[ready.step_id]
        step.named_s = now_s
        if ready.attempt < step.step.attempt:
            return []
        self.back_to_admitted(ready.step_id, ready.attempt, only_if_later=True)
        step.step = ready
        workflow = self._roster.workflows[ready.root]
        return [self._admitted(workflow, step)] if step.tag is not None else []

    def admit(self, workflow: Workflow, step: Step) -> list[Effect]:
        """The workflow is active: tag the step and pass it on."""
        session = workflow.sessions[step.step.session]
        pool = self._roster.pool(workflow.pool)
        cached_tokens = min(session.context_tokens, step.step.prompt_tokens) if session.home or session.taken else 0
        step.paid_tokens = step.step.prompt_tokens - cached_tokens
        step.charge = self.fair.charge(workflow.tenant, self._cost_s(pool, step))
        pool.turns.charged(workflow.tenant, step.charge.normalised_s)
        step.tag = self.order.tag(workflow, step, step.charge.start_s)
        step.life.advance(Move.ADMIT)
        self._waiting.discard(step.step.step_id)
        self._roster.tenants.admitted(step)
        return [self._admitted(workflow, step)]

    def admit_again(self, step_ids: Sequence[StepId]) -> list[Effect]:
        """Placement may not know these, or is a new leader: tell it what no gateway has taken."""
        effects: list[Effect] = []
        for step_id in step_ids:
            step = self.steps.get(step_id)
            if step is None or step.tag is None:
                continue
            if step.life.state is StepState.GRANTED:
                self._advance(step, Move.RETURN)
            if step.life.state is StepState.ADMITTED:
                effects.append(self._admitted(self._roster.workflows[step.step.root], step))
        return effects

    def granted(self, grant: Grant) -> None:
        """Placement found a slot; now the uncached part is known better."""
        step = self.steps.get(grant.step_id)
        if step is None or grant.attempt != step.step.attempt or not step.life.may(Move.GRANT):
            return
        self._advance(step, Move.GRANT)
        step.moved_from = grant.moved_from
        pool = self._roster.pool(step.step.pool)
        cause = cause_of(step, self._session(step), pool)
        prompt_tokens = step.step.prompt_tokens
        step.paid_tokens = prompt_tokens - spared_tokens(step, prompt_tokens, grant.cached_tokens, cause)
        self._recharge(step, self._cost_s(pool, step))

    def running(self, word: LeaseTaken | StepStarted | StepProgress, now_s: float) -> None:
        """The gateway says that the step runs."""
        step = self.steps.get(word.step_id)
        if step is None or word.attempt != step.step.attempt:
            return
        step.named_s = now_s
        move = Move.TAKE if isinstance(word, LeaseTaken) else Move.START
        if step.tag is not None and step.life.may(move):
            self._advance(step, move)
        if isinstance(word, StepProgress) and word.output_tokens > step.output_tokens:
            step.output_tokens = word.output_tokens
            pool = self._roster.pool(step.step.pool)
            if step.output_tokens > self._expected_output(pool, step):
                self._recharge(step, self._cost_s(pool, step))

    def generated(self, step_id: StepId, output_tokens: int) -> None:
        """At least so many, as its gateway says."""
        step = self.steps.get(step_id)
        if step is not None:
            step.output_tokens = max(step.output_tokens, output_tokens)

    def claimed(self, claim: StepClaim, now_s: float) -> None:
        """The step runs, and this leader has not admitted it."""
        step = self.steps[claim.step.step_id]
        step.named_s = now_s
        if step.charge is None:
            step.charge = self.fair.charge(self._roster.workflows[step.step.root].tenant, 0.0)
            step.tag = Tag(step.charge.start_s, 0.0, claim.step.step_id)
        if step.life.may(Move.START):
            self._advance(step, Move.START)
        if claim.step.step_id in self._waiting:
            self._waiting.discard(claim.step.step_id)
            self._roster.tenants.admitted(step)

    def returned(self, returned: LeaseReturned, now_s: float) -> None:
        """A lease came back; its step waits in placement again."""
        step = self.steps.get(returned.step_id)
        if step is None:
            return
        step.named_s = now_s
        if returned.reason in ("engine_died", "expired"):
            self.back_to_admitted(returned.step_id, max(returned.next_attempt, returned.attempt))

    def back_to_admitted(self, step_id: StepId, attempt: int, *, only_if_later: bool = False) -> None:
        """The step has no lease any more, or a later attempt of it waits."""
        step = self.steps.get(step_id)
        if step is None or attempt < step.step.attempt or (only_if_later and attempt == step.step.attempt):
            return
        if attempt > step.step.attempt:
            step.step = msgspec.structs.replace(step.step, attempt=attempt)
        if step.life.may(Move.RETURN):
            self._advance(step, Move.RETURN)

    def settle(self, finished: StepFinished) -> None:
        """The truth is known: correct the charge, learn the length of answers."""
        pool = self._roster.pool(finished.pool)
        pool.outputs.learn(finished.output_tokens)
        step = self.steps.get(finished.step_id)
        if step is None:
            return
        session = self._session(step)
        cause = cause_of(step, session, pool)
        session.taken = ""
        prompt_tokens, cached_tokens = finished.prompt_tokens, finished.cached_tokens
        self.overheads.count(step, prompt_tokens, cached_tokens, cause)
        true_s = pool.cost.step_s(prompt_tokens, cached_tokens, finished.output_tokens)
        cached_tokens = spared_tokens(step, prompt_tokens, cached_tokens, cause)
        paid_s = pool.cost.step_s(prompt_tokens, cached_tokens, finished.output_tokens)
        self._recharge(step, paid_s)
        step.output_tokens = finished.output_tokens
        pool.spent_s += self._speed * true_s
        if cause:
            self.overheads.book(cause, true_s - paid_s)
        if step.held:
            pool.lost_s += self._speed * (true_s - paid_s)

    def end(self, step_id: StepId, move: Move, now_s: float, *, silent: bool = False) -> Workflow | None:
        """The step is over. Its workflow, or None when it was over before.

        `silent`: nobody said so, nobody named it; its gateway may yet turn up with it.
        """
        if not silent:
            self._ended[step_id] = None
            if len(self._ended) > MAX_ENDED:
                self._ended.popitem(last=False)
        step = self.steps.pop(step_id, None)
        if step is None:
            return None
        if move is not Move.FINISH and step.charge is not None:
            ran = step.life.state in (StepState.TAKEN, StepState.STARTED)
            pool = self._roster.pool(step.step.pool)
            self._recharge(step, self._cost_s(pool, step, step.output_tokens) if ran else 0.0)
        if step.charge is not None:
            self.fair.ended(step.charge)
        self._roster.tenants.over(step)
        if move is Move.REFUSE and not step.life.may(Move.REFUSE):
            move = Move.ABORT
        step.life.advance(move)
        self._waiting.discard(step_id)
        workflow = self._roster.workflows[step.step.root]
        del workflow.steps[step_id]
        workflow.served_s += step.charged_s
        session = workflow.sessions[step.step.session]
        session.live_steps -= 1
        session.dormant_at_s = max(session.dormant_at_s, now_s)
        return workflow

    def name_all(self, now_s: float) -> None:
        """Nobody could name anything for a while: that was no sign of death."""
        for step in self.steps.values():
            step.named_s = now_s

    # --- charges -----------------------------------------------------------------------------------------------

    def _advance(self, step: Step, move: Move) -> None:
        """A step with a tag moves on, or back into the line."""
        step.life.advance(move)
        assert step.charge is not None
        if step.life.state is StepState.ADMITTED:
            self.fair.returned(step.charge)
        else:
            self.fair.started(step.charge)

    def _recharge(self, step: Step, cost_s: float) -> None:
        if step.charge is not None and cost_s != step.charge.cost_s:
            change_s = self.fair.correct(step.charge, cost_s)
            workflow = self._roster.workflows[step.step.root]
            self._roster.pool(workflow.pool).turns.charged(workflow.tenant, change_s)

    def _cost_s(self, pool: Pool, step: Step, output_tokens: float | None = None) -> float:
        """What its tenant is to pay, as far as is known. `output_tokens`: None: so many as are expected."""
        if output_tokens is None:
            output_tokens = max(self._expected_output(pool, step), step.output_tokens)
        prompt_tokens = step.step.prompt_tokens
        return pool.cost.step_s(prompt_tokens, prompt_tokens - step.paid_tokens, output_tokens)

    def _expected_output(self, pool: Pool, step: Step) -> float:
        return pool.outputs.expected_tokens(step.step.max_output_tokens)

    def _session(self, step: Step) -> Session:
        return self._roster.workflows[step.step.root].sessions[step.step.session]
