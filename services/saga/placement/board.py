"""Placement's books: workers, leases, sessions and queues, and the few moves that keep them consistent.

Decides nothing. `state.py` is the only one to change it; `check` asserts what must hold between its parts.
"""

from collections import OrderedDict
from collections.abc import Iterator

from saga.contract.ids import NO_WORKER, LeaseId, PoolId, SessionId, StepId, WorkerId
from saga.contract.messages import WorkerHello
from saga.kernel.steps import StepState
from saga.kv.residency import ResidencyIndex
from saga.placement.lease_accounts import LeaseAccounts, LeaseEnd
from saga.placement.queue import TagQueue
from saga.placement.records import Lease, Session, Step, Worker
from saga.placement.supersession import HASH_BYTES

MAX_SESSIONS = 50_000  # remembered; the ones used longest ago are forgotten first
MAX_ANSWERED = 1_024  # sub-agents of one session that are done, while it does not go on
MAX_ENDED = 20_000  # step ids remembered so that a late message cannot bring one back


class Board:
    """Who waits where, who runs where, and what is at home where."""

    def __init__(self) -> None:
        self.index = ResidencyIndex()
        self.workers: dict[WorkerId, Worker] = {}
        self.shares_tiers = False  # a worker has named a KV tier that it shares
        self.steps: dict[StepId, Step] = {}
        self.leases: dict[LeaseId, Lease] = {}
        self.lease_accounts = LeaseAccounts()
        self._leases_by_step: dict[StepId, list[LeaseId]] = {}
        self._alike: dict[bytes, dict[LeaseId, bytes]] = {}  # chains of prompts under a lease, by their first page
        self.sessions: OrderedDict[SessionId, Session] = OrderedDict()
        self.at_home: dict[WorkerId, TagQueue] = {}
        self.homeless: dict[PoolId, TagQueue] = {}
        self._ended: OrderedDict[StepId, None] = OrderedDict()

    # --- queues ------------------------------------------------------------------------------------------------

    def enqueue(self, step_id: StepId, home: WorkerId) -> None:
        """Let the step wait at its home, or in its pool when it has none."""
        step = self.steps[step_id]
        self.dequeue(step_id)
        step.queued_at = home
        if home:
            queue = self.at_home.setdefault(home, TagQueue())
            if home in self.workers:
                self.workers[home].plain = None
                step.engine_s = self._estimate_s(step, self.workers[home])
                self.workers[home].queued_engine_s += step.engine_s
        else:
            queue = self.homeless.setdefault(step.admitted.step.pool, TagQueue())
        queue.push(step_id, step.admitted.tag)

    def dequeue(self, step_id: StepId) -> None:
        """Take the step out of the queue it is in, if any."""
        step = self.steps[step_id]
        if step.queued_at is None:
            return
        queue = self.at_home[step.queued_at] if step.queued_at else self.homeless[step.admitted.step.pool]
        queue.remove(step_id)
        if step.queued_at in self.workers:
            self.workers[step.queued_at].plain = None
            self.workers[step.queued_at].queued_engine_s -= step.engine_s
        step.queued_at, step.engine_s = None, 0.0

    def _estimate_s(self, step: Step, worker: Worker) -> float:
        """Work of a step at its home: what its session's last context left there needs no prefill."""
        ready = step.admitted.step
        session = self.sessions.get(ready.session)
        cached_tokens = min(session.context_tokens, ready.prompt_tokens) if session is not None else 0
        return worker.hello.cost.step_s(ready.prompt_tokens, cached_tokens, step.tokens - ready.prompt_tokens)

    @property
    def waiting(self) -> int:
        """Admitted steps without a lease."""
        return sum(map(len, self.at_home.values())) + sum(map(len, self.homeless.values()))

    # --- leases ------------------------------------------------------------------------------------------------

    def add_lease(self, lease: Lease) -> None:
        """A slot is reserved."""
        self.leases[lease.lease_id] = lease
        self.lease_accounts.granted += 1
        self._leases_by_step.setdefault(lease.step_id, []).append(lease.lease_id)
        step = self.steps.get(lease.step_id)
        if step is not None and step.chain:
            lease.first_page = step.chain[:HASH_BYTES]
            self._alike.setdefault(lease.first_page, {})[lease.lease_id] = step.chain
        worker = self.workers.get(lease.worker_id)
        if worker is not None:
            worker.hold(lease)

    def free_lease(self, lease_id: LeaseId, how: LeaseEnd | None = None) -> Lease | None:
        """The slot is free again. None when it was already. `how`: None: nobody said so."""
        lease = self.leases.pop(lease_id, None)
        if lease is None:
            return None
        self.lease_accounts.ended[how or ("orphaned" if lease.taken else "expired")] += 1
        alike = self._alike.get(lease.first_page)
        if alike is not None:
            alike.pop(lease_id, None)
            if not alike:
                del self._alike[lease.first_page]
        siblings = self._leases_by_step[lease.step_id]
        siblings.remove(lease_id)
        if not siblings:
            del self._leases_by_step[lease.step_id]
        worker = self.workers.get(lease.worker_id)
        if worker is not None:
            worker.free(lease)
        step = self.steps.get(lease.step_id)
        if step is not None and step.lease is lease:
            step.lease = None
        return lease

    def leases_of(self, step_id: StepId) -> list[Lease]:
        """All leases given out for a step; more than one after a grant was lost or late."""
        return [self.leases[lease_id] for lease_id in self._leases_by_step.get(step_id, ())]

    def alike(self, first_page: bytes) -> dict[LeaseId, bytes]:
        """Page chains of the prompts under a lease that begin with this page, in the order of their grants."""
        return self._alike.get(first_page, {})

    def forget_step(self, step_id: StepId, *, silent: bool) -> None:
        """The step is over. `silent`: nobody said so, nobody named it; its gateway may yet turn up with it."""
        if step_id in self.steps:
            self.dequeue(step_id)
            del self.steps[step_id]
        if silent:
            return
        self._ended[step_id] = None
        if len(self._ended) > MAX_ENDED:
            self._ended.popitem(last=False)

    def has_ended(self, step_id: StepId) -> bool:
        """Whether the step was over not long ago."""
        return step_id in self._ended

    # --- workers -----------------------------------------------------------------------------------------------

    def hello(self, hello: WorkerHello, now_s: float) -> tuple[Worker, bool]:
        """The worker is there. True with it: it is new, or its engine is."""
        worker = self.workers.get(hello.worker_id)
        fresh = worker is None or worker.hello.epoch != hello.epoch
        if worker is None:
            worker = self.workers[hello.worker_id] = Worker(hello, now_s)
            for lease in self.leases.values():
                if lease.worker_id == hello.worker_id:
                    worker.hold(lease)
            worker.queued_engine_s = sum(s.engine_s for s in self.steps.values() if s.queued_at == hello.worker_id)
            for session in self.sessions.values():
                if session.home == hello.worker_id:
                    worker.homed_sessions += 1
                    worker.homed_tokens += session.context_tokens
        elif fresh:
            worker.suspect_until_s = 0.0
        self.shares_tiers = self.shares_tiers or bool(hello.shared_tier)
        if worker.hello is not hello:
            worker.hello, worker.plain = hello, None
        worker.seen_s = now_s
        return worker, fresh

    def in_pool(self, pool: PoolId) -> Iterator[Worker]:
        """Workers that run this model."""
        return (worker for worker in self.workers.values() if worker.hello.pool == pool)

    # --- sessions ----------------------------------------------------------------------------------------------

    def session(self, session_id: SessionId, root: str) -> Session:
        """The session's record, made when there is none, and now the most recently used."""
        session = self.sessions.get(session_id)
        if session is None:
            session = self.sessions[session_id] = Session(session_id, root)
            if len(self.sessions) > MAX_SESSIONS:
                _, oldest = self.sessions.popitem(last=False)
                self._unhome(oldest)
        else:
            self.sessions.move_to_end(session_id)
        return session

    def settle(self, session: Session, home: WorkerId, context_tokens: int) -> None:
        """The session is at home there, with a context of this size."""
        self._unhome(session)
        session.home, session.context_tokens = home, context_tokens
        worker = self.workers.get(home)
        if worker is not None:
            worker.plain = None
            worker.homed_sessions += 1
            worker.homed_tokens += context_tokens

    def answers(self, child: SessionId, parent: SessionId, root: str) -> None:
        """A session ended a step without a tool call: if it is a sub-agent, it may be done."""
        if parent in ("", child):
            return
        answered = self.session(parent, root).answered
        answered[child] = None
        if len(answered) > MAX_ANSWERED:
            del answered[next(iter(answered))]

    def goes_on(self, child: SessionId, parent: SessionId) -> None:
        """A session has another step: if it is a sub-agent, it is not done."""
        session = self.sessions.get(parent)
        if session is not None:
            session.answered.pop(child, None)

    def forget_session(self, session_id: SessionId) -> None:
        """The session will not come back."""
        session = self.sessions.pop(session_id, None)
        if session is not None:
            self._unhome(session)

    def _unhome(self, session: Session) -> None:
        worker = self.workers.get(session.home)
        if worker is not None:
            worker.plain = None
            worker.homed_sessions -= 1
            worker.homed_tokens -= session.context_tokens
        session.home = NO_WORKER
        session.context_tokens = 0

    # --- invariants --------------------------------------------------------------------------------------------

    def check(self) -> None:
        """Assert what must hold between steps, queues, leases, workers and sessions."""
        for worker_id, worker in self.workers.items():
            here = {lease.lease_id for lease in self.leases.values() if lease.worker_id == worker_id}
            assert set(worker.leases) == here, f"{worker_id}: slots {set(worker.leases) ^ here} leak"
            assert worker.leased_tokens == sum(lease.tokens for lease in worker.leases.values())
            assert abs(worker.leased_engine_s - sum(lease.engine_s for lease in worker.leases.values())) < 1e-6
            homed = [s for s in self.sessions.values() if s.home == worker_id]
            assert worker.homed_sessions == len(homed)
            waits = sum(step.engine_s for step in self.steps.values() if step.queued_at == worker_id)
            assert abs(worker.queued_engine_s - waits) < 1e-6
            assert worker.homed_tokens == sum(s.context_tokens for s in homed)
        self.lease_accounts.check(len(self.leases))
        by_step = {(lease.step_id, lease.lease_id) for lease in self.leases.values()}
        assert all(lease_id in self.leases for alike in self._alike.values() for lease_id in alike)
        assert by_step == {(step_id, i) for step_id, ids in self._leases_by_step.items() for i in ids}
        queued = 0
        for step_id, step in self.steps.items():
            assert step.life.live, f"{step_id} is over and still here"
            held = step.life.state in (StepState.GRANTED, StepState.TAKEN, StepState.STARTED)
            assert held == (step.lease is not None), f"{step_id} is {step.life.state.value}, lease {step.lease}"
            assert (step.queued_at is not None) == (step.life.state is StepState.ADMITTED), f"{step_id} is not queued"
            if step.lease is not None:
                assert self.leases.get(step.lease.lease_id) is step.lease
            if step.queued_at is not None:
                queued += 1
                queue = self.at_home[step.queued_at] if step.queued_at else self.homeless[step.admitted.step.pool]
                assert step_id in queue
        assert queued == self.waiting, "a queue holds a step that is not there"
        self.index.check()
