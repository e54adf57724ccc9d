"""What the product keeps: session tags, open as long as graph and worker would keep them. Drives their cores alone.

Graph state and forecasts, placement's supersession, the worker's books of tags and its retention policy are those of
the live services. Nobody says that a step is a workflow's last, so that nothing of an individual future is known.
Called by `bench`.
"""

from saga.contract.ids import (
    GatewayId,
    LeaseId,
    PoolId,
    RootId,
    SessionId,
    SessionTag,
    StepId,
    TenantId,
    WorkerId,
    session_tag,
)
from saga.contract.messages import Forecast, StepFinished, StepReady
from saga.contract.subjects import Subjects
from saga.engine.radix import RadixTree
from saga.engine.radix_node import Node
from saga.graph.forecast import ForecastPolicy
from saga.graph.state import GraphState
from saga.kernel.effects import Effect, Publish, Received, Tick, WakeAt
from saga.placement.supersession import Tagged
from saga.sim.cache.fitting import Stream
from saga.sim.cache.runs import page_hashes
from saga.worker.events import SetRetention
from saga.worker.keeping import EngineRoom, Keeping
from saga.worker.leases import Lease
from saga.worker.retention import RetentionPolicy
from saga.worker.tags import TagTable

GATEWAY, WORKER, POOL, TENANT = GatewayId("gateway"), WorkerId("worker"), PoolId("pool"), TenantId("coding")
END_OF_TURN = "end_turn"
_LEASE_S = 30.0  # means nothing here: no lease is lost


class SessionTags:
    """The mesh around one engine, as far as it decides what is kept."""

    def __init__(self, stream: Stream, tree: RadixTree, retention: RetentionPolicy, forecasts: ForecastPolicy) -> None:
        self._stream = stream
        self._tree = tree
        self._graph = GraphState(Subjects("cache"), forecasts)
        self._tick_s = float("inf")
        self._tags = TagTable()
        self._keeping = Keeping(retention, self._tags)
        self._tagged: dict[int, Tagged] = {}  # by agent
        self._leases: dict[int, Lease] = {}
        self._live: dict[StepId, None] = {}

    def started(self, call: int, now_s: float) -> None:
        """As Tagging."""
        self._settle(now_s)
        if self._tick_s <= now_s:
            self._tick_s = float("inf")
            self._learn(self._graph.handle(Tick(), now_s))
        session, step = self._names(call)
        self._live[step] = None
        lease = Lease(LeaseId(step), step, 0, _LEASE_S, session, self._tag(call))
        self._leases[call] = lease
        close = self._tags.take(lease)
        self._keeping.began(lease, self._stream.trace.calls[call].prompt_pages * self._stream.trace.page_tokens)
        self._close(close)
        self._settle(now_s)
        the = self._stream.trace.calls[call]
        ready = StepReady(
            step_id=step,
            attempt=0,
            gateway_id=GATEWAY,
            tenant=TENANT,
            root=self._root(call),
            session=session,
            parent=self._parent(call),
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
        del self._live[lease.step_id]
        self._tree.tag(lease.tag, node)
        idle, close = self._tags.free(lease, now_s, finished=True)
        if idle is not None:
            idle.context_tokens = the.full_pages * page_tokens
            self._tell(self._keeping.ended(idle, self._room(), now_s))
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
            parent=self._parent(call),
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
                self._tell(self._keeping.ended(entry, self._room(), now_s))
        self._settle(now_s)

    def check(self) -> None:
        """Assert that the books agree."""
        self._tags.check()
        self._keeping.check()

    def _settle(self, now_s: float) -> None:
        """As the agent does after each event: what is due, and room."""
        self._tell(self._keeping.review(self._room(), now_s))
        self._close(self._tags.expire(now_s))

    def _room(self) -> EngineRoom:
        pages, page_tokens = self._stream.capacity_pages, self._stream.trace.page_tokens
        return EngineRoom(pages * page_tokens, self._tree.pages / pages)

    def _tell(self, values: list[SetRetention]) -> None:
        for told in values:
            self._tree.set_value(told.tag, told.value)

    def _close(self, tags: list[SessionTag]) -> None:
        self._keeping.closing(tags)
        for tag in tags:
            self._tree.untag(tag)
            self._tags.closed(tag)

    def _tag(self, call: int) -> SessionTag:
        """A fresh one when the agent's old tag pins too much that is dead."""
        session, step = self._names(call)
        the = self._stream.trace.calls[call]
        tagged = self._tagged.setdefault(the.agent, Tagged(session_tag(session)))
        chain = page_hashes(self._stream.trace.segments, the.prompt)
        if tagged.follow(step, self._class(call), chain, self._live).choice:
            tagged.tag = session_tag(session, step)
        return tagged.tag

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

    def _parent(self, call: int) -> SessionId:
        agent = self._stream.trace.agents[self._stream.trace.calls[call].agent]
        return SessionId("" if agent.is_main else f"main-{agent.draw}")

    def _class(self, call: int) -> str:
        return "-".join(map(str, self._stream.trace.agents[self._stream.trace.calls[call].agent].prefix))
