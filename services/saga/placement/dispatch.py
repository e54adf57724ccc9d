"""The start of steps: who is next for a slot, where a homeless step goes, and the grant that says so."""

from saga.contract.ids import NO_WORKER, LeaseId, PoolId, SessionId, SessionTag, StepId, WorkerId, session_tag
from saga.contract.messages import Grant, NeedChain, SessionsReleased, StepReady, WaitCause
from saga.contract.subjects import Subjects
from saga.kernel.effects import Effect, Log, Publish
from saga.kernel.steps import Move
from saga.placement.board import Board
from saga.placement.candidates import Candidates, cached_tokens
from saga.placement.moves import Moves, Weighing
from saga.placement.policy import PlacementPolicy
from saga.placement.preemption import PREEMPTS, Preempting, Stakes
from saga.placement.pricing import Placed
from saga.placement.records import Lease, Session, Step, Worker
from saga.placement.stealing import MovePolicy, StealPolicy
from saga.placement.supersession import Tagged

GRANT_TTL_S = 2.0  # untaken, a lease dies after this
LEASE_TTL_S = 5.0  # taken, it dies after this without renewal
NO_TAG = SessionTag("")  # the engine keeps none

Effects = list[Effect]


class Dispatcher:
    """Starts the lowest eligible tag wherever a slot is free."""

    def __init__(
        self,
        board: Board,
        subjects: Subjects,
        policy: PlacementPolicy,
        stealing: StealPolicy | MovePolicy | None,
        preempting: Preempting,
        *,
        lookahead: int,
        supersede: bool,
    ) -> None:
        """`supersede`: a session gets a fresh tag when its old one pins dead KV; else one for all its life."""
        self.leading = False
        self.fence = 0
        self.superseded_pages = 0  # that fresh tags let go
        self._board = board
        self._subjects = subjects
        self._policy = policy
        self._preempting = preempting
        self._lookahead = lookahead
        self._candidates = Candidates(board, lookahead)
        self._moves: Moves | None = None
        if stealing is not None:
            self._moves = Moves(board, self._candidates, stealing, self._room, self._grant, lambda: self._leases_given)
        self._supersede = supersede
        self._admission_fence = 0
        self._leases_given = 0
        self._weighed: Weighing | None = None

    def explain_to(self, weighed: Weighing) -> None:
        """Say of each choice of a policy what it was made from."""
        self._weighed = weighed
        if self._moves is not None:
            self._moves.weighed = weighed

    def stale_admission(self, fence: int) -> bool:
        """Whether this comes from an admission that has been replaced."""
        if fence < self._admission_fence:
            return True
        self._admission_fence = fence
        return False

    # --- chains and homes --------------------------------------------------------------------------------------

    def learn_chain(self, step: StepReady) -> Effects:
        """Take over the page chain of the step's prompt; ask for the whole when its base is unknown here."""
        session = self._board.session(step.session, step.root)
        if not step.pages_known:  # its worker tells, once the engine has stored them; until then the last chain counts
            return []
        if session.extend(step.base_pages, step.base_tip, step.new_hashes, step.hash_stride):
            self._board.steps[step.step_id].chain = session.hashes if session.stride == 1 else None
            return []
        need = NeedChain(step_id=step.step_id, attempt=step.attempt, session=step.session, fence=self.fence)
        return [Publish(self._subjects.gateway(step.gateway_id), need)]

    def home_of(self, step: Step) -> WorkerId:
        """Where the step's session is at home: as seen here, else as admission remembers."""
        session = self._board.sessions.get(step.admitted.step.session)
        return (session.home if session is not None else NO_WORKER) or step.admitted.home

    def usable_home(self, step: Step, now_s: float) -> WorkerId:
        """The same, but nowhere when nothing can start there. A home not yet heard of may still say hello."""
        home = self.home_of(step)
        worker = self._board.workers.get(home)
        if worker is None:
            return home if home and not self._board.workers else NO_WORKER
        fits = worker.hello.pool == step.admitted.step.pool and worker.usable(now_s)
        return home if fits else NO_WORKER

    def let_children_go(self, step: StepReady) -> Effects:
        """The session goes on: those that it had started, and that have answered, have told it what they were for.

        One that is asked again all the same only pays for a prefill, if its KV has gone by then.
        """
        parent = self._board.sessions.get(step.session)
        if parent is None or not parent.answered or not self._supersede:
            return []
        by_home: dict[WorkerId, list[SessionId]] = {}
        for child in parent.answered:
            session = self._board.sessions.get(child)
            if session is not None and session.home:
                by_home.setdefault(session.home, []).append(child)
        parent.answered.clear()
        return [
            Publish(
                self._subjects.sessions_released(home),
                SessionsReleased(worker_id=home, sessions=tuple(children), reason="superseded", fence=self.fence),
            )
            for home, children in by_home.items()
        ]

    # --- queueing ----------------------------------------------------------------------------------------------

    def start_or_queue(self, step_id: StepId, home: WorkerId, now_s: float) -> Effects:
        """An admitted step: it starts at once if it is next where it may run, else it waits there."""
        step = self._board.steps[step_id]
        session = self._board.sessions.get(step.admitted.step.session)
        chooses = not self._policy.stays_home or (bool(step.admitted.fits) and not (session and session.home))
        if session is not None and not session.home and home and not chooses:
            self._board.settle(session, home, session.context_tokens)
        home = NO_WORKER if chooses else self.usable_home(step, now_s)
        self._board.enqueue(step_id, home)
        effects = self.serve(home, now_s) if home else self._serve_homeless(step.admitted.step.pool, now_s)
        if step.queued_at is not None and step.wait_cause in ("none", "inactive"):
            step.wait_cause = ("home" if home else "slot") if step.queued_at else "no_worker"
        return effects

    def scatter(self, worker_id: WorkerId, now_s: float) -> Effects:
        """Nothing can start there: what waits for it may go anywhere."""
        queue = self._board.at_home.get(worker_id)
        if not queue:
            return []
        pools = set()
        for step_id in queue.steps():
            pools.add(self._board.steps[step_id].admitted.step.pool)
            self._board.enqueue(step_id, NO_WORKER)
        return [effect for pool in sorted(pools) for effect in self._serve_homeless(pool, now_s)]

    def serve(self, worker_id: WorkerId, now_s: float) -> Effects:
        """Fill this worker's free slots, lowest tag first."""
        worker = self._board.workers.get(worker_id)
        if worker is None or not self.leading or not worker.usable(now_s):
            return []
        effects = self._serve_homeless(worker.hello.pool, now_s)
        queue = self._board.at_home.get(worker_id)
        while queue and (step_id := queue.head()) is not None:
            step = self._board.steps[step_id]
            if self._room(worker, step):
                effects += self._grant(step_id, worker, "home", now_s)
            elif (stakes := self._preempting.stakes(worker, step)) is not None:
                effects += self._grant(step_id, worker, "preempts", now_s, PREEMPTS)
                effects.append(self._told(worker, step_id, stakes))
            else:
                break
        return effects

    def _told(self, worker: Worker, step_id: StepId, stakes: Stakes) -> Log:
        victim = self._board.leases[stakes.victim].step_id
        facts = {"worker": worker.hello.worker_id, "step": step_id, "victim": victim}
        return Log("placement.preempts", {**facts, "gain_s": stakes.gain_s, "loss_s": stakes.loss_s})

    def _serve_homeless(self, pool: PoolId, now_s: float) -> Effects:
        """Give each homeless step of the pool, lowest tag first, the home that the policy likes best.

        It starts there at once if there is room and nobody with a lower tag waits, else when its turn comes: a
        session's home is for all its steps, the first slot to free is a poor reason to choose it.
        """
        effects: Effects = []
        queue = self._board.homeless.get(pool)
        while self.leading and queue and (step_id := queue.head()) is not None:
            step = self._board.steps[step_id]
            workers = self._able(step, pool, now_s)
            if not workers:
                break
            session = self._board.session(step.admitted.step.session, step.admitted.step.root)
            candidates = self._candidates.of(workers, step, session)
            decision = self._policy.choose(step.admitted.step, candidates)
            step.prices = decision.prices if isinstance(decision, Placed) else ()
            if self._weighed is not None:
                self._weighed(step_id, candidates, decision)
            best = self._board.workers[decision.choice]
            waiting = self._board.at_home.get(decision.choice)
            if not waiting and self._room(best, step):
                effects += self._grant(step_id, best, decision.reason, now_s)
            else:
                self._board.enqueue(step_id, decision.choice)
                effects += self.serve(decision.choice, now_s)
        return effects

    def _able(self, step: Step, pool: PoolId, now_s: float) -> list[Worker]:
        """Workers that may be chosen: those where admission sees room for the step, or all when none of them serves."""
        named = [w for i in step.admitted.fits if (w := self._board.workers.get(i)) is not None]
        fitting = [w for w in named if w.hello.pool == pool and w.usable(now_s)]
        return fitting or [w for w in self._board.in_pool(pool) if w.usable(now_s)]

    def _room(self, worker: Worker, step: Step) -> bool:
        return self._policy.engine_queues or worker.room_for(step.tokens, self._lookahead)

    def steal(self, now_s: float) -> Effects:
        """Let steps that wait start elsewhere, where that pays."""
        return self._moves.run(now_s) if self._moves is not None and self.leading else []

    # --- grants ------------------------------------------------------------------------------------------------

    def _grant(self, step_id: StepId, worker: Worker, reason: str, now_s: float, priority: int = 0) -> Effects:
        step = self._board.steps[step_id]
        ready = step.admitted.step
        hello = worker.hello
        session = self._board.session(ready.session, ready.root)
        pages = self._board.index.resident_pages(hello.worker_id, session.hashes, session.stride)
        cached = cached_tokens(pages, hello.page_tokens, ready.prompt_tokens)
        self._leases_given += 1
        lease_id = LeaseId(f"{self.fence:012x}{self._leases_given:08x}")
        had = cached + (self._candidates.one(worker, step, session).shared_tokens if hello.shared_tier else 0)
        engine_s = hello.cost.step_s(ready.prompt_tokens, had, step.tokens - ready.prompt_tokens)
        waited: WaitCause = step.wait_cause
        tag, told = self._tag(session, step) if hello.session_tags else (NO_TAG, [])
        ran_at = session.ran_at
        left = ran_at if ran_at != hello.worker_id else NO_WORKER
        returned_pages = session.tagged.returned_pages if tag and session.tagged is not None else 0
        grant = Grant(
            step_id=step_id,
            attempt=step.attempt,
            lease_id=lease_id,
            root=ready.root,
            session=ready.session,
            worker_id=hello.worker_id,
            engine_url=hello.engine_url,
            session_tag=tag,
            cached_tokens=cached,
            reason=reason,
            priority=priority,
            cost_s=engine_s,
            waited=waited,
            ttl_s=GRANT_TTL_S,
            lease_ttl_s=LEASE_TTL_S,
            moved_from=session.home if session.home != hello.worker_id else NO_WORKER,
            admission_fence=self._admission_fence,
            fence=self.fence,
            new_session=step.admitted.new_session and not ran_at,
            ran_at=ran_at,
            left_tokens=self._left_tokens(left, session, hello.page_tokens, ready.prompt_tokens) if left else -1,
            left_gone=bool(left) and not self._serves(left, now_s),
            superseded_tokens=cached_tokens(returned_pages, hello.page_tokens, ready.prompt_tokens),
        )
        session.ran_at = hello.worker_id
        session.steps += 1
        expires_s = now_s + GRANT_TTL_S
        self._hold(step, Lease(lease_id, step_id, hello.worker_id, step.tokens, engine_s, expires_s, priority=priority))
        # At home there from now on, not only once it has finished: the next choice must see it.
        self._board.settle(session, hello.worker_id, max(session.context_tokens, ready.prompt_tokens))
        return [Publish(self._subjects.gateway(ready.gateway_id), grant), *told]

    def _serves(self, worker_id: WorkerId, now_s: float) -> bool:
        worker = self._board.workers.get(worker_id)
        return worker is not None and worker.usable(now_s)

    def _left_tokens(self, left: WorkerId, session: Session, page_tokens: int, prompt_tokens: int) -> int:
        """Of a prompt, resident where its session ran before; -1: not known."""
        index = self._board.index
        if index.stale(left):
            return -1
        return cached_tokens(index.resident_pages(left, session.hashes, session.stride), page_tokens, prompt_tokens)

    def _tag(self, session: Session, step: Step) -> tuple[SessionTag, Effects]:
        """The tag that the step runs under: a fresh one when that of its session pins too much that is dead."""
        ready = step.admitted.step
        if not self._supersede:
            return session_tag(ready.session), []
        if session.tagged is None:
            session.tagged = Tagged(session_tag(ready.session, ready.step_id))
        tagged = session.tagged
        dead = tagged.follow(ready.step_id, ready.agent_class, step.chain, self._board.steps)
        if not dead.choice:
            return tagged.tag, []
        tagged.tag = session_tag(ready.session, ready.step_id)
        self.superseded_pages += dead.choice
        facts = {"session": ready.session, "step": ready.step_id, "reason": dead.reason}
        return tagged.tag, [Log("placement.superseded", {**facts, "pages": dead.choice})]

    def follow_claim(self, step: Step, tag: SessionTag) -> None:
        """A step that runs already: its session goes on under the tag that it has."""
        session = self._board.session(step.admitted.step.session, step.admitted.step.root)
        if self._supersede and tag and session.tagged is None:
            session.tagged = Tagged(tag)
            session.tagged.follow(
                step.admitted.step.step_id, step.admitted.step.agent_class, step.chain, self._board.steps
            )

    def follow_grant(self, step: Step, grant: Grant, now_s: float) -> None:
        """A standby books what its leader granted."""
        lease = Lease(grant.lease_id, grant.step_id, grant.worker_id, step.tokens, grant.cost_s, now_s + grant.ttl_s)
        self._hold(step, lease)

    def _hold(self, step: Step, lease: Lease) -> None:
        self._board.dequeue(lease.step_id)
        step.life.advance(Move.GRANT)
        step.lease = lease
        self._board.add_lease(lease)
