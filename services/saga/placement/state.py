"""Placement's core: admitted steps in, grants out.

Leader and standbys run the same core on the same messages; only a leader grants. It knows no bus, clock or event
loop: `service.py` and the simulator both drive it. The books are in `board.py`, the start of steps in `dispatch.py`,
the choice among workers in `policy.py`.
"""

from saga.contract.ids import NO_WORKER, LeaseId, StepId
from saga.contract.messages import (
    GatewayBeat,
    Grant,
    Heartbeat,
    LeaderHello,
    LeaseReleased,
    LeaseReturned,
    LeaseTaken,
    Message,
    ResendSteps,
    ResidencyDelta,
    ResyncReply,
    ResyncRequest,
    SessionsReleased,
    StepAdmitted,
    StepCancelled,
    StepChain,
    StepClaim,
    StepFinished,
    StepProgress,
    StepStarted,
    Tag,
    WorkerHello,
    WorkerLeaving,
)
from saga.contract.subjects import Subjects
from saga.kernel.effects import Demoted, Effect, Log, Promoted, Publish, Received, Reconnected, Tick, WakeAt
from saga.kernel.steps import Move, StepLife, StepState
from saga.placement.board import Board
from saga.placement.dispatch import GRANT_TTL_S, LEASE_TTL_S, Dispatcher
from saga.placement.policy import PlacementPolicy
from saga.placement.presence import WORKER_SILENT_S, Presence
from saga.placement.records import Lease, Step
from saga.placement.stealing import StealPolicy

TICK_S = 0.25
IDLE_TICK_S = 1.0  # without a step: only workers that fall silent are to be noticed
UNNAMED_S = 5.0  # a step that no beat names for so long is aborted
ASK_AGAIN_S = 0.5  # of a waiting step that a beat names and nobody admitted: messages may still be on their way

Effects = list[Effect]


class PlacementState:
    """Which step runs where."""

    def __init__(
        self,
        holder_id: str,
        subjects: Subjects,
        policy: PlacementPolicy,
        stealing: StealPolicy | None = None,
        *,
        lookahead: int = 1,
        supersede: bool = True,
        now_s: float = 0.0,
        worker_silent_s: float = WORKER_SILENT_S,
        idle_tick_s: float = IDLE_TICK_S,
    ) -> None:
        self.board = Board()
        self.leading = False
        self._subjects = subjects
        self._dispatch = Dispatcher(self.board, subjects, policy, stealing, lookahead=lookahead, supersede=supersede)
        self._tick_s = min(TICK_S, stealing.every_s) if stealing is not None else TICK_S
        self._idle_tick_s = max(self._tick_s, idle_tick_s)
        self._highest_fence = 0
        self._presence = Presence(self.board, self._dispatch, subjects, holder_id, now_s, worker_silent_s)

    @property
    def superseded_pages(self) -> int:
        """That fresh session tags let go, since the core was made."""
        return self._dispatch.superseded_pages

    def check(self) -> None:
        """Assert what must always hold."""
        self.board.check()

    def handle(self, event: Received | Tick | Promoted | Demoted | Reconnected, now_s: float) -> Effects:
        """Take an event, return what to do about it. `now_s`: monotonic."""
        match event:
            case Received(message):
                effects = self._received(message, now_s)
            case Tick():
                effects = self._tick(now_s)
            case Promoted(fence):
                effects = self._promoted(fence, now_s)
            case Demoted():
                self.leading = self._dispatch.leading = False
                effects = []
            case Reconnected():
                effects = self._reconnected(now_s)
        if self.leading:
            return effects
        return [e for e in effects if isinstance(e, WakeAt) or _is_resync(e)]

    # --- messages ----------------------------------------------------------------------------------------------

    def _received(self, message: Message, now_s: float) -> Effects:
        match message:
            case StepAdmitted():
                return self._admitted(message, now_s)
            case LeaseTaken():
                return self._taken(message, now_s)
            case StepStarted() | StepProgress():
                return self._running(message.step_id, message.lease_id, now_s)
            case StepFinished():
                return self._finished(message, now_s)
            case StepCancelled():
                return self._over(message.step_id, Move.FAIL if message.failed else Move.ABORT, now_s)
            case LeaseReturned():
                return self._returned(message, now_s)
            case LeaseReleased():
                return self._freed(message.lease_id, now_s)
            case Heartbeat():
                return self._presence.heartbeat(message, now_s)
            case WorkerHello():
                return self._presence.hello(message, now_s)
            case WorkerLeaving():
                return self._presence.leaving(message, now_s)
            case ResidencyDelta():
                return self._presence.resync(self.board.index.apply(message), now_s)
            case ResyncReply():
                return self._presence.resync(self.board.index.apply_snapshot(message), now_s)
            case GatewayBeat():
                return self._beat(message, now_s)
            case StepClaim():
                return self._claim(message, now_s)
            case StepChain():
                return self._chain(message)
            case Grant():
                return self._other_grant(message, now_s)
            case LeaderHello():
                return self._leader_hello(message)
            case SessionsReleased():
                return self._released(message)
            case _:
                return []

    def _admitted(self, admitted: StepAdmitted, now_s: float) -> Effects:
        if self._dispatch.stale_admission(admitted.fence) or self.board.has_ended(admitted.step.step_id):
            return []
        step_id = admitted.step.step_id
        step = self.board.steps.get(step_id)
        if step is None:
            step = Step(admitted, StepLife(step_id, StepState.ADMITTED), now_s)
            self.board.steps[step_id] = step
        elif admitted.step.attempt < step.attempt:
            return []
        else:
            step.admitted = admitted
            step.named_s = now_s
            if step.life.state is not StepState.ADMITTED and admitted.step.attempt == step.attempt:
                return []
            if step.lease is not None:  # a later attempt: its gateway has given this lease up, and its word is lost
                self._presence.suspect(step.lease.worker_id, now_s)
                self.board.free_lease(step.lease.lease_id)
            if step.life.may(Move.RETURN):
                step.life.advance(Move.RETURN)
            step.attempt = admitted.step.attempt
        self.board.goes_on(admitted.step.session, admitted.step.parent)
        effects = self._dispatch.let_children_go(admitted.step) + self._dispatch.learn_chain(admitted.step)
        return effects + self._dispatch.start_or_queue(step_id, admitted.home, now_s)

    def _taken(self, taken: LeaseTaken, now_s: float) -> Effects:
        effects = self._running(taken.step_id, taken.lease_id, now_s)
        session = self.board.session(taken.session, taken.root)
        session.ran_at = taken.worker_id
        self.board.settle(session, taken.worker_id, session.context_tokens)
        if taken.moved_from and taken.moved_from != taken.worker_id:
            released = SessionsReleased(
                worker_id=taken.moved_from, sessions=(taken.session,), reason="moved", fence=self._dispatch.fence
            )
            effects.append(Publish(self._subjects.sessions_released(taken.moved_from), released))
        return effects

    def _running(self, step_id: StepId, lease_id: LeaseId, now_s: float) -> Effects:
        """The gateway runs the step under this lease, whatever was believed of it."""
        lease = self.board.leases.get(lease_id)
        step = self.board.steps.get(step_id)
        if lease is not None:
            lease.taken = True
            lease.expires_s = now_s + LEASE_TTL_S
        if step is None or lease is None:
            return []
        step.named_s = now_s
        if step.lease is not lease:  # another grant, thought dead, was the first to arrive
            if step.lease is not None:
                self.board.free_lease(step.lease.lease_id)
            self.board.dequeue(step_id)
            step.lease = lease
        if step.life.may(Move.TAKE):
            step.life.advance(Move.TAKE)
        return []

    def _finished(self, finished: StepFinished, now_s: float) -> Effects:
        effects = self._over(finished.step_id, Move.FINISH, now_s)
        if finished.final:
            self.board.forget_session(finished.session)
        else:
            session = self.board.session(finished.session, finished.root)
            self.board.settle(session, finished.worker_id, finished.prompt_tokens + finished.output_tokens)
            if not finished.tools and finished.finish_reason != "tool_calls":
                self.board.answers(finished.session, finished.parent, finished.root)
        return effects

    def _over(self, step_id: StepId, move: Move, now_s: float, *, silent: bool = False) -> Effects:
        freed = [lease.worker_id for lease in self.board.leases_of(step_id)]
        for lease in self.board.leases_of(step_id):
            self.board.free_lease(lease.lease_id)
        step = self.board.steps.get(step_id)
        if step is not None:
            step.life.advance(move)
        self.board.forget_step(step_id, silent=silent)
        return [effect for worker_id in freed for effect in self._dispatch.serve(worker_id, now_s)]

    def _returned(self, returned: LeaseReturned, now_s: float) -> Effects:
        effects: Effects = []
        lease = self.board.leases.get(returned.lease_id)
        step = self.board.steps.get(returned.step_id)
        if returned.reason == "client_gone":
            return self._over(returned.step_id, Move.ABORT, now_s)
        if returned.reason == "engine_died":
            self._presence.suspect(returned.worker_id, now_s)
            effects.append(Log("placement.engine_unreachable", {"worker": returned.worker_id}))
        current = step is not None and step.lease is not None and step.lease.lease_id == returned.lease_id
        if lease is not None:
            self.board.free_lease(returned.lease_id)
        if step is not None and current:
            if returned.next_attempt >= step.attempt:
                step.attempt = returned.next_attempt
                step.wait_cause = "retry"
            step.life.advance(Move.RETURN)
            effects += self._dispatch.start_or_queue(returned.step_id, self._dispatch.home_of(step), now_s)
        return effects + self._dispatch.serve(returned.worker_id, now_s)

    def _freed(self, lease_id: LeaseId, now_s: float) -> Effects:
        """A lease ended without its gateway's word: the step goes back if somebody still wants it."""
        lease = self.board.leases.get(lease_id)
        if lease is None:
            return []
        step = self.board.steps.get(lease.step_id)
        current = step is not None and step.lease is lease
        self.board.free_lease(lease_id)
        effects: Effects = []
        if step is not None and current:
            if lease.taken and now_s - step.named_s > UNNAMED_S:
                effects += self._over(lease.step_id, Move.ABORT, now_s, silent=True)
            else:
                step.wait_cause = "retry"
                step.life.advance(Move.RETURN)
                effects += self._dispatch.start_or_queue(lease.step_id, self._dispatch.home_of(step), now_s)
        return effects + self._dispatch.serve(lease.worker_id, now_s)

    def _released(self, released: SessionsReleased) -> Effects:
        """Their KV may go: it no longer counts against the worker, which stays their home as long as it lasts, unless
        they are free to go on elsewhere."""
        for session_id in released.sessions:
            session = self.board.sessions.get(session_id)
            if released.reason == "closed":
                self.board.forget_session(session_id)
            elif session is not None and session.home == released.worker_id and released.reason != "moved":
                self.board.settle(session, NO_WORKER if released.reason == "unbound" else session.home, 0)
        return []

    # --- gateways' beats and claims ----------------------------------------------------------------------------

    def _beat(self, beat: GatewayBeat, now_s: float) -> Effects:
        effects: Effects = []
        unadmitted: list[StepId] = []
        unclaimed: list[StepId] = []
        for waiting in beat.waiting:
            step = self.board.steps.get(waiting.step_id)
            if step is None:
                if waiting.waited_s > ASK_AGAIN_S and not self.board.has_ended(waiting.step_id):
                    unadmitted.append(waiting.step_id)
                continue
            step.named_s = now_s
            if waiting.attempt > step.attempt and step.lease is not None:  # its LeaseReturned was lost
                step.attempt = waiting.attempt
                self._presence.suspect(step.lease.worker_id, now_s)
                effects += self._freed(step.lease.lease_id, now_s)
        for running in beat.running:
            if running.lease_id in self.board.leases and running.step_id in self.board.steps:
                effects += self._running(running.step_id, running.lease_id, now_s)
            elif not self.board.has_ended(running.step_id):
                unclaimed.append(running.step_id)
        fence = self._dispatch.fence
        if unadmitted:
            ask = ResendSteps(service="placement", fence=fence, step_ids=tuple(unadmitted))
            effects.append(Publish(self._subjects.placement_word(), ask))
        if unclaimed:
            ask = ResendSteps(service="placement", fence=fence, step_ids=tuple(unclaimed))
            effects.append(Publish(self._subjects.gateway(beat.gateway_id), ask))
        return effects

    def _claim(self, claim: StepClaim, now_s: float) -> Effects:
        """A step that runs already, granted by a leader before this one."""
        step_id = claim.step.step_id
        if self.board.has_ended(step_id):
            return []
        step = self.board.steps.get(step_id)
        if step is None:
            admitted = StepAdmitted(step=claim.step, tag=Tag(0.0, 0.0), home=claim.worker_id, fence=0)
            step = self.board.steps[step_id] = Step(admitted, StepLife(step_id, StepState.ADMITTED), now_s)
            self.board.enqueue(step_id, claim.worker_id)
        if claim.lease_id not in self.board.leases:
            self.board.add_lease(
                Lease(claim.lease_id, step_id, claim.worker_id, step.tokens, 0.0, now_s + LEASE_TTL_S, taken=True)
            )
        session = self.board.session(claim.step.session, claim.step.root)
        session.ran_at = claim.worker_id
        self.board.settle(session, claim.worker_id, claim.step.prompt_tokens)
        asks = self._dispatch.learn_chain(claim.step)
        self._dispatch.follow_claim(step, claim.session_tag)
        return asks + self._running(step_id, claim.lease_id, now_s)

    def _chain(self, chain: StepChain) -> Effects:
        session = self.board.sessions.get(chain.session)
        if session is not None:
            session.extend(0, b"", chain.hashes, chain.hash_stride)
        return []

    # --- leadership --------------------------------------------------------------------------------------------

    def _promoted(self, fence: int, now_s: float) -> Effects:
        self.leading = self._dispatch.leading = True
        self._dispatch.fence = self._highest_fence = fence
        effects: Effects = [
            Publish(self._subjects.leader_hello(), LeaderHello(service="placement", fence=fence)),
            Log("placement.leading", {"fence": fence, "steps": len(self.board.steps)}),
        ]
        for session in self.board.sessions.values():
            session.tagged = None  # from an earlier lead, if at all: another may have given it a fresh one since
        for step_id, step in list(self.board.steps.items()):
            step.named_s = now_s
            if step.life.state is StepState.GRANTED and step.lease is not None:
                self.board.free_lease(step.lease.lease_id)
                step.life.advance(Move.RETURN)
                self.board.enqueue(step_id, self._dispatch.usable_home(step, now_s))
        for worker_id in self.board.workers:
            effects += self._dispatch.serve(worker_id, now_s)
        return effects

    def _other_grant(self, grant: Grant, now_s: float) -> Effects:
        """A standby follows its leader's grants."""
        if self.leading or grant.fence < self._highest_fence:
            return []
        self._highest_fence = grant.fence
        step = self.board.steps.get(grant.step_id)
        if step is not None and step.life.may(Move.GRANT) and grant.attempt == step.attempt:
            self._dispatch.follow_grant(step, grant, now_s)
        return []

    def _leader_hello(self, hello: LeaderHello) -> Effects:
        if hello.service == "admission":
            self._dispatch.stale_admission(hello.fence)
        elif hello.fence > self._highest_fence:
            self._highest_fence = hello.fence
            self.leading = self._dispatch.leading = False  # replaced, even if KV could not say so yet
        return []

    def _reconnected(self, now_s: float) -> Effects:
        for lease in self.board.leases.values():
            lease.expires_s = max(lease.expires_s, now_s + (LEASE_TTL_S if lease.taken else GRANT_TTL_S))
        for step in self.board.steps.values():
            step.named_s = now_s
        for worker in self.board.workers.values():
            worker.seen_s = now_s
        return []

    # --- time --------------------------------------------------------------------------------------------------

    def _tick(self, now_s: float) -> Effects:
        effects: Effects = []
        for lease in [lease for lease in self.board.leases.values() if lease.expires_s <= now_s]:
            effects += self._freed(lease.lease_id, now_s)
        silent = [step_id for step_id, step in self.board.steps.items() if now_s - step.named_s > UNNAMED_S]
        for step_id in silent:
            effects += self._over(step_id, Move.ABORT, now_s, silent=True)
        effects += self._presence.tick(now_s)
        effects += self._dispatch.steal(now_s)
        busy = self.board.steps or self.board.leases
        return [*effects, WakeAt(now_s + (self._tick_s if busy else self._idle_tick_s))]


def _is_resync(effect: Effect) -> bool:
    return isinstance(effect, Publish) and isinstance(effect.message, ResyncRequest)
