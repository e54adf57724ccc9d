"""What the product keeps: session tags, open as long as graph and worker would keep them. Drives their cores alone.

Graph state and forecasts, the worker's books of tags and its retention policy are those of the live services. Nobody
says that a step is a workflow's last, so that nothing of an individual future is known. Called by `bench`.
"""

from saga.contract.ids import GatewayId, LeaseId, PoolId, RootId, SessionId, SessionTag, StepId, TenantId, WorkerId
from saga.contract.messages import Forecast, StepFinished, StepReady
from saga.contract.subjects import Subjects
from saga.engine.radix import Node, RadixTree
from saga.graph.forecast import ForecastPolicy
from saga.graph.state import GraphState
from saga.kernel.effects import Effect, Publish, Received, Tick, WakeAt
from saga.sim.cache.fitting import Stream
from saga.worker.leases import Lease
from saga.worker.retention import Idle, RetentionPolicy
from saga.worker.tags import OpenTag, TagTable

GATEWAY, WORKER, POOL, TENANT = GatewayId("gateway"), WorkerId("worker"), PoolId("pool"), TenantId("coding")
END_OF_TURN = "end_turn"
_LEASE_S = 30.0  # means nothing here: no lease is lost


class SessionTags:
    """The mesh around one engine, as far as it decides what is kept."""

    def __init__(self, stream: Stream, tree: RadixTree, retention: RetentionPolicy, forecasts: ForecastPolicy) -> None:
        self._stream = stream
        self._tree = tree
        self._retention = retention
        self._graph = GraphState(Subjects("cache"), forecasts)
        self._tick_s = float("inf")
        self._tags = TagTable()
        self._leases: dict[int, Lease] = {}

    def started(self, call: int, now_s: float) -> None:
        """As Tagging."""
        self._close(self._tags.expire(now_s))
        if self._tick_s <= now_s:
            self._tick_s = float("inf")
            self._learn(self._graph.handle(Tick(), now_s))
        session, step = self._names(call)
        lease = Lease(LeaseId(step), step, 0, _LEASE_S, session, SessionTag(session))
        self._leases[call] = lease
        self._close(self._tags.take(lease))
        the = self._stream.trace.calls[call]
        ready = StepReady(
            step_id=step,
            attempt=0,
            gateway_id=GATEWAY,
            tenant=TENANT,
            root=self._root(call),
            session=session,
            pool=POOL,
            agent_class=self._class(call),
            prompt_tokens=the.prompt_pages * self._stream.trace.page_tokens,
            max_output_tokens=1,
            page_tokens=self._stream.trace.page_tokens,
            at=now_s,
        )
        self._learn(self._graph.handle(Received(ready), now_s))

    def ended(self, call: int, node: Node, now_s: float) -> None:
        """As Tagging."""
        lease = self._leases.pop(call)
        the = self._stream.trace.calls[call]
        page_tokens = self._stream.trace.page_tokens
        self._tree.tag(lease.tag, node)
        idle, close = self._tags.free(lease, now_s)
        if idle is not None:
            self._keep(idle, the.full_pages * page_tokens)
        self._close(close)
        finished = StepFinished(
            step_id=lease.step_id,
            attempt=0,
            lease_id=lease.lease_id,
            worker_id=WORKER,
            gateway_id=GATEWAY,
            tenant=TENANT,
            root=self._root(call),
            session=lease.session,
            pool=POOL,
            agent_class=self._class(call),
            prompt_tokens=the.prompt_pages * page_tokens,
            output_tokens=(the.full_pages - the.prompt_pages) * page_tokens,
            cached_tokens=0,
            finish_reason="stop",
            tools=() if the.turn == END_OF_TURN else (the.turn or "unknown",),
            engine_s=the.end_s - the.start_s,
            at=now_s,
        )
        for forecast in self._learn(self._graph.handle(Received(finished), now_s)):
            for entry in self._tags.foretold(forecast):
                self._keep(entry, the.full_pages * page_tokens)
        self._close(self._tags.expire(now_s))

    def _keep(self, entry: OpenTag, context_tokens: int) -> None:
        forecast = entry.forecast
        if forecast is not None and forecast.step_id != entry.ended_step:
            forecast = None
        idle = Idle(
            ended_s=entry.ended_s,
            context_tokens=context_tokens,
            used_share=self._tree.pages / self._stream.capacity_pages,
        )
        kept = self._retention.keep_s(forecast, idle)
        self._tags.keep_until(entry.tag, entry.ended_s + kept.choice)
        value = self._retention.value(forecast, idle)
        if value is not None:
            self._tree.set_value(entry.tag, value)

    def _close(self, tags: list[SessionTag]) -> None:
        for tag in tags:
            self._tree.untag(tag)
            self._tags.closed(tag)

    def _learn(self, effects: list[Effect]) -> list[Forecast]:
        """What the graph says; it is asked again when it wants to be."""
        said = []
        for effect in effects:
            if isinstance(effect, WakeAt):
                self._tick_s = min(self._tick_s, effect.at_s)
            elif isinstance(effect, Publish) and isinstance(effect.message, Forecast):
                said.append(effect.message)
        return said

    def _names(self, call: int) -> tuple[SessionId, StepId]:
        return SessionId(f"session-{self._stream.trace.calls[call].agent}"), StepId(f"{call:032x}")

    def _root(self, call: int) -> RootId:
        return RootId(f"root-{self._stream.trace.agents[self._stream.trace.calls[call].agent].draw}")

    def _class(self, call: int) -> str:
        return "-".join(map(str, self._stream.trace.agents[self._stream.trace.calls[call].agent].prefix))
