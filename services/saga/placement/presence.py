"""Workers come, go, fall silent and lose residency messages. Called by `state.py` alone."""

from saga.contract.ids import WorkerId
from saga.contract.messages import Heartbeat, ResyncRequest, WorkerHello, WorkerLeaving
from saga.contract.subjects import Subjects
from saga.kernel.effects import Effect, Log, Publish
from saga.kv.residency import ResyncNeeded
from saga.placement.board import Board
from saga.placement.dispatch import Dispatcher
from saga.placement.drains import Drains

WORKER_SILENT_S = 3.0  # without a heartbeat: nothing new starts there
HOME_GRACE_S = 1.5  # after a start: how long to wait for a home that has not said hello yet
SUSPECT_S = 1.0  # after a gateway could not reach an engine
RESYNC_AGAIN_S = 1.0

Effects = list[Effect]


class Presence:
    """Which workers may be given steps, and how fresh what is known of them is."""

    def __init__(
        self, board: Board, dispatch: Dispatcher, subjects: Subjects, holder_id: str, now_s: float, silent_s: float
    ) -> None:
        self._board = board
        self._dispatch = dispatch
        self._subjects = subjects
        self._holder_id = holder_id
        self._born_s = now_s
        self._silent_s = silent_s
        self.drains = Drains(board)
        self._resyncs_s: dict[WorkerId, float] = {}

    def heartbeat(self, beat: Heartbeat, now_s: float) -> Effects:
        """A worker lives; its engine may not."""
        known = self._board.workers.get(beat.worker.worker_id)
        was_usable = known is not None and known.usable(now_s)
        effects = self.hello(beat.worker, now_s, draining=beat.draining)
        worker = self._board.workers[beat.worker.worker_id]
        if beat.worker.epoch < worker.hello.epoch:
            return []
        worker.healthy = beat.healthy
        resync = self._board.index.expect(beat.worker.worker_id, beat.worker.epoch, beat.residency_seq)
        effects += self.resync(resync, now_s)
        if worker.usable(now_s) and not was_usable:
            effects += self._dispatch.serve(beat.worker.worker_id, now_s)
        elif not worker.usable(now_s):
            effects += self._dispatch.scatter(beat.worker.worker_id, now_s)
        return effects

    def hello(self, hello: WorkerHello, now_s: float, *, draining: bool | None = None) -> Effects:
        """A worker joins, or says again who it is. `draining`: that it is to be empty; None: it does not say."""
        known = self._board.workers.get(hello.worker_id)
        if known is not None and hello.epoch < known.hello.epoch:
            if not known.left and now_s - known.seen_s <= self._silent_s:
                return []
            self._board.index.drop_worker(hello.worker_id)  # the newer one is gone, or a clock was put back
        worker, fresh = self._board.hello(hello, now_s)
        worker.left = False
        effects = self.drains.told(worker, draining=draining) if draining is not None else []
        if not fresh:
            return effects
        worker.healthy = True
        return effects + self._dispatch.serve(hello.worker_id, now_s)

    def leaving(self, leaving: WorkerLeaving, now_s: float) -> Effects:
        """Nothing new starts there."""
        worker = self._board.workers.get(leaving.worker_id)
        if worker is None or leaving.epoch < worker.hello.epoch:
            return []
        worker.healthy, worker.left = False, True
        if leaving.engine_died:
            self._board.index.drop_worker(leaving.worker_id)
        return self._dispatch.scatter(leaving.worker_id, now_s)

    def suspect(self, worker_id: WorkerId, now_s: float) -> None:
        """A gateway could not reach its engine: believe the worker again after a while."""
        worker = self._board.workers.get(worker_id)
        if worker is not None:
            worker.suspect_until_s = now_s + SUSPECT_S

    def resync(self, wanted: ResyncNeeded | None, now_s: float) -> Effects:
        """Ask a worker for a snapshot."""
        if wanted is None:
            return []
        self._resyncs_s[wanted.worker_id] = now_s
        request = ResyncRequest(worker_id=wanted.worker_id, inbox=self._subjects.resync_inbox(self._holder_id))
        return [Publish(self._subjects.resync(wanted.worker_id), request)]

    def tick(self, now_s: float) -> Effects:
        """Notice silence, lost homes and snapshots that did not come; fill slots that nobody announced."""
        effects: Effects = []
        for worker_id, worker in self._board.workers.items():
            if worker.healthy and now_s - worker.seen_s > self._silent_s:
                worker.healthy = False
                effects.append(Log("placement.worker_silent", {"worker": worker_id}))
            if not worker.usable(now_s):
                effects += self._dispatch.scatter(worker_id, now_s)
            else:
                effects += self._dispatch.serve(worker_id, now_s)
        if now_s - self._born_s > HOME_GRACE_S:
            for worker_id in [w for w in self._board.at_home if w not in self._board.workers]:
                effects += self._dispatch.scatter(worker_id, now_s)
        for worker_id in self._board.index.stale_workers():
            if now_s - self._resyncs_s.get(worker_id, 0.0) > RESYNC_AGAIN_S:
                epoch, seq = self._board.index.position(worker_id)
                effects += self.resync(ResyncNeeded(worker_id, epoch, seq), now_s)
        return effects
