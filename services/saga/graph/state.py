"""The graph's core: live workflows, what is learnt from them, and a forecast after each step. Pure.

Nothing waits for it: without forecasts admission and workers go by defaults. It learns from every step it hears of,
publishes only for workflows of its own partitions and stores only models of its own partitions.
"""

import hashlib
from collections import OrderedDict
from typing import Final, TypeAlias

import msgspec

from saga.contract.ids import RootId, StepId, TenantId
from saga.contract.messages import GAP_SHARES, Forecast, Message, StepCancelled, StepFinished, StepReady
from saga.contract.subjects import Subjects
from saga.graph.aeg import Aeg, Session, tool_of
from saga.graph.forecast import ForecastPolicy, Situation
from saga.graph.models import Model, decode_model, encode_model
from saga.graph.partitions import PARTITIONS, partition_of
from saga.kernel.effects import Effect, Persist, Publish, Received, Tick, WakeAt

FORGET_S: Final = 3_600.0  # a workflow without a sign of life
MAX_WORKFLOWS: Final = 20_000
MAX_MODELS: Final = 1_000
PERSIST_EVERY_S: Final = 10.0  # what is lost when a process dies, the replay at the start of the next teaches again
GLOBAL: Final = "all"
NO_TOOL: Final = ""
NEVER_S: Final = float("inf")
_NAMED: Final = tuple(map(GAP_SHARES.index, (0.5, 0.9, 0.95, 0.99)))


class Owned(msgspec.Struct, frozen=True):
    """Event: these partitions are ours now."""

    partitions: frozenset[int]


class Loaded(msgspec.Struct, frozen=True):
    """Event: a model from storage. Ignored when a newer one is here."""

    value: bytes


class Replayed(msgspec.Struct, frozen=True):
    """Event: a message from the past; it teaches, but when it came says nothing."""

    message: Message


class Settle(msgspec.Struct, frozen=True):
    """Event: the process ends; store everything of ours that is not stored yet."""


GraphEvent: TypeAlias = Received | Replayed | Loaded | Owned | Tick | Settle
Effects = list[Effect]


def model_key(name: str) -> str:
    """Where a model is stored."""
    return hashlib.sha256(name.encode()).hexdigest()[:32]


class GraphState:
    """Everything one graph process knows. `handle` is the one door."""

    def __init__(self, subjects: Subjects, policy: ForecastPolicy) -> None:
        self._subjects = subjects
        self._policy = policy
        self._owned = frozenset(range(PARTITIONS))
        self._next_tick_s = NEVER_S
        self.workflows: OrderedDict[RootId, Aeg] = OrderedDict()  # longest unseen first
        self.models: OrderedDict[str, Model] = OrderedDict()  # longest unused first
        self._over: OrderedDict[RootId, StepId] = OrderedDict()  # the step that ended a workflow may be told twice
        self._dirty: dict[str, None] = {}

    # The one door

    def handle(self, event: GraphEvent, now_s: float) -> Effects:
        """Take an event in and return what to do about it. `now_s`: monotonic."""
        effects: Effects = []
        match event:
            case Received(message):
                effects = self._received(message, now_s, live=True)
            case Replayed(message):
                self._received(message, now_s, live=False)
            case Loaded(value):
                self._loaded(value)
            case Owned(partitions):
                self._owned = partitions
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
        return self._persist(list(self._dirty))

    # Messages

    def _received(self, message: Message, now_s: float, *, live: bool) -> Effects:
        if isinstance(message, StepFinished):
            return self._finished(message, now_s, live=live)
        if isinstance(message, StepReady):
            self._ready(message, now_s)
        elif isinstance(message, StepCancelled):
            self._cancelled(message, now_s)
        return []

    def _ready(self, message: StepReady, now_s: float) -> None:
        """The session's next step: the gap is over. Sent again and again until answered; the first counts."""
        aeg = self._workflow(message.root, message.tenant, now_s)
        session = aeg.session(message.session, message.agent_class, message.parent)
        if session.steps and message.step_id not in (session.last_step, session.ready_step):
            gap_s = message.gap_s
            if gap_s < 0 and session.ended_s >= 0:
                gap_s = max(0.0, now_s - session.ended_s - message.waited_s)
            self._returned(self._levels(aeg.tenant, session.agent_class), session, gap_s)
            session.ready_step, session.ready_gap_s = message.step_id, gap_s

    def _finished(self, message: StepFinished, now_s: float, *, live: bool) -> Effects:
        if self._over.get(message.root) == message.step_id:
            return []
        aeg = self._workflow(message.root, message.tenant, now_s)
        if message.step_id in aeg.nodes:
            return []
        session = aeg.session(message.session, message.agent_class, message.parent)
        levels = self._levels(aeg.tenant, session.agent_class)
        learn = live or message.at > levels[-1].learnt_until_at
        tool = tool_of(message)
        if learn:
            self._goes_on(levels, session)  # another call of the session was on its way
        if session.steps:
            if session.ready_step != message.step_id:  # its StepReady was lost, or lies before our time
                if learn:
                    self._returned(levels, session, message.gap_s)
                session.ready_gap_s = message.gap_s
            if learn:
                growth = message.prompt_tokens - session.prompt_tokens
                for model in levels:
                    model.saw_next(session.tool, tool, growth)
        aeg.add(message, tool, session.ready_gap_s)
        session.steps += 1
        session.tool, session.last_step, session.prompt_tokens = tool, message.step_id, message.prompt_tokens
        session.ended_s = now_s if live else -1.0
        session.ready_gap_s = -1.0
        if learn:
            for model in levels:
                model.saw_step(message.engine_s)
                model.learnt_until_at = max(model.learnt_until_at, message.at)
                self._dirty[model.name] = None
            if tool == NO_TOOL:
                # Most clients never say that they are done. An answer that calls no tool is taken for the end until
                # the session comes back: waiting for silence would teach the length of tasks half an hour late.
                self._ended(levels, session)
        if message.final:
            self._forget(aeg, learn=learn)
            self._over[message.root] = message.step_id
            if len(self._over) > MAX_WORKFLOWS:
                self._over.popitem(last=False)
            return []
        if not live or partition_of(message.root) not in self._owned:
            return []
        return [self._forecast(message, session, levels)]

    def _cancelled(self, message: StepCancelled, now_s: float) -> None:
        """A sign of life, no more: a client that left may come back."""
        if message.root in self.workflows:
            self._workflow(message.root, message.tenant, now_s)

    def _forecast(self, message: StepFinished, session: Session, levels: tuple[Model, ...]) -> Publish:
        said = self._policy.estimate(Situation(session.tool, session.steps), levels)
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

    # Learning

    def _ended(self, levels: tuple[Model, ...], session: Session) -> None:
        session.counted_end = session.steps
        for model in levels:
            model.saw_end(session.tool, session.steps)
            self._dirty[model.name] = None

    def _returned(self, levels: tuple[Model, ...], session: Session, gap_s: float) -> None:
        self._goes_on(levels, session)
        for model in levels:
            model.saw_return(session.tool, session.steps, gap_s)
            self._dirty[model.name] = None

    def _goes_on(self, levels: tuple[Model, ...], session: Session) -> None:
        """A sign of life after what was taken for the end."""
        if session.counted_end:
            for model in levels:
                model.took_end_back(NO_TOOL, session.counted_end)
            session.counted_end = 0

    def _forget(self, aeg: Aeg, *, learn: bool = True) -> None:
        """The workflow is over, and with it all its sessions."""
        del self.workflows[aeg.root]
        for session in aeg.sessions.values():
            if session.steps and learn and not session.counted_end:
                self._ended(self._levels(aeg.tenant, session.agent_class), session)

    def _levels(self, tenant: TenantId, agent_class: str) -> tuple[Model, ...]:
        """Models from the narrowest to the widest."""
        wide = (self._model(f"tenant/{tenant}"), self._model(GLOBAL))
        return (self._model(f"class/{tenant}/{agent_class}"), *wide) if agent_class else wide

    def _model(self, name: str) -> Model:
        model = self.models.get(name)
        if model is None:
            model = self.models[name] = Model(name)
            if len(self.models) > MAX_MODELS:
                self._drop_model(next(iter(self.models)))
        self.models.move_to_end(name)
        return model

    def _drop_model(self, name: str) -> None:
        """From memory; what is stored of it stays and is loaded at the next start."""
        del self.models[name]
        self._dirty.pop(name, None)

    def _loaded(self, value: bytes) -> None:
        model = decode_model(value)
        if model is None:
            return
        known = self.models.get(model.name)
        if known is None or known.learnt_until_at < model.learnt_until_at:
            self.models[model.name] = model
            if len(self.models) > MAX_MODELS:
                self._drop_model(next(iter(self.models)))

    # Books

    def _workflow(self, root: RootId, tenant: TenantId, now_s: float) -> Aeg:
        aeg = self.workflows.get(root)
        if aeg is None:
            aeg = self.workflows[root] = Aeg(root, tenant, now_s)
            if len(self.workflows) > MAX_WORKFLOWS:
                self._forget(next(iter(self.workflows.values())), learn=False)
        aeg.seen_s = now_s
        self.workflows.move_to_end(root)
        return aeg

    def _wake(self, effects: Effects, now_s: float) -> None:
        """Ask to be called when there is something to store or to forget."""
        next_s = now_s + PERSIST_EVERY_S if self._dirty else NEVER_S
        if self.workflows:
            next_s = min(next_s, next(iter(self.workflows.values())).seen_s + FORGET_S)
        if next_s < self._next_tick_s:
            self._next_tick_s = next_s
            effects.append(WakeAt(next_s))

    def _tick(self, now_s: float) -> Effects:
        while self.workflows:
            oldest = next(iter(self.workflows.values()))
            if now_s - oldest.seen_s < FORGET_S:
                break
            self._forget(oldest)
        return self._persist(list(self._dirty))

    def _persist(self, names: list[str]) -> Effects:
        effects: Effects = []
        for name in names:
            self._dirty.pop(name, None)
            if partition_of(name) in self._owned and name in self.models:
                effects.append(Persist(model_key(name), encode_model(self.models[name])))
        return effects

    def check(self) -> None:
        """Raise AssertionError where bounds or orders are broken."""
        seen = [aeg.seen_s for aeg in self.workflows.values()]
        if seen != sorted(seen):
            raise AssertionError("workflows are not in the order of their last sign of life")
        if len(self.models) > MAX_MODELS or len(self.workflows) > MAX_WORKFLOWS:
            raise AssertionError("more workflows or models than allowed")
        if not set(self._dirty) <= set(self.models):
            raise AssertionError("a model that is not here is to be stored")
