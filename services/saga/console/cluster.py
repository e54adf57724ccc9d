"""Workers as their heartbeats tell them."""

from typing import Final

from saga.console.wire import WorkerRow
from saga.contract.ids import WorkerId
from saga.contract.messages import Heartbeat, WorkerHello, WorkerStands

SILENT_S: Final = 3.0  # heartbeats come once a second
GONE_S: Final = 60.0  # then it is no longer shown
MAX_WORKERS: Final = 1_024


class Worker:
    """One worker."""

    __slots__ = ("beat", "healthy", "hello", "seen_s", "standing", "up")

    def __init__(self, hello: WorkerHello, now_s: float) -> None:
        self.hello = hello
        self.beat: Heartbeat | None = None
        self.healthy = True
        self.seen_s = now_s
        self.up = True
        self.standing = "serving"  # as placement thinks

    def row(self) -> WorkerRow:
        """As the page is told."""
        hello, beat = self.hello, self.beat
        return WorkerRow(
            hello.worker_id,
            hello.pool,
            hello.engine_url,
            self.up,
            "draining" if beat is not None and beat.draining and self.standing == "serving" else self.standing,
            hello.kv_tokens,
            beat.used_tokens if beat is not None else 0,
            beat.running if beat is not None else 0,
            beat.waiting if beat is not None else 0,
            hello.max_running,
            beat.open_session_tags if beat is not None else 0,
            hello.epoch,
            hello.speed,
        )


class Cluster:
    """All workers of the cell."""

    def __init__(self) -> None:
        self.workers: dict[WorkerId, Worker] = {}
        self.changed: dict[WorkerId, Worker] = {}
        self.gone: list[WorkerId] = []

    def heard(self, message: Heartbeat | WorkerHello, now_s: float) -> bool:
        """A sign of life; whether it is a new worker, or one that was away."""
        beat = message if isinstance(message, Heartbeat) else None
        hello = message.worker if isinstance(message, Heartbeat) else message
        worker = self.workers.get(hello.worker_id)
        if worker is None:
            if len(self.workers) >= MAX_WORKERS:
                return False
            worker = self.workers[hello.worker_id] = Worker(hello, now_s)
            worker.up = False
        was_up = worker.up
        worker.hello, worker.seen_s = hello, now_s
        if beat is not None:
            worker.beat, worker.healthy = beat, beat.healthy
        worker.up = worker.healthy
        self.changed[hello.worker_id] = worker
        return worker.up and not was_up

    def stands(self, message: WorkerStands) -> bool:
        """Placement gives it steps from now on, or does not; whether that is new."""
        worker = self.workers.get(message.worker_id)
        if worker is None or worker.standing == message.standing:
            return False
        worker.standing = message.standing
        self.changed[message.worker_id] = worker
        return True

    def left(self, worker_id: WorkerId) -> None:
        """It said goodbye."""
        if (worker := self.workers.get(worker_id)) is not None:
            worker.up = worker.healthy = False
            self.changed[worker_id] = worker

    def sweep(self, now_s: float) -> list[WorkerId]:
        """Those that have just fallen silent."""
        silent = []
        for worker_id, worker in list(self.workers.items()):
            if worker.up and now_s - worker.seen_s > SILENT_S:
                worker.up = worker.healthy = False
                self.changed[worker_id] = worker
                silent.append(worker_id)
            elif now_s - worker.seen_s > GONE_S:
                del self.workers[worker_id]
                self.changed.pop(worker_id, None)
                self.gone.append(worker_id)
        return silent

    def take(self) -> tuple[tuple[WorkerRow, ...], tuple[str, ...]]:
        """Rows of what has changed, and who is gone, since the last call."""
        rows, gone = tuple(worker.row() for worker in self.changed.values()), tuple(self.gone)
        self.changed.clear()
        self.gone.clear()
        return rows, gone
