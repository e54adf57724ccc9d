"""Lets steps that wait at home start elsewhere, as a policy of stealing says. Asked by `dispatch` at each tick."""

from collections.abc import Callable, Sequence
from functools import partial

from msgspec.structs import replace

from saga.contract.ids import StepId, WorkerId
from saga.kernel.effects import Decision, Effect
from saga.placement.board import Board
from saga.placement.candidate import Candidate
from saga.placement.candidates import Candidates
from saga.placement.pricing import Placed, price
from saga.placement.records import STICKY_STEPS, Step, Worker
from saga.placement.stealing import Load, MovePolicy, StealPolicy

LOOKED_AT = 4  # steps of each queue at one tick: the first in line, which nobody else can help

Effects = list[Effect]
GrantIt = Callable[[StepId, Worker, str, float], Effects]
Room = Callable[[Worker, Step], bool]
Weighing = Callable[[StepId, Sequence[Candidate], Decision[WorkerId]], None]


class Moves:
    """Finds the steps that move, and who takes them."""

    def __init__(
        self,
        board: Board,
        candidates: Candidates,
        policy: StealPolicy | MovePolicy,
        room: Room,
        grant: GrantIt,
        granted: Callable[[], int],
    ) -> None:
        """`room`: whether a worker could start a step now. `grant`: starts it there. `granted`: steps so far; at most
        one of STICKY_STEPS is a move."""
        self._board = board
        self._candidates = candidates
        self._room = room
        self._grant = grant
        self._granted = granted
        self._moved = 0
        self.weighed: Weighing | None = None  # who wants to know what a move was chosen from
        # Once: what a class has is slow to find out, and steps wait often.
        self._run: Callable[[float], Effects] = (
            partial(self._by_load, policy) if isinstance(policy, StealPolicy) else partial(self._by_price, policy)
        )

    def run(self, now_s: float) -> Effects:
        """What moves now."""
        return self._run(now_s)

    # --- by load -----------------------------------------------------------------------------------------------

    def _by_load(self, policy: StealPolicy, now_s: float) -> Effects:
        """Each worker that may takes one step that waits for another."""
        effects: Effects = []
        for worker in self._board.workers.values():
            if not worker.usable(now_s):
                continue
            pool = [w for w in self._board.in_pool(worker.hello.pool) if w is not worker]
            victim = policy.victim(self._load(worker, now_s), [self._load(w, now_s) for w in pool])
            queue = self._board.at_home.get(victim) if victim is not None else None
            step_id = queue.oldest() if queue else None
            if victim is not None and step_id is not None and self._room(worker, self._board.steps[step_id]):
                self._explain(step_id, worker, victim)
                effects += self._grant(step_id, worker, "stolen", now_s)
        return effects

    def _explain(self, step_id: StepId, thief: Worker, victim: WorkerId) -> None:
        """This policy asks for no prices, whoever asks why will."""
        step = self._board.steps[step_id]
        session = self._board.session(step.admitted.step.session, step.admitted.step.root)
        both = [self._candidates.one(worker, step, session) for worker in (thief, self._board.workers[victim])]
        prices = tuple(price(step.admitted.step, one, returns=0.0) for one in both)
        self._tell(step_id, both, Placed(thief.hello.worker_id, "stolen", prices))

    def _tell(self, step_id: StepId, candidates: Sequence[Candidate], placed: Placed) -> None:
        self._board.steps[step_id].prices = placed.prices
        if self.weighed is not None:
            self.weighed(step_id, candidates, placed)

    def _load(self, worker: Worker, now_s: float) -> Load:
        worker_id = worker.hello.worker_id
        queued = len(self._board.at_home.get(worker_id, ()))
        if queued:
            worker.waited_for_s = now_s
        return Load(worker_id=worker_id, running=len(worker.leases), queued=queued, idle_s=now_s - worker.waited_for_s)

    # --- by price ----------------------------------------------------------------------------------------------

    def _by_price(self, policy: MovePolicy, now_s: float) -> Effects:
        """Each step at the head of a queue goes where it starts soonest for what that costs."""
        effects: Effects = []
        for worker_id, queue in self._board.at_home.items():
            home = self._board.workers.get(worker_id)
            if home is None or not home.usable(now_s):
                continue
            ahead_s: list[float] = []  # modelled work of those in front of it: nobody waits for who comes after
            for step_id in queue.first(LOOKED_AT):
                moved = self._move(policy, step_id, home, ahead_s, len(queue) - len(ahead_s) - 1, now_s)
                effects += moved
                if not moved:
                    ahead_s.append(self._board.steps[step_id].engine_s)
        return effects

    def _move(
        self, policy: MovePolicy, step_id: StepId, victim: Worker, ahead_s: Sequence[float], behind: int, now_s: float
    ) -> Effects:
        step = self._board.steps[step_id]
        ready = step.admitted.step
        session = self._board.session(ready.session, ready.root)
        sticks = session.steps - session.moved_at < STICKY_STEPS or self._moved * STICKY_STEPS >= self._granted()
        if session.ran_at and sticks:
            return []
        others = [
            worker
            for worker in self._board.in_pool(ready.pool)
            if worker is not victim and worker.usable(now_s) and self._may_take(worker, step)
        ]
        home = self._candidates.one(victim, step, session)
        home = replace(
            home,
            queued_steps=len(ahead_s),
            queued_engine_s=sum(ahead_s),
            behind_engine_s=behind * step.engine_s,
        )
        candidates = self._candidates.of(others, step, session)
        placed = policy.move(ready, home, candidates)
        if not placed.choice:
            return []
        self._tell(step_id, [*candidates, home], placed)
        session.moved_at = session.steps
        self._moved += bool(session.ran_at)  # who has not run anywhere yet leaves nothing behind
        return self._grant(step_id, self._board.workers[placed.choice], placed.reason, now_s)

    def _may_take(self, worker: Worker, step: Step) -> bool:
        """Nobody waits there, it has room, and its sessions leave room for this one's KV too: a step that pushes out
        what others come back for is moved at their cost."""
        if self._board.at_home.get(worker.hello.worker_id) or not self._room(worker, step):
            return False
        return worker.homed_tokens + step.tokens <= worker.hello.kv_tokens
