"""Placement's core: admitted steps in, grants out.

Leader and standbys run the same core on the same messages; only a leader grants. It knows no bus, clock or event
loop: `service.py` and the simulator both drive it. The books are in `board.py`, the start of steps in `dispatch.py`,
the choice among workers in `policy.py`.
"""

from collections.abc import Iterator

from saga.contract.ids import NO_WORKER, WorkerId
from saga.contract.messages import (
    GatewayBeat,
    Grant,
    Heartbeat,
    LeaderHello,
    LeaseReleased,
    LeaseReturned,
    LeaseTaken,
    Message,
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
    WhyAsk,
    WorkerHello,
    WorkerLeaving,
    WorkersAsk,
    WorkerStands,
)
from saga.contract.subjects import Subjects
from saga.kernel.effects import Answer, Demoted, Effect, Log, Promoted, Publish, Received, Reconnected, Tick, WakeAt
from saga.kernel.steps import Move, StepLife, StepState
from saga.placement import standing
from saga.placement.board import Board
from saga.placement.dispatch import GRANT_TTL_S, LEASE_TTL_S, Dispatcher
from saga.placement.leasing import UNNAMED_S, Leasing
from saga.placement.policy import PlacementPolicy
from saga.placement.preemption import Preempting, PreemptionPolicy
from saga.placement.presence import WORKER_SILENT_S, Presence
from saga.placement.records import Step
from saga.placement.stealing import MovePolicy, StealPolicy
from saga.placement.stories import PlacementStories
from saga.placement.trust import Trust
from saga.placement.word import GatewayWord

TICK_S = 0.25
IDLE_TICK_S = 1.0  # without a step: only workers that fall silent are to be noticed

Effects = list[Effect]


class PlacementState:
    """Which step runs where."""

    def __init__(
        self,
        holder_id: str,
        subjects: Subjects,
        policy: PlacementPolicy,
        stealing: StealPolicy | MovePolicy | None = None,
        *,
        preemption: PreemptionPolicy | None = None,
        lookahead: int = 1,
        supersede: bool = True,
        now_s: float = 0.0,
        worker_silent_s: float = WORKER_SILENT_S,
        idle_tick_s: float = IDLE_TICK_S,
        stories: bool = False,
    ) -> None:
        """`stories`: remember recent steps for `saga why`."""
        self.board = Board()
        self.leading = False
        self._subjects = subjects
        self.preempting = Preempting(self.board, preemption)
        self._dispatch = Dispatcher(
            self.board, subjects, policy, stealing, self.preempting, lookahead=lookahead, supersede=supersede
        )
        self._tick_s = min(TICK_S, stealing.every_s) if stealing is not None else TICK_S
        self._idle_tick_s = max(self._tick_s, idle_tick_s)
        self._highest_fence = 0
        self._presence = Presence(self.board, self._dispatch, subjects, holder_id, now_s, worker_silent_s)
        self._leasing = Leasing(self.board, self._dispatch, self._presence)
        self.trust = Trust(self.board, self._dispatch, subjects, judges=not policy.engine_queues)
        self._stories = PlacementStories(self.board, self._barred) if stories else None
        if self._stories is not None:
            self._dispatch.explain_to(self._stories.weighed)
        self._word = GatewayWord(self.board, self._dispatch, self._leasing, self._presence, subjects)

    @property
    def superseded_pages(self) -> int:
        """That fresh session tags let go, since the core was made."""
        return self._dispatch.superseded_pages

    def check(self) -> None:
        """Assert what must always hold."""
        self.board.check()
        self.trust.check()

    def handle(self, event: Received | Tick | Promoted | Demoted | Reconnected, now_s: float) -> Effects:
        """Take an event, return what to do about it. `now_s`: monotonic."""
        message = event.message if isinstance(event, Received) else None
        if message is not None:
            self.trust.heard(message, now_s)
            if self._stories is not None:
                self._stories.heard(message, now_s)
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
            effects += self.trust.revise(message, now_s) if message is not None or isinstance(event, Tick) else []
            if self._stories is not None:
                self._stories.said(message, effects, now_s)
        self.trust.followed(message, effects, now_s)
        if self.leading:
            return effects
        return [e for e in effects if isinstance(e, WakeAt) or _is_resync(e)]

    def _barred(self) -> Iterator[tuple[WorkerId, str]]:
        """Workers that are given no steps by choice, and why."""
        yield from self.trust.barred()
        yield from ((worker_id, "draining") for worker_id in self._presence.drains.workers)

    # --- messages ----------------------------------------------------------------------------------------------

    def _received(self, message: Message, now_s: float) -> Effects:
        match message:
            case StepAdmitted():
                return self._admitted(message, now_s)
            case LeaseTaken():
                return self._taken(message, now_s)
            case StepProgress():
                return self._leasing.running(message.step_id, message.lease_id, now_s, message.output_tokens)
            case StepStarted():
                return self._leasing.running(message.step_id, message.lease_id, now_s)
            case StepFinished():
                return self._finished(message, now_s)
            case StepCancelled():
                return self._leasing.over(message.step_id, Move.FAIL if message.failed else Move.ABORT, now_s)
            case LeaseReturned():
                return self._leasing.returned(message, now_s)
            case LeaseReleased():
                return self._leasing.freed(message.lease_id, now_s)
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
                return self._word.beat(message, now_s)
            case StepClaim():
                return self._word.claim(message, now_s)
            case StepChain():
                return self._chain(message)
            case Grant():
                return self._other_grant(message, now_s)
            case LeaderHello():
                return self._leader_hello(message)
            case SessionsReleased():
                return self._released(message)
            case WorkerStands() if not self.leading and message.fence >= self._highest_fence:
                self.trust.follow(message, now_s)
                return []
            case WorkersAsk():
                return [Answer(standing.answer(message, self.board, self.trust, self._dispatch.fence, now_s))]
            case WhyAsk() if self._stories is not None:
                return [Answer(self._stories.answer(message, self._dispatch.fence, now_s))]
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
        effects = self._leasing.running(taken.step_id, taken.lease_id, now_s)
        session = self.board.session(taken.session, taken.root)
        session.ran_at = taken.worker_id
        self.board.settle(session, taken.worker_id, session.context_tokens)
        if taken.moved_from and taken.moved_from != taken.worker_id:
            released = SessionsReleased(
                worker_id=taken.moved_from, sessions=(taken.session,), reason="moved", fence=self._dispatch.fence
            )
            effects.append(Publish(self._subjects.sessions_released(taken.moved_from), released))
        return effects

    def _finished(self, finished: StepFinished, now_s: float) -> Effects:
        effects = self._leasing.over(finished.step_id, Move.FINISH, now_s)
        if finished.final:
            self.board.forget_session(finished.session)
        else:
            session = self.board.session(finished.session, finished.root)
            self.board.settle(session, finished.worker_id, finished.prompt_tokens + finished.output_tokens)
            worker = self.board.workers.get(finished.worker_id)
            session.keeps(worker.hello.shared_tier if worker is not None else "")
            if not finished.tools and finished.finish_reason != "tool_calls":
                self.board.answers(finished.session, finished.parent, finished.root)
            self._presence.drains.finished(finished)
        return effects

    def _released(self, released: SessionsReleased) -> Effects:
        """Their KV may go: it no longer counts against the worker, which stays their home as long as it lasts, unless
        they are free to go on elsewhere."""
        if released.by == "admission" and self._dispatch.stale_admission(released.fence):
            return []
        for session_id in released.sessions:
            session = self.board.sessions.get(session_id)
            if released.reason == "closed":
                self.board.forget_session(session_id)
            elif session is not None and session.home == released.worker_id and released.reason != "moved":
                self.board.settle(session, NO_WORKER if released.reason == "unbound" else session.home, 0)
        return []

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
        if self._stories is not None:
            self._stories.leads(now_s)
        return effects + self.trust.say_all()

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
            return self.trust.say_all()
        if hello.fence > self._highest_fence:
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
            effects += self._leasing.freed(lease.lease_id, now_s)
        silent = [step_id for step_id, step in self.board.steps.items() if now_s - step.named_s > UNNAMED_S]
        for step_id in silent:
            effects += self._leasing.over(step_id, Move.ABORT, now_s, silent=True)
        effects += self._presence.tick(now_s)
        effects += self._dispatch.steal(now_s)
        busy = self.board.steps or self.board.leases
        return [*effects, WakeAt(now_s + (self._tick_s if busy else self._idle_tick_s))]


def _is_resync(effect: Effect) -> bool:
    return isinstance(effect, Publish) and isinstance(effect.message, ResyncRequest)
