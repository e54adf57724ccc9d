"""A console's core told a story, one message after another, in virtual time."""

from saga.console.events import FrameDue, Watched
from saga.console.state import ConsoleState
from saga.console.wire import Frame
from saga.contract.ids import GatewayId, LeaseId, PoolId, RootId, SessionId, SessionTag, StepId, TenantId, WorkerId
from saga.contract.messages import (
    CostModel,
    Forecast,
    Grant,
    Heartbeat,
    Message,
    SessionsReleased,
    StepAdmitted,
    StepFinished,
    StepReady,
    Tag,
    WhyTold,
    WorkerHello,
)
from saga.contract.why_messages import Moment, StepTold, Weighed
from saga.kernel.effects import Received, Tick

G, POOL, T = GatewayId("g"), PoolId("m"), TenantId("acme")
W1, W2 = WorkerId("w1"), WorkerId("w2")
COST = CostModel(prompt_s_per_token=0.001, output_s_per_token=0.01)


class Story:
    """One console; `say` and `after` tell it things, `frame` asks what has changed."""

    def __init__(self, **making):
        self.state = ConsoleState(**making)
        self.now_s = 0.0
        self.state.handle(Watched(by_anybody=True), 0.0)

    def say(self, *messages: Message):
        for message in messages:
            self.state.handle(Received(message), self.now_s)

    def after(self, seconds: float, *messages: Message):
        """Time goes by, with its ticks."""
        until_s = self.now_s + seconds
        while self.now_s + 1.0 <= until_s:
            self.now_s += 1.0
            self.state.handle(Tick(), self.now_s)
        self.now_s = until_s
        self.state.check()
        self.say(*messages)

    def frame(self) -> Frame:
        """What has changed since the last one."""
        made = self.state.handle(FrameDue(), self.now_s)
        self.state.check()
        return made[0].frame if made else Frame(now_s=self.now_s)

    def workflow(self, root="acme/fix"):
        """Its row, as told to somebody who begins to look."""
        return {row.root: row for row in self.state.whole(self.now_s).workflows}.get(root)

    def steps(self, root="acme/fix"):
        """Its steps, the same."""
        whole = self.state.whole(self.now_s)
        numbers = {row.root: row.number for row in whole.workflows}
        return [row for row in whole.steps if row.workflow == numbers.get(root)]

    def decisions(self):
        """What was told, as (kind, reason)."""
        return [(row.kind, row.reason) for row in self.state.whole(self.now_s).decisions]

    def run_step(self, step="s1", *, for_s=2.0, **facts):
        """A step from asking to answer."""
        self.say(ready(step, **{k: v for k, v in facts.items() if k in ("root", "session", "prompt", "parent")}))
        self.say(grant(step, **{k: v for k, v in facts.items() if k in ("root", "session", "worker")}))
        self.after(for_s, finished(step, **facts))


def session_of(root, session=""):
    return SessionId(session or f"{root}/main")


def ready(step="s1", root="acme/fix", *, prompt=1000, session="", attempt=0, parent="", **more):
    return StepReady(
        step_id=StepId(step),
        attempt=attempt,
        gateway_id=G,
        tenant=TenantId(root.split("/")[0]),
        root=RootId(root),
        session=session_of(root, session),
        parent=SessionId(parent),
        pool=POOL,
        agent_class="coder",
        prompt_tokens=prompt,
        max_output_tokens=100,
        page_tokens=64,
        **more,
    )


def admitted(step="s1", root="acme/fix", *, home="", waited="none", **facts):
    asked = ready(step, root, **facts)
    return StepAdmitted(step=asked, tag=Tag(0.0, 0.0), home=WorkerId(home), waited=waited, fence=1)


def grant(step="s1", root="acme/fix", *, worker="w1", session="", attempt=0, fence=1, **more):
    return Grant(
        step_id=StepId(step),
        attempt=attempt,
        lease_id=LeaseId("l"),
        root=RootId(root),
        session=session_of(root, session),
        worker_id=WorkerId(worker),
        engine_url="http://w",
        session_tag=SessionTag("tag"),
        cached_tokens=more.pop("cached", 0),
        reason=more.pop("reason", "home"),
        ttl_s=2.0,
        lease_ttl_s=5.0,
        admission_fence=1,
        fence=fence,
        **more,
    )


def finished(
    step="s1", root="acme/fix", *, worker="w1", session="", prompt=1000, cached=0, output=10, parent="", **more
):
    return StepFinished(
        step_id=StepId(step),
        attempt=0,
        lease_id=LeaseId("l"),
        worker_id=WorkerId(worker),
        gateway_id=G,
        tenant=TenantId(root.split("/")[0]),
        root=RootId(root),
        session=session_of(root, session),
        parent=SessionId(parent),
        pool=POOL,
        agent_class="coder",
        prompt_tokens=prompt,
        output_tokens=output,
        cached_tokens=cached,
        finish_reason="tool_calls",
        tools=more.pop("tools", ("bash",)),
        engine_s=more.pop("engine_s", 2.0),
        first_token_s=0.5,
        **more,
    )


def forecast(step="s1", root="acme/fix", *, p50=3.0, p90=9.0, remaining_s=40.0, returns=0.9):
    return Forecast(
        root=RootId(root),
        session=session_of(root),
        step_id=StepId(step),
        worker_id=W1,
        returns=returns,
        gap_p50_s=p50,
        gap_p90_s=p90,
        gap_p95_s=p90,
        gap_p99_s=p90,
        new_tokens=10,
        remaining_steps=5,
        remaining_engine_s=remaining_s,
        samples=50,
    )


def released(reason, root="acme/fix", *, worker="w1", session=""):
    return SessionsReleased(worker_id=WorkerId(worker), sessions=(session_of(root, session),), reason=reason, fence=1)


def remembered(step="0" * 32):
    """What placement would answer to `saga why`."""
    told = StepTold(
        step_id=StepId(step),
        root=RootId("acme/fix"),
        session=session_of("acme/fix"),
        tenant=T,
        pool=POOL,
        prompt_tokens=1000,
        heard_s=3.0,
        over=False,
        moments=(Moment(what="granted", at_s=0.25, worker=W1, facts={"reason": "cheapest_start", "cost_s": 1.5}),),
        weighed=(
            Weighed(worker=W1, chosen=True, terms={"prefill_s": 0.5, "leases": 2}),
            Weighed(worker=W2, barred="draining"),
        ),
    )
    return WhyTold(service="placement", fence=1, leading_s=9.0, remembered=1, oldest_s=3.0, steps=(told,))


def hello(worker="w1", kv_tokens=10_000):
    return WorkerHello(
        worker_id=WorkerId(worker),
        engine_url="http://w",
        pool=POOL,
        epoch=1,
        page_tokens=64,
        kv_tokens=kv_tokens,
        context_tokens=8_000,
        max_running=8,
        session_tags=True,
        cost=COST,
    )


def heartbeat(worker="w1", *, healthy=True, running=2, used=500, draining=False):
    return Heartbeat(
        worker=hello(worker),
        healthy=healthy,
        running=running,
        waiting=0,
        used_tokens=used,
        residency_seq=1,
        draining=draining,
    )
