"""Which workers are believed: quarantine for those whose outcome belies their word, probation, and the way back.

A worker in quarantine is given no steps; what runs there goes on. After a while it is on probation, one step at a time,
and serves again once it has kept some promises. Each quarantine lasts twice as long as the one before. A pool is never
left without a worker: the last one that serves is never quarantined, and when no other is left those in quarantine
serve, since a liar's answers are as good as anybody's and only slower. Called by `state.py`; charges are in
`conduct.py`, promises in `promises.py`.
"""

from collections.abc import Iterator
from typing import Final

from saga.contract.ids import WorkerId
from saga.contract.messages import (
    Grant,
    Heartbeat,
    LeaseReleased,
    LeaseReturned,
    Message,
    ResidencyDelta,
    ResyncReply,
    StepCancelled,
    StepFinished,
    StepProgress,
    StepStarted,
    WorkerHello,
    WorkerStands,
)
from saga.contract.subjects import Subjects
from saga.kernel.effects import Effect, Log, Publish
from saga.placement.board import Board
from saga.placement.conduct import RIVAL_QUIET_S, Charge, Conduct
from saga.placement.dispatch import Dispatcher
from saga.placement.promises import Promises
from saga.placement.records import Worker

QUARANTINE_S: Final = 30.0  # the first; doubled each time, up to MAX_QUARANTINE_S
MAX_QUARANTINE_S: Final = 960.0
PROBATION_S: Final = 60.0  # without a promise to judge
PROBATION_KEPT: Final = 4  # promises more kept than broken
PROBATION_BROKEN: Final = 3
HELD_S: Final = 10.0  # a step that has run for so long is seen by any honest look at the engine
MOVED_S: Final = 5.0  # and its gateway was heard of it so lately
LEAST_JUDGED: Final = 5  # promises of another worker, for it to count as an example
OTHERS_BROKEN_SHARE: Final = 0.4  # where a pool's others break as many, the measure is at fault, not the worker

Effects = list[Effect]


class _Standing:
    """Of a worker that does not simply serve, or did not once."""

    __slots__ = ("balance", "reason", "times", "until_s", "what")

    def __init__(self) -> None:
        self.what = "serving"
        self.reason: Charge = ""
        self.times = 0
        self.until_s = 0.0
        self.balance = 0  # promises kept, less those broken, on probation


class Trust:
    """In all workers of one placement."""

    def __init__(self, board: Board, dispatch: Dispatcher, subjects: Subjects, *, judges: bool) -> None:
        """`judges`: promises are judged; false where engines queue, since what was there at a Grant may be gone when
        the step's turn comes."""
        self._board = board
        self._dispatch = dispatch
        self._subjects = subjects
        self._judges = judges
        self._promises = Promises()
        self._conducts: dict[WorkerId, Conduct] = {}
        self._standings: dict[WorkerId, _Standing] = {}
        self.quarantined_so_far = 0

    # --- questions ---------------------------------------------------------------------------------------------

    def barred(self) -> Iterator[tuple[WorkerId, str]]:
        """Workers in quarantine or on probation, and why."""
        for worker_id, standing in self._standings.items():
            if standing.what != "serving":
                yield worker_id, f"{standing.what}: {standing.reason}"

    def quarantined(self) -> dict[str, float]:
        """How many there are, by reason."""
        found: dict[str, float] = {}
        for standing in list(self._standings.values()):
            if standing.what == "quarantined":
                found[standing.reason] = found.get(standing.reason, 0.0) + 1
        return found

    def standing(self, worker_id: WorkerId) -> tuple[str, str]:
        """(serving, probation or quarantined; why)."""
        standing = self._standings.get(worker_id)
        return (standing.what, standing.reason) if standing is not None else ("serving", "")

    def conduct(self, worker_id: WorkerId) -> Conduct:
        """What was seen of it."""
        return self._conducts.get(worker_id) or Conduct()

    def check(self) -> None:
        """Assert that what workers may do is as they stand, and that no pool is without need without a worker."""
        for worker_id, worker in self._board.workers.items():
            what = self.standing(worker_id)[0]
            assert worker.quarantined == (what == "quarantined"), f"{worker_id}: {what}"
            assert worker.on_probation == (what == "probation"), f"{worker_id}: {what}"

    # --- what is heard -----------------------------------------------------------------------------------------

    def heard(self, message: Message, now_s: float) -> None:
        """Before the books change."""
        match message:
            case StepStarted() | StepProgress():
                self._promises.runs(message.lease_id, now_s)
            case ResidencyDelta():
                self._promises.taken_back(message)
            case ResyncReply():
                self._promises.unsure(message.worker_id)
            case Heartbeat():
                self._incarnation(message.worker, now_s)
                self._beat(message, now_s)
            case WorkerHello():
                self._incarnation(message, now_s)
            case StepFinished():
                self._finished(message)
            case StepCancelled() | LeaseReturned() | LeaseReleased():
                self._promises.off(message.lease_id)

    def followed(self, message: Message | None, effects: Effects, now_s: float) -> None:
        """After the books have changed: what was promised, and who is new in them."""
        if isinstance(message, Heartbeat | WorkerHello) and self._standings:
            hello = message.worker if isinstance(message, Heartbeat) else message
            self._mark(hello.worker_id)
        if not self._judges:
            return
        for effect in effects:
            if isinstance(effect, Publish) and isinstance(effect.message, Grant):
                grant = effect.message
                worker, step = self._board.workers.get(grant.worker_id), self._board.steps.get(grant.step_id)
                if worker is not None and step is not None:
                    hello = worker.hello
                    self._promises.made(grant, hello.epoch, hello.page_tokens, step.chain or b"", now_s)

    def _of(self, worker_id: WorkerId) -> Conduct:
        conduct = self._conducts.get(worker_id)
        if conduct is None:
            conduct = self._conducts[worker_id] = Conduct()
        return conduct

    def _incarnation(self, hello: WorkerHello, now_s: float) -> None:
        known = self._board.workers.get(hello.worker_id)
        if known is None:
            self._of(hello.worker_id).heard(now_s)
            return
        conduct = self._of(hello.worker_id)
        if hello.epoch < known.hello.epoch:
            conduct.rival(hello.engine_url, now_s)
            return
        if hello.epoch > known.hello.epoch:
            conduct.came_back(now_s, anew=True)
            self._promises.unsure(hello.worker_id)
        conduct.heard(now_s)

    def _beat(self, beat: Heartbeat, now_s: float) -> None:
        worker = self._board.workers.get(beat.worker.worker_id)
        if worker is None or beat.worker.epoch != worker.hello.epoch:
            return
        conduct = self._of(beat.worker.worker_id)
        if beat.healthy and not worker.healthy:
            conduct.came_back(now_s, anew=False)
        if self._board.index.stale(beat.worker.worker_id):
            self._promises.unsure(beat.worker.worker_id)
        said = beat.running + beat.waiting
        known = 0
        if beat.healthy and said < len(worker.leases):
            known = self._promises.running(beat.worker.worker_id, now_s - HELD_S, now_s - MOVED_S)
        conduct.beat(contradicted=said < known)

    def _finished(self, finished: StepFinished) -> None:
        worker = self._board.workers.get(finished.worker_id)
        if worker is None:
            self._promises.off(finished.lease_id)
            return
        judged = self._promises.judged(finished, worker.hello.epoch)
        if judged is None or judged[0] == "excused":
            return
        verdict, promise = judged
        broken = verdict == "broken"
        self._of(finished.worker_id).promised(promise.expected_tokens, finished.cached_tokens, broken=broken)
        standing = self._standings.get(finished.worker_id)
        if standing is not None and standing.what == "probation":
            standing.balance += -1 if broken else 1

    # --- what follows ------------------------------------------------------------------------------------------

    def revise(self, message: Message | None, now_s: float) -> Effects:
        """Draw the conclusions: of a worker that was heard of, or of all of them at a tick (no message)."""
        match message:
            case None:
                return [effect for worker_id in list(self._board.workers) for effect in self._one(worker_id, now_s)]
            case StepFinished(worker_id=worker_id):
                return self._one(worker_id, now_s)
            case _:
                return []

    def _one(self, worker_id: WorkerId, now_s: float) -> Effects:
        worker, conduct = self._board.workers.get(worker_id), self._conducts.get(worker_id)
        if worker is None or conduct is None:
            return []
        standing = self._standings.get(worker_id)
        what = standing.what if standing is not None else "serving"
        charge = self._proven(worker, conduct.charge(now_s))
        if what == "quarantined":
            return self._out(worker, conduct, now_s)
        if charge and self._dispensable(worker, now_s):
            return self._quarantine(worker, charge, conduct, now_s)
        return self._probation_over(worker, now_s) if what == "probation" else []

    def _proven(self, worker: Worker, charge: Charge) -> Charge:
        """The charge, unless all of its pool do the same: then it is not the worker."""
        if charge != "pages_not_there":
            return charge
        others = [
            self.conduct(other.hello.worker_id)
            for other in self._board.in_pool(worker.hello.pool)
            if other is not worker
        ]
        shares = sorted(other.broken_share for other in others if other.judged >= LEAST_JUDGED)
        return "" if shares and shares[(len(shares) - 1) // 2] >= OTHERS_BROKEN_SHARE else charge

    def _dispensable(self, worker: Worker, now_s: float) -> bool:
        """Whether another worker of its pool serves."""
        return any(
            other is not worker and other.usable(now_s) and not other.on_probation
            for other in self._board.in_pool(worker.hello.pool)
        )

    def _quarantine(self, worker: Worker, charge: Charge, conduct: Conduct, now_s: float) -> Effects:
        worker_id = worker.hello.worker_id
        standing = self._standings.setdefault(worker_id, _Standing())
        for_s = min(MAX_QUARANTINE_S, QUARANTINE_S * 2**standing.times)
        standing.times = min(standing.times + 1, 16)
        self.quarantined_so_far += 1
        standing.until_s = now_s + for_s
        facts: dict[str, str | int | float | bool] = {
            "worker": worker_id,
            "reason": charge,
            "for_s": for_s,
            "expected_tokens": round(conduct.expected_tokens),
            "cached_tokens": round(conduct.cached_tokens),
            "engine": worker.hello.engine_url,
            "other_engine": conduct.rival_url if charge == "two_workers" else "",
        }
        conduct.forgive()
        if charge == "pages_not_there":  # it may say anew what it has
            self._board.index.drop_worker(worker_id)
            self._promises.unsure(worker_id)
        effects = self._stands(worker, "quarantined", charge)
        return [Log("placement.quarantined", facts), *effects, *self._dispatch.scatter(worker_id, now_s)]

    def _out(self, worker: Worker, conduct: Conduct, now_s: float) -> Effects:
        """Of quarantine, when its time is over or nobody else is left."""
        standing = self._standings[worker.hello.worker_id]
        if not self._dispensable(worker, now_s):
            return self._release(worker, "no_other", now_s)
        rivals = standing.reason == "two_workers" and now_s - conduct.rival_s < RIVAL_QUIET_S
        if now_s < standing.until_s or rivals:
            return []
        standing.until_s = now_s + PROBATION_S
        standing.balance = 0
        effects = self._stands(worker, "probation", standing.reason)
        told = Log("placement.on_probation", {"worker": worker.hello.worker_id, "reason": standing.reason})
        return [told, *effects, *self._dispatch.serve(worker.hello.worker_id, now_s)]

    def _probation_over(self, worker: Worker, now_s: float) -> Effects:
        standing = self._standings[worker.hello.worker_id]
        if standing.balance <= -PROBATION_BROKEN and self._dispensable(worker, now_s):
            return self._quarantine(worker, standing.reason, self._of(worker.hello.worker_id), now_s)
        if standing.balance >= PROBATION_KEPT or now_s >= standing.until_s:
            return self._release(worker, "honest", now_s)
        return [] if self._dispensable(worker, now_s) else self._release(worker, "no_other", now_s)

    def _release(self, worker: Worker, why: str, now_s: float) -> Effects:
        worker_id = worker.hello.worker_id
        told = Log("placement.released", {"worker": worker_id, "why": why})
        return [told, *self._stands(worker, "serving", ""), *self._dispatch.serve(worker_id, now_s)]

    def _stands(self, worker: Worker, what: str, reason: Charge) -> Effects:
        worker_id = worker.hello.worker_id
        standing = self._standings.setdefault(worker_id, _Standing())
        standing.what, standing.reason = what, reason
        self._mark(worker_id)
        return [self._said(worker_id)]

    def _mark(self, worker_id: WorkerId) -> None:
        worker, standing = self._board.workers.get(worker_id), self._standings.get(worker_id)
        if worker is not None and standing is not None:
            worker.quarantined = standing.what == "quarantined"
            worker.on_probation = standing.what == "probation"

    def _said(self, worker_id: WorkerId) -> Publish:
        standing = self._standings[worker_id]
        worker = self._board.workers.get(worker_id)
        stands = WorkerStands(
            worker_id=worker_id,
            epoch=worker.hello.epoch if worker is not None else 0,
            standing=standing.what,  # type: ignore[arg-type]
            reason=standing.reason,
            fence=self._dispatch.fence,
        )
        return Publish(self._subjects.worker_standing(), stands)

    # --- leaders -----------------------------------------------------------------------------------------------

    def say_all(self) -> Effects:
        """A leader is new: how those stand that do not simply serve."""
        return [self._said(worker_id) for worker_id, s in self._standings.items() if s.what != "serving"]

    def follow(self, stands: WorkerStands, now_s: float) -> None:
        """A standby hears how its leader decided, so that it can go on from there."""
        standing = self._standings.setdefault(stands.worker_id, _Standing())
        standing.what, standing.reason = stands.standing, stands.reason  # type: ignore[assignment]
        standing.until_s = now_s + (QUARANTINE_S if stands.standing == "quarantined" else PROBATION_S)
        self._mark(stands.worker_id)
