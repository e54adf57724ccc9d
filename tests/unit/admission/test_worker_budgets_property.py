"""What must hold for budgets by worker, whatever arrives, grows, ends, dies or comes back."""

from admission_story import POOL, Story, beat_of, hello, ready, step_id
from hypothesis import given, settings
from hypothesis import strategies as st

from saga.admission.needs import NO_GROWTH, plus
from saga.admission.policy import Claims, Revision
from saga.admission.worker_budgets import WorkerBudgets
from saga.contract.ids import GatewayId, RootId, SessionId, WorkerId
from saga.contract.messages import GatewayBeat, StepAdmitted, StepCancelled, WorkerLeaving
from saga.kernel.effects import Tick
from saga.kernel.steps import StepState

KV = {"w0": 10_000, "w1": 10_000, "w2": 16_000}
JOIN_SHARE = 0.95


class Whole(WorkerBudgets):
    """Asks twice: as if every worker had changed, and then as usual. The answers must be the same."""

    def revise(self, claims: Claims, now_s: float) -> Revision:
        changed, refused = dict(claims.seats.changed), dict(self._refused)
        claims.seats.changed |= dict.fromkeys(claims.workers)
        whole = super().revise(claims, now_s)
        whole_refused, self._refused = self._refused, refused
        claims.seats.changed.clear()
        claims.seats.changed |= changed
        quick = super().revise(claims, now_s)
        assert (quick.joins, set(quick.leaves), quick.bound) == (whole.joins, set(whole.leaves), whole.bound)
        assert self._refused == whole_refused
        return quick


class History:
    """A cell in which anything may happen; asserts after each event what must hold then."""

    def __init__(self, workers: int) -> None:
        self.story = Story(Whole(), workers=0)
        self.steps: dict[int, tuple[str, str]] = {}  # number: root, session; those that are not over
        self.count = 0
        for name in sorted(KV)[:workers]:
            self.worker(sorted(KV).index(name), KV[name])

    @property
    def pool(self):
        return self.story.core.roster.pool(POOL)

    def tell(self, event) -> None:
        before = set(self.pool.active)
        for message in event():
            if isinstance(message, StepAdmitted):
                self._sent_where_it_belongs(message)
        self._those_who_joined_fit(self.pool.active - before)
        self._somebody_runs()

    def _sent_where_it_belongs(self, admitted: StepAdmitted) -> None:
        workflow = self.story.core.roster.workflows[admitted.step.root]
        assert workflow.active
        home = workflow.sessions[admitted.step.session].home
        assert admitted.home == (home or workflow.bound)

    def _those_who_joined_fit(self, joined: set[RootId]) -> None:
        for root in joined:
            worker_id = self.pool.seats.of(root)
            if worker_id not in self.pool.workers:
                assert not self.pool.workers
                continue
            seat = self.pool.seats.at(worker_id)
            together = NO_GROWTH
            for _, member in seat.members[: seat.members.index((self.pool.rank[root], root)) + 1]:
                together = plus(together, self.pool.needs[member])
            fits = max(together[:2]) <= int(JOIN_SHARE * self.pool.workers[worker_id].kv_tokens)
            others_rest = not any(self.pool.workflows[r].steps for _, r in seat.members if r != root)
            assert fits or seat.members[0][1] == root or others_rest

    def _somebody_runs(self) -> None:
        waits = [root for _, root in self.pool.outside if self.pool.workflows[root].steps]
        assert self.pool.active or not waits, f"{waits} wait for nobody"

    # --- what may happen ---------------------------------------------------------------------------------------

    def arrive(self, who: int, session: int, prompt_tokens: int) -> None:
        """A step of a workflow, known or not, of its first session or a sub-agent."""
        root = f"r{who}"
        name = root if not session else f"{root}/{session}"
        if (root, name) in self.steps.values():
            return
        self.count += 1
        number = self.count
        self.steps[number] = (root, name)
        parent = SessionId(root if session else "")
        step = ready(number, root, session=SessionId(name), parent=parent, prompt_tokens=prompt_tokens)
        self.tell(lambda: self.story.hear(step))

    def _number(self, which: int, *states: StepState) -> int | None:
        steps = self.story.core.book.steps
        may = [n for n in self.steps if step_id(n) in steps and steps[step_id(n)].life.state in states]
        return may[which % len(may)] if may else None

    def take(self, which: int, *, elsewhere: bool = False) -> None:
        """A gateway takes a lease: where admission said, unless placement could not."""
        number = self._number(which, StepState.ADMITTED)
        if number is None:
            return
        root, session = self.steps[number]
        workflow = self.story.core.roster.workflows[RootId(root)]
        said = workflow.sessions[SessionId(session)].home or workflow.bound
        worker = sorted(KV)[which % len(KV)] if elsewhere or not said else said
        self.tell(lambda: self.story.take(number, root, worker, session=SessionId(session)) or [])

    def finish(self, which: int, output_tokens: int, *, final: bool = False) -> None:
        """A step ends."""
        number = self._number(which, StepState.TAKEN)
        if number is None:
            return
        root, session = self.steps.pop(number)
        step = self.story.core.book.steps[step_id(number)]
        home = self.story.core.roster.workflows[RootId(root)].sessions[SessionId(session)].home
        self.tell(
            lambda: self.story.finish(
                number,
                root,
                session=SessionId(session),
                worker_id=home,
                prompt_tokens=step.step.prompt_tokens,
                output_tokens=output_tokens,
                final=final,
            )
        )

    def take_elsewhere(self, which: int) -> None:
        """Placement could not use the worker that admission said."""
        self.take(which, elsewhere=True)

    def close(self, which: int) -> None:
        """A workflow's last step ends."""
        self.finish(which, 10, final=True)

    def cancel(self, which: int) -> None:
        """A client leaves."""
        number = self._number(which, *StepState)
        if number is None:
            return
        root, session = self.steps.pop(number)
        step = self.story.core.book.steps[step_id(number)].step
        cancelled = StepCancelled(
            step_id=step.step_id,
            attempt=0,
            gateway_id=step.gateway_id,
            tenant=step.tenant,
            root=RootId(root),
            session=SessionId(session),
        )
        self.tell(lambda: self.story.hear(cancelled))

    def pass_time(self, seconds: float) -> None:
        """Nobody says anything new, everybody that he is there."""
        self.story.now_s += seconds
        beat = GatewayBeat(gateway_id=GatewayId("g0"), waiting=tuple(beat_of(n, waited_s=0.1) for n in self.steps))
        self.tell(lambda: self.story.hear(beat))
        for hello_ in tuple(self.pool.workers.values()):
            self.tell(lambda said=hello_: self.story.hear(said))
        self.tell(lambda: self.story.tell(Tick()))

    def worker(self, which: int, kv_tokens: int) -> None:
        """A worker leaves, comes, or comes back with other room."""
        name = sorted(KV)[which % len(KV)]
        if not kv_tokens:
            self.tell(lambda: self.story.hear(WorkerLeaving(worker_id=WorkerId(name), epoch=1, engine_died=True)))
        else:
            self.tell(lambda: self.story.hear(hello(name, kv_tokens=kv_tokens)))


WHICH = st.integers(0, 7)
TOKENS = st.sampled_from([200, 1_000, 3_000, 5_000, 9_000, 9_900])
EVENTS = st.one_of(
    st.tuples(st.just("arrive"), WHICH, st.integers(0, 2), TOKENS),
    st.tuples(st.just("take"), WHICH),
    st.tuples(st.just("take_elsewhere"), WHICH),
    st.tuples(st.just("finish"), WHICH, st.sampled_from([10, 500, 4_000])),
    st.tuples(st.just("close"), WHICH),
    st.tuples(st.just("cancel"), WHICH),
    st.tuples(st.just("pass_time"), st.sampled_from([0.1, 2.0, 40.0])),
    st.tuples(st.just("worker"), WHICH, st.sampled_from([0, 10_000, 16_000])),
)


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 3), st.lists(EVENTS, max_size=60))
def test_never_a_jam_bound_respected_and_the_quick_answer_is_that_of_the_whole_rule(workers, events):
    history = History(workers)
    for name, *arguments in events:
        getattr(history, name)(*arguments)
        history.story.now_s += 0.01


CALM = st.one_of(
    st.tuples(st.just("arrive"), st.integers(2, 40), st.just(0), TOKENS),
    st.tuples(st.just("take"), WHICH),
    st.tuples(st.just("finish"), WHICH, st.sampled_from([10, 500, 4_000])),
    st.tuples(st.just("close"), WHICH),
)


@settings(max_examples=60, deadline=None)
@given(st.lists(CALM, max_size=80), st.sampled_from([5_000, 9_000, 9_900]))
def test_nobody_younger_joins_the_worker_that_one_who_waits_is_promised(events, tokens):
    history = History(2)
    history.arrive(0, 0, 6_000)
    history.arrive(1, 0, 7_000)
    history.story.now_s += 1.0
    history.arrive(99, 0, tokens)  # it fits on neither
    seats = history.pool.seats
    policy = history.story.core._set._policy
    promised = policy._refused[POOL][RootId("r99")].worker_id
    there = {root for _, root in seats.at(promised).members}
    for name, *arguments in events:
        history.story.now_s += 1.0
        getattr(history, name)(*arguments)
        if seats.of(RootId("r99")):
            return
        now = {root for _, root in seats.at(promised).members}
        assert now <= there, "somebody overtook it"
        there = now
    for which in range(200):  # those who are there finish, and others come all the time
        history.story.now_s += 1.0
        history.arrive(100 + which, 0, 1_000)
        history.take(0)
        history.close(0)
        history.pass_time(11.0)  # nobody's gap lasts for ever
        if seats.of(RootId("r99")):
            return
    raise AssertionError("it starves")
