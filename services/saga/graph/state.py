"""The graph's core: live workflows, what is learnt from them, and a forecast after each step. Pure.

Nothing waits for it: without forecasts admission and workers go by defaults. It learns from every step it hears of,
publishes only for workflows of its own partitions and stores only models of its own partitions.
"""

from collections import OrderedDict
from typing import Final

from saga.contract.ids import RootId, StepId, TenantId
from saga.contract.messages import (
    GAP_SHARES,
    Forecast,
    GraphReset,
    Message,
    StepCancelled,
    StepFinished,
    StepReady,
    WorkflowDeclared,
    WorkflowEnded,
)
from saga.contract.subjects import Subjects
from saga.contract.workflow_messages import Shape
from saga.graph.aeg import Aeg, Session
from saga.graph.bounds import MAX_ENGINE_S, MAX_GROWTH_TOKENS, newest, sane, seconds, tokens
from saga.graph.declared import Declarations
from saga.graph.events import GraphEvent, Loaded, Owned, Replayed, Settle
from saga.graph.following import FORGET_S, Following
from saga.graph.forecast import ForecastPolicy
from saga.graph.keeping import NEVER_S, PERSIST_EVERY_S, Keeping, model_key
from saga.graph.learning import Learning, Levels
from saga.graph.partitions import partition_of
from saga.graph.shape import class_shape, workflow_shape
from saga.graph.shelf import GLOBAL, Shelf
from saga.graph.situation import NO_TOOL, Situation, tool_of
from saga.kernel.effects import Effect, Publish, Received, Tick, WakeAt

__all__ = [
    "FORGET_S",
    "GLOBAL",
    "PERSIST_EVERY_S",
    "GraphEvent",
    "GraphState",
    "Loaded",
    "Owned",
    "Replayed",
    "Settle",
    "model_key",
]

MAX_OVER: Final = 20_000  # workflows remembered to be over
MAX_NAMES: Final = 4_096  # of tools, classes and sessions' parents, remembered so that each is in memory once
Effects = list[Effect]
_NAMED: Final = tuple(map(GAP_SHARES.index, (0.5, 0.9, 0.95, 0.99)))


class GraphState:
    """Everything one graph process knows. `handle` is the one door."""

    def __init__(self, subjects: Subjects, policy: ForecastPolicy) -> None:
        self._subjects = subjects
        self._policy = policy
        self._now_s = -NEVER_S
        self._next_tick_s = NEVER_S
        self._following = Following()
        self.workflows = self._following.workflows  # longest unseen first
        self._shelf = Shelf()
        self.models = self._shelf.models
        self._keeping = Keeping(self._shelf)
        self._learning = Learning(self._shelf)
        self.declared = Declarations()
        self._over: OrderedDict[RootId, StepId] = OrderedDict()  # the step that ended a workflow may be told twice
        self._names: dict[str, str] = {}
        self._sessions = 0  # ever followed

    # The one door

    def handle(self, event: GraphEvent, now_s: float) -> Effects:
        """Take an event in and return what to do about it. `now_s`: monotonic; what lies before the last one is not."""
        self._now_s = now_s = max(now_s, self._now_s)
        effects: Effects = []
        match event:
            case Received(message):
                effects = self._received(message, now_s, live=True)
            case Replayed(message):
                self._received(message, now_s, live=False)
            case Loaded(value):
                self._keeping.load(value)
            case Owned(partitions):
                self._keeping.owned = partitions
            case Settle():
                effects = self.settle()
            case Tick():
                self._next_tick_s = NEVER_S
                effects = self._tick(now_s)
        if self._next_tick_s > now_s + PERSIST_EVERY_S:
            self._wake(effects, now_s)
        return effects

    def settle(self) -> Effects:
        """Before the end: everything of ours that is not stored yet."""
        return self._keeping.everything()

    # Questions

    def class_shape(self, name: str) -> Shape | None:
        """The graph of a class (or tenant, or all) as it is learnt; None: nothing is."""
        model = self.models.get(name)
        return class_shape(model) if model is not None else None

    def workflow_shape(self, root: RootId) -> Shape | None:
        """The graph of a live workflow; None: no such workflow."""
        aeg = self.workflows.get(root)
        return workflow_shape(aeg) if aeg is not None else None

    # Messages

    def _received(self, message: Message, now_s: float, *, live: bool) -> Effects:
        if isinstance(message, StepFinished):
            return self._finished(message, now_s, live=live) if sane(message) else []
        if isinstance(message, StepReady):
            if sane(message):
                self._ready(message, now_s)
        elif isinstance(message, StepCancelled):
            # A sign of life, no more: a client that left may come back.
            if message.root in self.workflows:
                self._workflow(message.root, message.tenant, now_s)
        elif isinstance(message, WorkflowDeclared):
            if self._workflow(message.root, message.tenant, now_s) is not None:
                self.declared.declare(message)
        elif isinstance(message, WorkflowEnded):
            self._ended(message)
        elif isinstance(message, GraphReset):
            return self._keeping.reset(message.name)
        return []

    def _ready(self, message: StepReady, now_s: float) -> None:
        """The session's next step: the gap is over. Sent again and again until answered; the first counts."""
        aeg = self._workflow(message.root, message.tenant, now_s)
        if aeg is None:
            return
        session = self._session(aeg, message)
        if session.steps and message.step_id not in (session.last_step, session.ready_step):
            gap_s = seconds(message.gap_s)
            waited_s = seconds(message.waited_s)
            if gap_s < 0 <= session.ended_s and waited_s >= 0:
                gap_s = seconds(max(0.0, now_s - session.ended_s - waited_s))
            self._learning.returned(self._learning.levels(aeg.tenant, session), session, gap_s)
            session.back(message.step_id, gap_s)

    def _finished(self, message: StepFinished, now_s: float, *, live: bool) -> Effects:
        if self._over.get(message.root) == message.step_id:
            return []
        aeg = self._workflow(message.root, message.tenant, now_s)
        if aeg is None or message.step_id in aeg.nodes:
            return []
        session = self._session(aeg, message)
        levels = self._learning.levels(aeg.tenant, session)
        self.declared.took(message)
        learn = live or message.at > levels[-1].learnt_until_at
        if not session.steps:
            if learn:
                self._learning.spawned(aeg, session)
        elif session.ready_step != message.step_id:  # its StepReady was lost, or lies before our time
            gap_s = seconds(message.gap_s)
            if learn:
                self._learning.returned(levels, session, gap_s)
            session.back(message.step_id, gap_s)
        elif learn:
            self._learning.goes_on(levels, session)  # another call of the session was on its way
        tool = self._name(tool_of(message))
        prompt_tokens, engine_s = tokens(message.prompt_tokens), seconds(message.engine_s, MAX_ENGINE_S)
        if learn:
            growth = min(prompt_tokens - session.prompt_tokens, MAX_GROWTH_TOKENS)
            self._learning.stepped(levels, session, tool, growth, seconds(message.modelled_s, MAX_ENGINE_S))
            for model in levels:
                model.learnt_until_at = newest(model.learnt_until_at, message.at)
        self._following.grew(aeg.add(message, session, tool, prompt_tokens, engine_s))
        session.stepped(message.step_id, tool, prompt_tokens, now_s if live else -1.0)
        if learn and tool == NO_TOOL:
            # Most clients never say that they are done. An answer that calls no tool is taken for the end until the
            # session comes back: waiting for silence would teach the length of tasks half an hour late.
            self._learning.ended(levels, session)
        if message.final:
            self._forget(aeg, learn=learn)
            self._over[message.root] = message.step_id
            if len(self._over) > MAX_OVER:
                self._over.popitem(last=False)
            return []
        if not live or partition_of(message.root) not in self._keeping.owned:
            return []
        return [self._forecast(message, session, levels)]

    def _ended(self, message: WorkflowEnded) -> None:
        """A client says so: what it ends is learnt at once, not after an hour of silence."""
        aeg = self.workflows.get(message.root)
        if aeg is None or aeg.tenant != message.tenant:
            return
        if not message.session:
            self._forget(aeg)
            return
        session = aeg.sessions.get(message.session)
        if session is not None and session.steps and not session.counted_end:
            self._learning.ended(self._learning.levels(aeg.tenant, session), session)

    def _forecast(self, message: StepFinished, session: Session, levels: Levels) -> Publish:
        said = self._policy.estimate(Situation(session.tool, session.steps, session.context), levels)
        said = self.declared.adjusted(message.root, message.session, said)
        p50, p90, p95, p99 = (said.gap_s[i] for i in _NAMED)
        forecast = Forecast(
            root=message.root,
            session=message.session,
            step_id=message.step_id,
            worker_id=message.worker_id,
            returns=said.returns,
            gap_p50_s=p50,
            gap_p90_s=p90,
            gap_p95_s=p95,
            gap_p99_s=p99,
            new_tokens=said.new_tokens,
            remaining_steps=said.remaining_steps,
            remaining_engine_s=said.remaining_engine_s,
            samples=said.samples,
            gap_quantiles_s=said.gap_s,
        )
        return Publish(self._subjects.forecast(message.worker_id), forecast)

    # Books

    def _workflow(self, root: RootId, tenant: TenantId, now_s: float) -> Aeg | None:
        """The workflow of that name, made when new; None when it is another tenant's."""
        aeg = self._following.seen(root, tenant, now_s)
        while (crowded_out := self._following.excess()) is not None:
            self._forget(crowded_out, learn=False)
        return aeg

    def _session(self, aeg: Aeg, message: StepReady | StepFinished) -> Session:
        agent_class = self.declared.class_of(message.root, message.parent, message.agent_class)
        session = aeg.session(message.session, self._name(agent_class), message.parent)
        if not session.number:
            self._sessions = session.number = self._sessions + 1
        return session

    def _forget(self, aeg: Aeg, *, learn: bool = True) -> None:
        """The workflow is over, and with it all its sessions."""
        self._following.drop(aeg)
        self.declared.drop(aeg.root)
        if learn:
            self._over_for_all(aeg)

    def _over_for_all(self, aeg: Aeg) -> None:
        for session in aeg.sessions.values():
            if session.steps and not session.counted_end:
                self._learning.ended(self._learning.levels(aeg.tenant, session), session)

    def _name(self, name: str) -> str:
        """The same name, of which there is one in memory."""
        if len(self._names) >= MAX_NAMES:
            self._names.clear()
        return self._names.setdefault(name, name)

    # Time

    def _tick(self, now_s: float) -> Effects:
        while (silent := self._following.fell_silent(now_s)) is not None:
            self.declared.drop(silent.root)
            self._over_for_all(silent)  # until it comes back
        while (forgotten := self._following.forgotten(now_s)) is not None:
            self._forget(forgotten)
        return self._keeping.some()

    def _wake(self, effects: Effects, now_s: float) -> None:
        """Ask to be called when there is something to store or to forget."""
        next_s = min(self._keeping.next_s(now_s), self._following.next_silent_s)
        if next_s < self._next_tick_s:
            self._next_tick_s = next_s
            effects.append(WakeAt(next_s))

    def check(self) -> None:
        """Raise AssertionError where bounds or orders are broken."""
        self._following.check()
        self._shelf.check()
        self.declared.check()
