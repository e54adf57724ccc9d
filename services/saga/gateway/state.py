"""The gateway's core: it asks for a grant, takes the first, returns any other, and tells everybody what became of it.

Knows steps, not sockets: `service.py` performs its effects, `http_*.py` feed it. The gateway arbitrates a step
(design 3): it alone talks to both client and engine, so what it says of a step holds.
"""

from heapq import heappop, heappush

import msgspec

from saga.contract.ids import GatewayId, LeaseId, StepId, WorkerId
from saga.contract.messages import (
    Accepted,
    GatewayBeat,
    Grant,
    LeaderHello,
    LeasesRenewed,
    Message,
    NeedChain,
    PrefetchAsked,
    Refused,
    ResendSteps,
    ReturnReason,
    RunningLease,
    StepClaim,
    StepProgress,
    StepReady,
    StepRefused,
    StepStarted,
    WaitingStep,
)
from saga.contract.subjects import Subjects
from saga.gateway import words
from saga.gateway.events import (
    Completed,
    EngineDied,
    GatewayEffect,
    GatewayEvent,
    GaveUp,
    Prefetched,
    Progressed,
    Reject,
    Run,
    SendChain,
    Sending,
    Submitted,
)
from saga.gateway.prefetches import Prefetches
from saga.kernel.effects import Append, Effect, Publish, Received, Request, Tick, WakeAt
from saga.kernel.steps import Move, StepLife, StepState

RESEND_FIRST_S = 0.25
RESEND_LAST_S = 2.0
BEAT_S = 1.0
BEAT_STEPS = 1_000  # named in one part of a beat; about 64 KiB
MAX_ATTEMPTS = 8  # engines that may die under one step before it is given up

Effects = list[Effect | GatewayEffect]


class _Step:
    """What this gateway knows of a step that is not over."""

    __slots__ = ("accepted", "grant", "life", "must_start_by_s", "output_tokens", "resend_s", "since_s", "step")

    def __init__(self, step: StepReady, now_s: float) -> None:
        self.step = step
        self.life = StepLife(step.step_id)
        self.since_s = now_s - step.waited_s
        self.accepted = False
        self.resend_s = RESEND_FIRST_S
        self.grant: Grant | None = None
        self.must_start_by_s = 0.0
        self.output_tokens = 0

    @property
    def running(self) -> bool:
        return self.grant is not None


class GatewayState:
    """Every step that waits or runs through one gateway."""

    def __init__(self, gateway_id: GatewayId, subjects: Subjects, beat_s: float = BEAT_S) -> None:
        self.gateway_id = gateway_id
        self._subjects = subjects
        self._steps: dict[StepId, _Step] = {}
        self._fences = {"admission": 0, "placement": 0}
        self._resends: list[tuple[float, StepId, int]] = []
        self._beat_s = beat_s
        self._next_beat_s = 0.0
        self.leaders_heard: set[str] = set()
        self.prefetches = Prefetches()

    # --- questions ---------------------------------------------------------------------------------------------

    def holds(self, step_id: StepId, grant: Grant) -> bool:
        """Whether the request may be written to the engine now; ask right after `Sending`."""
        record = self._steps.get(step_id)
        return record is not None and record.grant == grant and record.life.state is StepState.STARTED

    @property
    def waiting(self) -> int:
        """Steps without a lease."""
        return sum(not record.running for record in self._steps.values())

    @property
    def running(self) -> int:
        """Steps under a lease."""
        return sum(record.running for record in self._steps.values())

    def check(self) -> None:
        """Assert what must always hold."""
        for step_id, record in self._steps.items():
            assert record.step.step_id == step_id
            assert record.life.live, f"{step_id} ended and is still here"
            held = record.life.state in (StepState.TAKEN, StepState.STARTED)
            assert held == record.running, f"{step_id} is {record.life.state.value} with grant {record.grant}"

    # --- the one door ------------------------------------------------------------------------------------------

    def handle(self, event: GatewayEvent | Received | Tick, now_s: float) -> Effects:
        """Take an event, return what to do about it. `now_s`: monotonic."""
        match event:
            case Received(message):
                return self._received(message, now_s)
            case Submitted(step):
                return self._submitted(step, now_s)
            case Sending(step_id, grant):
                return self._sending(step_id, grant, now_s)
            case Progressed(step_id, output_tokens):
                return self._progressed(step_id, output_tokens)
            case Completed():
                return self._completed(event)
            case EngineDied(step_id, output_tokens):
                return self._engine_died(step_id, output_tokens, now_s)
            case GaveUp(step_id, output_tokens, failed):
                return self._gave_up(step_id, output_tokens, failed=failed)
            case Prefetched(session, request_id):
                self.prefetches.over(session, request_id)
                return []
            case Tick():
                return self._tick(now_s)

    # --- from the shell ----------------------------------------------------------------------------------------

    def _submitted(self, step: StepReady, now_s: float) -> Effects:
        record = self._steps[step.step_id] = _Step(step, now_s)
        return [*self.prefetches.back(step.session), *self._ask(record, now_s)]

    def _ask(self, record: _Step, now_s: float) -> Effects:
        """Ask admission (again). The next time comes later, so that an outage does not become a storm."""
        step_id = record.step.step_id
        record.step = msgspec.structs.replace(record.step, waited_s=now_s - record.since_s)
        record.accepted = False
        at_s = now_s + record.resend_s
        record.resend_s = min(RESEND_LAST_S, 2 * record.resend_s)
        heappush(self._resends, (at_s, step_id, record.step.attempt))
        return [Request(self._subjects.step_ready(), record.step), WakeAt(at_s)]

    def _sending(self, step_id: StepId, grant: Grant, now_s: float) -> Effects:
        record = self._steps.get(step_id)
        if record is None or record.grant != grant or record.life.state is not StepState.TAKEN:
            return []
        if now_s > record.must_start_by_s:  # the reservation may be someone else's by now
            return self._try_again(record, "expired", now_s)
        record.life.advance(Move.START)
        started = StepStarted(
            step_id=step_id,
            attempt=grant.attempt,
            lease_id=grant.lease_id,
            worker_id=grant.worker_id,
            session=grant.session,
            session_tag=grant.session_tag,
        )
        return [Publish(self._subjects.lease(grant.worker_id), started)]

    def _progressed(self, step_id: StepId, output_tokens: int) -> Effects:
        record = self._steps.get(step_id)
        if record is None or record.grant is None:
            return []
        record.output_tokens = output_tokens
        grant = record.grant
        progress = StepProgress(
            step_id=step_id,
            attempt=grant.attempt,
            lease_id=grant.lease_id,
            worker_id=grant.worker_id,
            output_tokens=output_tokens,
        )
        return [Publish(self._subjects.lease(grant.worker_id), progress)]

    def _completed(self, done: Completed) -> Effects:
        record = self._steps.get(done.step_id)
        if record is None or record.grant is None:
            return []
        record.life.advance(Move.FINISH)
        del self._steps[done.step_id]
        step, grant = record.step, record.grant
        finished = words.finished(self.gateway_id, step, grant, done)
        return [Append(self._subjects.step_finished(grant.worker_id), finished, f"{step.step_id}-{step.attempt}")]

    def _engine_died(self, step_id: StepId, output_tokens: int, now_s: float) -> Effects:
        record = self._steps.get(step_id)
        if record is None or record.grant is None:
            return []
        record.output_tokens = output_tokens
        if record.step.attempt + 1 >= MAX_ATTEMPTS:
            detail = f"{MAX_ATTEMPTS} engines failed under this request; it may be at fault, or the cluster is down"
            return [
                *self._gave_up(step_id, output_tokens, failed=True),
                Reject(step_id, "engine_failed", detail, 5.0),
            ]
        return self._try_again(record, "engine_died", now_s)

    def _try_again(self, record: _Step, reason: ReturnReason, now_s: float) -> Effects:
        """The lease goes back and the step waits again. A new attempt has a new rid, so that nothing sent for the
        last one (a late abort) can hit it."""
        assert record.grant is not None
        grant, record.grant = record.grant, None
        record.life.advance(Move.RETURN)
        record.step = msgspec.structs.replace(record.step, attempt=record.step.attempt + 1)
        record.since_s = now_s
        record.resend_s = RESEND_FIRST_S
        return [self._returned(grant, reason, record.step.attempt), *self._ask(record, now_s)]

    def _returned(self, grant: Grant, reason: ReturnReason, next_attempt: int) -> Publish:
        returned = words.returned(self.gateway_id, grant, reason, next_attempt)
        return Publish(self._subjects.lease(grant.worker_id), returned)

    def _gave_up(self, step_id: StepId, output_tokens: int, *, failed: bool) -> Effects:
        record = self._steps.pop(step_id, None)
        if record is None:
            return []
        record.life.advance(Move.FAIL if failed else Move.ABORT)
        step, grant = record.step, record.grant
        cancelled = words.cancelled(self.gateway_id, step, grant, output_tokens, failed=failed)
        return [
            Append(self._subjects.step_cancelled(cancelled.worker_id), cancelled, f"{step_id}-{step.attempt}-cancelled")
        ]

    # --- from the bus ------------------------------------------------------------------------------------------

    def _received(self, message: Message, now_s: float) -> Effects:
        match message:
            case Grant():
                return self._granted(message, now_s)
            case Accepted():
                return self._accepted(message)
            case Refused() | StepRefused():
                return self._refused(message)
            case NeedChain():
                known = message.step_id in self._steps
                return [SendChain(message.step_id, message.session)] if known else []
            case LeaderHello():
                return self._leader(message, now_s)
            case PrefetchAsked(session=session):
                back = any(record.step.session == session for record in self._steps.values())
                return [*self.prefetches.asked(message, back=back)]
            case ResendSteps() if not self._fenced(message.service, message.fence):
                records = (self._steps.get(step_id) for step_id in message.step_ids)
                return [effect for record in records if record for effect in self._tell_again(record, now_s)]
            case _:
                return []

    def _granted(self, grant: Grant, now_s: float) -> Effects:
        stale = self._fenced("placement", grant.fence)
        if self._fenced("admission", grant.admission_fence) or stale:  # both are looked at: either may be news
            return [self._returned(grant, "fenced", grant.attempt)]
        self.leaders_heard.add("placement")
        record = self._steps.get(grant.step_id)
        if record is None:
            return [self._returned(grant, "client_gone", grant.attempt)]
        if record.grant is not None and record.grant.lease_id == grant.lease_id:
            return []
        if record.running or grant.attempt != record.step.attempt:
            return [self._returned(grant, "not_first", record.step.attempt)]
        record.life.advance(Move.TAKE)
        record.grant = grant
        record.accepted = True
        record.must_start_by_s = now_s + grant.ttl_s
        return [self._taken(record, grant), Run(grant.step_id, grant.attempt, grant)]

    def _taken(self, record: _Step, grant: Grant) -> Publish:
        taken = words.taken(self.gateway_id, record.step, grant)
        return Publish(self._subjects.lease(grant.worker_id), taken)

    def _accepted(self, answer: Accepted) -> Effects:
        stale = self._fenced("admission", answer.fence)
        record = self._steps.get(answer.step_id)
        if record and record.step.attempt == answer.attempt and not stale:
            record.accepted = True
            self.leaders_heard.add("admission")
        return []

    def _refused(self, answer: Refused | StepRefused) -> Effects:
        stale = self._fenced("admission", answer.fence)
        record = self._steps.get(answer.step_id)
        if record is None or record.running or stale:
            return []
        record.life.advance(Move.REFUSE)
        del self._steps[answer.step_id]
        return [Reject(answer.step_id, answer.reason, answer.detail, answer.retry_after_s)]

    def _fenced(self, service: str, fence: int) -> bool:
        """Whether this comes from a leader that has been replaced."""
        if fence < self._fences[service]:
            return True
        self._fences[service] = fence
        return False

    def _leader(self, hello: LeaderHello, now_s: float) -> Effects:
        if self._fenced(hello.service, hello.fence):
            return []
        self.leaders_heard.add(hello.service)
        return [effect for record in self._steps.values() for effect in self._tell_again(record, now_s)]

    def _tell_again(self, record: _Step, now_s: float) -> Effects:
        if record.grant is None:
            record.resend_s = RESEND_FIRST_S
            return self._ask(record, now_s)
        claim = StepClaim(
            step=record.step,
            lease_id=record.grant.lease_id,
            worker_id=record.grant.worker_id,
            session_tag=record.grant.session_tag,
            output_tokens=record.output_tokens,
        )
        return [Publish(self._subjects.gateway_word(), claim)]

    # --- time --------------------------------------------------------------------------------------------------

    def _tick(self, now_s: float) -> Effects:
        effects: Effects = []
        while self._resends:
            at_s, step_id, attempt = self._resends[0]
            record = self._steps.get(step_id)
            if record and (record.running or record.accepted or record.step.attempt != attempt):
                record = None  # answered
            if record and at_s > now_s:
                break
            heappop(self._resends)
            if record:
                effects += self._ask(record, now_s)
        if now_s >= self._next_beat_s:
            self._next_beat_s = now_s + self._beat_s
            effects += self._beat(now_s)
        if self._steps:  # without one there is nothing to say: the next to be submitted asks to be woken
            next_s = min(self._next_beat_s, self._resends[0][0]) if self._resends else self._next_beat_s
            effects.append(WakeAt(next_s))
        return effects

    def _beat(self, now_s: float) -> Effects:
        waiting: list[WaitingStep] = []
        running: list[RunningLease] = []
        by_worker: dict[WorkerId, list[LeaseId]] = {}
        for step_id, record in self._steps.items():
            attempt = record.step.attempt
            if record.grant is None:
                waiting.append(WaitingStep(step_id=step_id, attempt=attempt, waited_s=now_s - record.since_s))
                continue
            lease_id, worker_id = record.grant.lease_id, record.grant.worker_id
            by_worker.setdefault(worker_id, []).append(lease_id)
            lease = RunningLease(
                step_id=step_id,
                attempt=attempt,
                lease_id=lease_id,
                worker_id=worker_id,
                output_tokens=record.output_tokens,
            )
            running.append(lease)
        beats: Effects = []
        for start in range(0, max(len(waiting), len(running)), BEAT_STEPS):
            part = slice(start, start + BEAT_STEPS)
            beat = GatewayBeat(gateway_id=self.gateway_id, waiting=tuple(waiting[part]), running=tuple(running[part]))
            beats.append(Publish(self._subjects.gateway_word(), beat))
        for worker_id, lease_ids in by_worker.items():
            renewed = LeasesRenewed(gateway_id=self.gateway_id, worker_id=worker_id, lease_ids=tuple(lease_ids))
            beats.append(Publish(self._subjects.leases_renewed(worker_id), renewed))
        return beats
