"""Who this worker is, how it fares, and when the mesh hears of it: hello, heartbeats, leaving. Pure.

It knows nothing of leases or pages; `state` gives it the numbers that a heartbeat carries.
"""

from typing import Final

from saga.contract.ids import PoolId, WorkerId
from saga.contract.messages import Heartbeat, WorkerHello, WorkerLeaving
from saga.worker.events import EngineFacts, LoadSeen

HEARTBEAT_S: Final = 1.0
NEVER_S: Final = float("inf")


class Presence:
    """One worker's standing: without an engine, with one that answers, with one that does not, or leaving."""

    __slots__ = (
        "_due_s", "_engine_url", "_healthy", "_heartbeat_s", "_leaving", "_load", "_worker_id", "draining", "hello",
    )  # fmt: skip

    def __init__(self, worker_id: WorkerId, engine_url: str, heartbeat_s: float = HEARTBEAT_S) -> None:
        self._heartbeat_s = heartbeat_s
        self._worker_id = worker_id
        self._engine_url = engine_url
        self._healthy = False
        self._leaving = False
        self.draining = False
        self._load = LoadSeen(0, 0, 0)
        self._due_s = NEVER_S
        self.hello: WorkerHello | None = None  # None: no engine

    def attached(self, facts: EngineFacts, epoch: int, *, tags: bool) -> WorkerHello:
        """There is an engine. `tags`: sessions are tagged there, if it can."""
        self._healthy = True
        self._load = LoadSeen(0, 0, 0)
        self.hello = WorkerHello(
            worker_id=self._worker_id,
            engine_url=self._engine_url,
            pool=PoolId(facts.model),
            epoch=epoch,
            page_tokens=facts.page_tokens,
            kv_tokens=facts.kv_tokens,
            context_tokens=facts.context_tokens,
            max_running=facts.max_running,
            session_tags=facts.session_tags and tags,
            speed=facts.speed,
            shrink=facts.shrink,
            cost=facts.cost,
            host_kv_tokens=facts.host_kv_tokens,
            load_s_per_token=facts.load_s_per_token,
            shared_tier=facts.shared_tier,
            shared_load_s_per_token=facts.shared_load_s_per_token,
        )
        return self.hello

    def gone(self) -> WorkerLeaving | None:
        """The engine died; None when there was none."""
        if self.hello is None:
            return None
        leaving = WorkerLeaving(worker_id=self._worker_id, epoch=self.hello.epoch, engine_died=True)
        self.hello = None
        self._due_s = NEVER_S
        return leaving

    def leave(self) -> WorkerLeaving | None:
        """The agent stops: no heartbeat any more."""
        self._leaving = True
        self._due_s = NEVER_S
        if self.hello is None:
            return None
        return WorkerLeaving(worker_id=self._worker_id, epoch=self.hello.epoch, engine_died=False)

    def loaded(self, load: LoadSeen) -> None:
        """What the engine said last of its load."""
        self._load = load

    def turned(self, *, healthy: bool) -> bool:
        """Whether this changes what the mesh should know."""
        changed = self.hello is not None and healthy != self._healthy
        self._healthy = healthy
        return changed

    def drained(self, *, on: bool) -> bool:
        """Whether this changes what the mesh should know."""
        changed = self.hello is not None and on != self.draining
        self.draining = on
        return changed

    def heartbeat(self, now_s: float, *, residency_seq: int, tags: int, leases: int) -> Heartbeat | None:
        """The heartbeat to send now, and the next one `heartbeat_s` later; None without an engine or when leaving."""
        if self.hello is None or self._leaving:
            return None
        self._due_s = now_s + self._heartbeat_s
        return Heartbeat(
            worker=self.hello,
            healthy=self._healthy,
            running=self._load.running,
            waiting=self._load.waiting,
            used_tokens=self._load.used_tokens,
            residency_seq=residency_seq,
            open_session_tags=tags,
            leases=leases,
            draining=self.draining,
        )

    def next_s(self) -> float:
        """When the next heartbeat is due."""
        return self._due_s
