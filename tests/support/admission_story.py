"""An admission core, and short words for what happens to it. Shared by the tests of `unit/admission`."""

from saga.admission.policy import OldestThatFit
from saga.admission.state import AdmissionState
from saga.contract.ids import GatewayId, LeaseId, PoolId, RootId, SessionId, StepId, TenantId, WorkerId
from saga.contract.messages import (
    CostModel,
    Grant,
    LeaseTaken,
    StepAdmitted,
    StepCancelled,
    StepFinished,
    StepProgress,
    StepReady,
    WaitingStep,
    WorkerHello,
)
from saga.contract.subjects import Subjects
from saga.kernel.effects import Answer, Forget, Persist, Promoted, Publish, Received

POOL = PoolId("model")


def step_id(number: int) -> StepId:
    return StepId(f"{number:032x}")


def ready(number: int, root: str = "", **fields) -> StepReady:
    given = {
        "attempt": 0,
        "gateway_id": GatewayId("g0"),
        "tenant": TenantId("t"),
        "root": RootId(root or f"root-{number}"),
        "session": SessionId(root or f"root-{number}"),
        "pool": POOL,
        "prompt_tokens": 3_000,
        "max_output_tokens": 100,
        "page_tokens": 16,
    }
    return StepReady(step_id=step_id(number), **(given | fields))


def hello(name: str = "w0", **fields) -> WorkerHello:
    given = {
        "engine_url": "http://w",
        "pool": POOL,
        "epoch": 1,
        "page_tokens": 16,
        "kv_tokens": 10_000,
        "context_tokens": 8_000,
        "max_running": 8,
        "session_tags": True,
        "cost": CostModel(prompt_s_per_token=1e-3, output_s_per_token=1e-2),
    }
    return WorkerHello(worker_id=WorkerId(name), **(given | fields))


def grant_of(message: StepAdmitted, **fields) -> Grant:
    given = {
        "attempt": 0,
        "lease_id": LeaseId("l"),
        "worker_id": WorkerId("w0"),
        "engine_url": "",
        "session_tag": "",
        "cached_tokens": 0,
        "ttl_s": 1.0,
        "lease_ttl_s": 1.0,
        "admission_fence": 3,
        "fence": 1,
    }
    step = message.step
    return Grant(step_id=step.step_id, root=step.root, session=step.session, **(given | fields))


class Story:
    """An admission core, and short words for what happens to it."""

    def __init__(self, policy=None, order=None, *, leading: bool = True, workers: int = 1, **settings) -> None:
        self.now_s = 100.0
        self.core = AdmissionState(Subjects(), policy or OldestThatFit(0.95, 1.0), order, **settings)
        self.rows: dict[str, bytes] = {}
        if leading:
            self.tell(Promoted(3))
        for number in range(workers):
            self.hear(hello(f"w{number}"))

    def tell(self, event):
        effects = self.core.handle(event, self.now_s)
        self.core.check()
        for effect in effects:
            if isinstance(effect, Persist):
                self.rows[effect.key] = effect.value
            elif isinstance(effect, Forget):
                self.rows.pop(effect.key, None)
        return [effect.message for effect in effects if isinstance(effect, Publish | Answer)]

    def hear(self, message):
        return self.tell(Received(message))

    def admitted(self, message) -> list[StepId]:
        return [m.step.step_id for m in self.hear(message) if isinstance(m, StepAdmitted)]

    def take(self, number: int, root: str = "", worker: str = "w0", session: str = "") -> None:
        self.hear(
            LeaseTaken(
                step_id=step_id(number),
                attempt=0,
                lease_id=LeaseId(f"lease-{number}"),
                worker_id=WorkerId(worker),
                gateway_id=GatewayId("g0"),
                tenant=TenantId("t"),
                root=RootId(root or f"root-{number}"),
                session=SessionId(session or root or f"root-{number}"),
                session_tag="",
                lease_ttl_s=5.0,
            )
        )

    def progress(self, number: int, output_tokens: int) -> None:
        self.hear(
            StepProgress(
                step_id=step_id(number),
                attempt=0,
                lease_id=LeaseId(f"lease-{number}"),
                worker_id=WorkerId("w0"),
                output_tokens=output_tokens,
            )
        )

    def cancel(self, number: int, root: str = ""):
        return self.hear(
            StepCancelled(
                step_id=step_id(number),
                attempt=0,
                gateway_id=GatewayId("g0"),
                tenant=TenantId("t"),
                root=RootId(root or f"root-{number}"),
                session=SessionId(root or f"root-{number}"),
            )
        )

    def finish(self, number: int, root: str = "", **fields):
        given = {
            "attempt": 0,
            "lease_id": LeaseId(f"lease-{number}"),
            "worker_id": WorkerId("w0"),
            "gateway_id": GatewayId("g0"),
            "tenant": TenantId("t"),
            "root": RootId(root or f"root-{number}"),
            "session": SessionId(root or f"root-{number}"),
            "pool": POOL,
            "prompt_tokens": 3_000,
            "output_tokens": 100,
            "cached_tokens": 0,
            "finish_reason": "stop",
        }
        return self.hear(StepFinished(step_id=step_id(number), **(given | fields)))


def beat_of(number: int, attempt: int = 0, waited_s: float = 1.0) -> WaitingStep:
    return WaitingStep(step_id=step_id(number), attempt=attempt, waited_s=waited_s)
