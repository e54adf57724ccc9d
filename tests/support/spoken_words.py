"""What a spoken cell is made of, and what its workers and gateway say once a second. For `spoken_cell`."""

from collections.abc import Iterable
from dataclasses import dataclass, field

from saga.contract.ids import GatewayId, LeaseId, PoolId, RootId, SessionId, TenantId, WorkerId
from saga.contract.messages import (
    CostModel,
    GatewayBeat,
    Heartbeat,
    RunningLease,
    StepReady,
    WaitingStep,
    WorkerHello,
)

POOL, GATEWAY = PoolId("llama-3.1-8b"), GatewayId("gateway-1")
TENANTS = (("acme", 3.0), ("blue-fox", 2.0), ("corvid", 1.0), ("delta-labs", 1.0), ("evergreen", 1.0))
TASKS = ("fix-issue", "review-pr", "write-tests", "migrate-db", "triage", "refactor", "release-notes", "find-leak")
TOOLS = (("bash", 1.0), ("read", 0.2), ("edit", 0.3), ("grep", 0.3), ("test", 6.0), ("web", 2.0))
COST = CostModel(prompt_s_per_token=6e-5, output_s_per_token=4e-4, context_s_per_token=8e-9)


@dataclass(slots=True)
class Agent:
    """One session of one workflow."""

    root: RootId
    session: SessionId
    parent: SessionId
    tenant: TenantId
    agent_class: str
    left: int  # steps
    tokens: int
    deadline_s: float
    home: str = ""
    gap_s: float = -1.0
    kept: bool = False
    paused: bool = False


@dataclass(slots=True)
class Call:
    """One step on its way."""

    agent: Agent
    ready: StepReady
    ready_s: float
    cause: str = "none"
    lease: str = ""
    worker: str = ""
    start_s: float = 0.0
    engine_s: float = 0.0
    output: int = 0
    cached: int = 0


@dataclass(slots=True)
class Engine:
    """One worker's slots."""

    id: str
    running: dict[str, Call] = field(default_factory=dict)
    queue: list[Call] = field(default_factory=list)
    tokens: int = 0  # of sessions kept there


def heartbeat(engine: Engine, kv_tokens: int, slots: int) -> Heartbeat:
    """A worker's."""
    used = sum(call.ready.prompt_tokens for call in engine.running.values())
    return Heartbeat(
        worker=WorkerHello(
            worker_id=WorkerId(engine.id),
            engine_url=f"http://{engine.id}:30000",
            pool=POOL,
            epoch=1,
            page_tokens=64,
            kv_tokens=kv_tokens,
            context_tokens=131_072,
            max_running=slots,
            session_tags=True,
            cost=COST,
        ),
        healthy=True,
        running=len(engine.running),
        waiting=0,
        used_tokens=min(used, kv_tokens),
        residency_seq=1,
        open_session_tags=len(engine.running),
    )


def gateway_beat(engines: Iterable[Engine], waiting: Iterable[Call], now_s: float) -> GatewayBeat:
    """What waits and runs through the one gateway."""
    engines = list(engines)
    wait = [*waiting, *(call for engine in engines for call in engine.queue)]
    return GatewayBeat(
        gateway_id=GATEWAY,
        waiting=tuple(
            WaitingStep(step_id=call.ready.step_id, attempt=0, waited_s=now_s - call.ready_s) for call in wait
        ),
        running=tuple(
            RunningLease(
                step_id=call.ready.step_id,
                attempt=0,
                lease_id=LeaseId(call.lease),
                worker_id=WorkerId(call.worker),
                output_tokens=int(call.output * min(1.0, (now_s - call.start_s) / max(call.engine_s, 1e-6))),
            )
            for engine in engines
            for call in engine.running.values()
        ),
    )
