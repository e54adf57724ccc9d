"""A placement core, and short words for what happens to it. Shared by the tests of `unit/placement`."""

from saga.contract.ids import GatewayId, PoolId, RootId, SessionId, StepId, TenantId, WorkerId
from saga.contract.messages import (
    CostModel,
    Grant,
    LeaseReturned,
    LeaseTaken,
    StepAdmitted,
    StepFinished,
    StepReady,
    Tag,
    WaitingStep,
    WorkerHello,
)
from saga.contract.subjects import Subjects
from saga.kernel.effects import Promoted, Publish, Received
from saga.placement.policy import CheapestStart
from saga.placement.state import PlacementState

POOL = PoolId("model")


def step_id(number: int) -> StepId:
    return StepId(f"{number:032x}")


def admitted(number: int, *, session: str = "", tag: float = 0.0, prompt: int = 1_000, **fields) -> StepAdmitted:
    ready = StepReady(
        step_id=step_id(number),
        attempt=fields.pop("attempt", 0),
        gateway_id=GatewayId("g0"),
        tenant=TenantId("t"),
        root=RootId(f"root-{session or number}"),
        session=SessionId(session or f"session-{number}"),
        pool=POOL,
        prompt_tokens=prompt,
        max_output_tokens=100,
        page_tokens=16,
        base_pages=fields.pop("base_pages", 0),
        base_tip=fields.pop("base_tip", b""),
        new_hashes=fields.pop("new_hashes", b""),
        parent=fields.pop("parent", SessionId("")),
        pages_known=fields.pop("pages_known", True),
    )
    return StepAdmitted(step=ready, tag=Tag(tag, tag, ready.step_id), fence=fields.pop("fence", 1), **fields)


def hello(name: str, **fields) -> WorkerHello:
    given = {
        "engine_url": f"http://{name}",
        "pool": POOL,
        "epoch": 1,
        "page_tokens": 16,
        "kv_tokens": 10_000,
        "context_tokens": 8_000,
        "max_running": 2,
        "session_tags": True,
        "cost": CostModel(prompt_s_per_token=1e-4, output_s_per_token=1e-3),
    }
    return WorkerHello(worker_id=WorkerId(name), **(given | fields))


class Story:
    """A placement core, and short words for what happens to it."""

    def __init__(
        self,
        policy=None,
        stealing=None,
        *,
        workers: int = 2,
        leading: bool = True,
        lookahead: int = 0,
        supersede: bool = True,
        preemption=None,
        **facts,
    ) -> None:
        """`facts`: of each worker."""
        self.now_s = 10.0
        policy = policy or CheapestStart()
        self.core = PlacementState(
            "p0",
            Subjects(),
            policy,
            stealing,
            preemption=preemption,
            lookahead=lookahead,
            supersede=supersede,
            now_s=10.0,
        )
        if leading:
            self.tell(Promoted(7))
        for number in range(workers):
            self.hear(hello(f"w{number}", **facts))

    def tell(self, event):
        effects = self.core.handle(event, self.now_s)
        self.core.check()
        return [effect.message for effect in effects if isinstance(effect, Publish)]

    def hear(self, message):
        return self.tell(Received(message))

    def grant(self, *args, **fields) -> Grant:
        (grant,) = self.hear(admitted(*args, **fields))
        assert isinstance(grant, Grant)
        return grant

    def take(self, grant: Grant) -> None:
        self.hear_taken(grant)

    def hear_taken(self, grant: Grant):
        return self.hear(
            LeaseTaken(
                step_id=grant.step_id,
                attempt=grant.attempt,
                lease_id=grant.lease_id,
                worker_id=grant.worker_id,
                gateway_id=GatewayId("g0"),
                tenant=TenantId("t"),
                root=grant.root,
                session=grant.session,
                session_tag=grant.session_tag,
                lease_ttl_s=5.0,
                moved_from=grant.moved_from,
            )
        )

    def finish(self, grant: Grant, *, final: bool = False):
        return self.hear(
            StepFinished(
                step_id=grant.step_id,
                attempt=grant.attempt,
                lease_id=grant.lease_id,
                worker_id=grant.worker_id,
                gateway_id=GatewayId("g0"),
                tenant=TenantId("t"),
                root=grant.root,
                session=grant.session,
                pool=POOL,
                prompt_tokens=1_000,
                output_tokens=100,
                cached_tokens=0,
                finish_reason="stop",
                final=final,
            )
        )

    def end(self, lease):
        """The step under this lease is over, its session is not."""
        ready = self.core.board.steps[lease.step_id].admitted.step
        return self.hear(
            StepFinished(
                step_id=lease.step_id,
                attempt=0,
                lease_id=lease.lease_id,
                worker_id=lease.worker_id,
                gateway_id=GatewayId("g0"),
                tenant=TenantId("t"),
                root=ready.root,
                session=ready.session,
                pool=POOL,
                prompt_tokens=ready.prompt_tokens,
                output_tokens=100,
                cached_tokens=0,
                finish_reason="tool_calls",
                tools=("bash",),
            )
        )

    def give_back(self, grant: Grant, reason, next_attempt: int = 0):
        return self.hear(
            LeaseReturned(
                step_id=grant.step_id,
                attempt=grant.attempt,
                lease_id=grant.lease_id,
                worker_id=grant.worker_id,
                gateway_id=GatewayId("g0"),
                reason=reason,
                next_attempt=next_attempt,
            )
        )


def waiting(number: int, *, attempt: int = 0, waited_s: float = 1.0) -> WaitingStep:
    return WaitingStep(step_id=step_id(number), attempt=attempt, waited_s=waited_s)
