"""What placement would know of one worker, and an agent as a real process."""

import contextlib
import os
import sys
from pathlib import Path

from saga.cli.child import Child, ProcessSpec
from saga.contract.ids import GatewayId, LeaseId, PoolId, RootId, SessionId, SessionTag, StepId, TenantId, WorkerId
from saga.contract.messages import (
    Heartbeat,
    LeaseReleased,
    LeaseTaken,
    ResidencyDelta,
    ResyncReply,
    ResyncRequest,
    StepFinished,
    WorkerHello,
    WorkerLeaving,
)
from saga.contract.subjects import Subjects
from saga.kv.residency import ResidencyIndex
from saga.runtime.bus import Bus, Incoming

SUBJECTS = Subjects("main")
ME = "listener"


class Listener:
    """Follows one worker's presence and residency, mending what it misses as placement does."""

    def __init__(self, bus: Bus, worker: WorkerId) -> None:
        self.bus = bus
        self.worker = worker
        self.index = ResidencyIndex()
        self.hellos: list[WorkerHello] = []
        self.beats: list[Heartbeat] = []
        self.leavings: list[WorkerLeaving] = []
        self.released: list[LeaseReleased] = []
        self.resyncs = 0
        self.lose = 0  # deltas to lose from now on

    async def listen(self) -> None:
        """Subscribe to all of it."""
        await self.bus.subscribe(SUBJECTS.worker_presence(), self._presence)
        await self.bus.subscribe(SUBJECTS.every_residency(), self._residency)
        await self.bus.subscribe(SUBJECTS.resync_inbox(ME), self._snapshot)
        await self.bus.subscribe(SUBJECTS.lease(self.worker), self._lease)
        await self.bus.barrier()

    def claims(self) -> set[bytes]:
        """Every page that the index sees there, 8 bytes each."""
        held = self.index._workers[self.worker].held if self.worker in self.index._workers else ()
        return {word.to_bytes(8, sys.byteorder) for word in held}

    def claimed_pages(self, hashes: bytes) -> int:
        """How many pages of a prompt the index sees there."""
        return self.index.resident_pages(self.worker, hashes) if self.worker in self.index._workers else 0

    async def _presence(self, incoming: Incoming) -> None:
        message = incoming.message
        if isinstance(message, Heartbeat):
            self.beats.append(message)
            await self._wish(self.index.expect(message.worker.worker_id, message.worker.epoch, message.residency_seq))
        elif isinstance(message, WorkerHello):
            self.hellos.append(message)
        elif isinstance(message, WorkerLeaving):
            self.leavings.append(message)

    async def _residency(self, incoming: Incoming) -> None:
        assert isinstance(incoming.message, ResidencyDelta)
        if self.lose:
            self.lose -= 1
            return
        await self._wish(self.index.apply(incoming.message))

    async def _snapshot(self, incoming: Incoming) -> None:
        assert isinstance(incoming.message, ResyncReply)
        await self._wish(self.index.apply_snapshot(incoming.message))

    def _lease(self, incoming: Incoming) -> None:
        if isinstance(incoming.message, LeaseReleased):
            self.released.append(incoming.message)

    async def _wish(self, needed) -> None:
        if needed is not None:
            self.resyncs += 1
            request = ResyncRequest(worker_id=needed.worker_id, inbox=SUBJECTS.resync_inbox(ME))
            await self.bus.publish(SUBJECTS.resync(needed.worker_id), request)


def agent(worker: WorkerId, engine_url: str, nats_url: str, folder: Path, **settings: str) -> Child:
    """`python -m saga.worker`, not started yet."""
    env = {
        "SAGA_NATS_URL": nats_url,
        "SAGA_SUPERVISED": "1",  # it ends when we are killed
        "SAGA_WORKER_ID": worker,
        "SAGA_WORKER_ENGINE_URL": engine_url,
        "SAGA_WORKER_JOURNAL": str(folder / "journal"),
        **{f"SAGA_WORKER_{name.upper()}": value for name, value in settings.items()},
    }
    spec = ProcessSpec(name="worker", argv=(sys.executable, "-m", "saga.worker"), env=env)
    return Child(spec, folder / "worker.log", os.environ)


def said_at_exit(child: Child) -> str:
    """Everything that a process wrote."""
    with contextlib.suppress(FileNotFoundError):
        return child.log_file.read_text()
    return ""


def step_of(name: str) -> StepId:
    """A step id made of one hex digit."""
    return StepId(name * 32)


def taken(name: str, worker: WorkerId, tag: str, lease_ttl_s: float = 1.0) -> LeaseTaken:
    """A gateway takes a lease."""
    return LeaseTaken(
        step_id=step_of(name),
        attempt=0,
        lease_id=LeaseId(f"lease-{name}"),
        worker_id=worker,
        gateway_id=GatewayId("g"),
        tenant=TenantId("t"),
        root=RootId("r"),
        session=SessionId(f"session-{name}"),
        session_tag=SessionTag(tag),
        lease_ttl_s=lease_ttl_s,
    )


def finished(name: str, worker: WorkerId) -> StepFinished:
    """Its step ends."""
    return StepFinished(
        step_id=step_of(name),
        attempt=0,
        lease_id=LeaseId(f"lease-{name}"),
        worker_id=worker,
        gateway_id=GatewayId("g"),
        tenant=TenantId("t"),
        root=RootId("r"),
        session=SessionId(f"session-{name}"),
        pool=PoolId("m"),
        prompt_tokens=1,
        output_tokens=1,
        cached_tokens=0,
        finish_reason="stop",
    )
