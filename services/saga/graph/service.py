"""The live shell of the graph: bus and KV on one side, the core on the other. Run by `python -m saga.graph`.

Without KV learning and forecasts go on, and models wait in memory. Partitions are shared by lease keys in KV. Who asks
what is known is answered by each process for its own partitions.
"""

import asyncio
import contextlib
import os
import secrets
from typing import Final

import msgspec

from saga.contract.messages import Forecast, GraphAnswer, GraphAsk, GraphReset, StepFinished, WorkflowDeclared
from saga.contract.subjects import Subjects, kv_bucket
from saga.graph.config import GraphConfig
from saga.graph.inspection import answers, workflow_facts
from saga.graph.making import Making, make_core
from saga.graph.partitions import RENEW_S, Membership, partition_of
from saga.graph.state import GLOBAL, GraphEvent, Loaded, Owned, Replayed, Settle, model_key
from saga.kernel.effects import Effect, Forget, Persist, Publish, Received, Tick, WakeAt
from saga.runtime import metrics
from saga.runtime.app import App
from saga.runtime.bus import Bus, Entry, Incoming, KeyValue
from saga.runtime.clock import Clock, MonotonicClock
from saga.runtime.errors import BusUnavailable, KvConflict, MessageTooLarge
from saga.runtime.log import get_logger
from saga.runtime.recording import Handle, recorded

_TOLD: Final = 1_000  # names of models in one answer
_SLICE: Final = 200  # replayed messages between two looks at the loop
_LONGEST_NAP_S: Final = 60.0
_FORGET_WITHIN_S: Final = 2.5  # what was reset, in storage; who asked for it waits

log = get_logger()
FORECASTS = metrics.counter("saga_graph_forecasts_total", "Forecasts published")
WORKFLOWS = metrics.gauge("saga_graph_workflows", "Live workflows followed")
MODELS = metrics.gauge("saga_graph_models", "Models in memory")
PARTITIONS_OWNED = metrics.gauge("saga_graph_partitions", "Partitions that this process speaks for")
UNSTORED = metrics.counter("saga_graph_unstored_total", "Models that could not be stored in time; kept in memory")


class Graph:
    """One graph process while it lives."""

    def __init__(self, config: GraphConfig, bus: Bus, clock: Clock) -> None:
        """Raises StartError for an unknown policy."""
        self._config = config
        self._bus = bus
        self._clock = clock
        self._me = config.id or f"graph-{os.getpid()}-{secrets.token_hex(4)}"
        self._members = Membership(self._me)
        self._stores: dict[str, bytes | None] = {}  # newest value of each key not stored yet; None: to be deleted
        self._storing = asyncio.Lock()
        self._store_ready = asyncio.Event()
        self._subjects = Subjects(config.cell)
        self._models: KeyValue | None = None  # once open
        self._app: App | None = None  # while we live
        self._outbox: asyncio.Queue[Publish | None] = asyncio.Queue()
        self._wake_s = 0.0
        self._woken = asyncio.Event()
        self._making = Making(cell=config.cell, forecast=config.forecast)
        self.state = make_core(self._making)
        self._handle: Handle = self.state.handle

    async def live(self, app: App) -> None:
        """From the stored models to the last write."""
        self._handle = recorded(app.shared.record, "graph", self._me, self._making, self.state.handle)
        self._app = app
        models = self._models = await self._bus.kv(kv_bucket(self._config.cell, "graph"))
        members = await self._bus.kv(kv_bucket(self._config.cell, "graph-members"))
        await self._learn_the_past(models)
        app.spawn(self._tick(), name="graph.tick")
        app.spawn(self._store(models), name="graph.store")
        sending = app.spawn(self._send(), name="graph.send")
        watch = await members.watch(self._member_seen)
        subjects = self._subjects
        subscriptions = [
            await self._bus.subscribe(subjects.every_step_end(), self._received),
            await self._bus.subscribe(subjects.step_ready(), self._received),
            await self._bus.subscribe(subjects.workflow_declared(), self._declared),
            await self._bus.subscribe(subjects.workflow_ended(), self._received),
            await self._bus.subscribe(subjects.graph_ask(), self._asked),
        ]
        await self._bus.barrier()
        leasing = app.spawn(self._lease(members), name="graph.lease")
        log.info("graph.ready", member=self._me, models=len(self.state.models))
        await app.stopping.wait()
        leasing.cancel()
        with contextlib.suppress(BusUnavailable):
            await members.delete(self._me)  # the others take over at once
        for subscription in (*subscriptions, watch):
            await subscription.drain()
        self.feed(Settle())
        self._outbox.put_nowait(None)
        await sending
        await self._store_all(models)

    @property
    def partitions(self) -> frozenset[int]:
        """Those that this process speaks for."""
        return self._members.owned

    # In

    def feed(self, event: GraphEvent) -> None:
        """An event into the core, its effects out."""
        self._perform(self._handle(event, self._clock.monotonic_s()))

    def _received(self, incoming: Incoming) -> None:
        self.feed(Received(incoming.message))

    async def _declared(self, incoming: Incoming) -> None:
        """Every process hears of it, the one that speaks for the workflow says so."""
        self._received(incoming)
        message = incoming.message
        if isinstance(message, WorkflowDeclared) and partition_of(message.root) in self.partitions:
            facts = workflow_facts(self.state, message.root, self._clock.monotonic_s())
            answer = GraphAnswer(member=self._me, partitions=tuple(sorted(self.partitions)))
            if facts is not None:
                answer = msgspec.structs.replace(answer, workflows=(facts,))
            await incoming.respond(answer)

    async def _asked(self, incoming: Incoming) -> None:
        message = incoming.message
        if isinstance(message, GraphReset):
            if self._app is not None:
                self._app.spawn(self._reset(message), name="graph.reset")
        elif isinstance(message, GraphAsk):
            told = answers(self.state, message, self._me, self.partitions, self._clock.monotonic_s())
            for answer in told:
                if message.asker:
                    await self._bus.publish(self._subjects.graph_answer(message.asker), answer)
                elif partition_of(message.name) in self.partitions:
                    await incoming.respond(answer)

    async def _reset(self, message: GraphReset) -> None:
        """Forget, here and in storage, then say what."""
        forgotten = tuple(
            name
            for name, model in self.state.models.items()
            if message.name in ("", name) and partition_of(name) in self.partitions and (model.outcomes or model.tools)
        )
        self.feed(Received(message))
        stored = await self._forget_stored(everything=not message.name)
        answer = GraphAnswer(
            member=self._me, partitions=tuple(sorted(self.partitions)), forgotten=forgotten[:_TOLD], stored=stored
        )
        await self._bus.publish(self._subjects.graph_answer(message.asker), answer)

    async def _forget_stored(self, *, everything: bool) -> bool:
        """Whether what was reset is gone from storage too. Models too old to be in memory are there as well."""
        if self._models is None:
            return False
        try:
            async with asyncio.timeout(_FORGET_WITHIN_S):
                if everything:
                    kept = model_key(GLOBAL)  # says until when was learnt, so that no replay teaches it again
                    self._stores |= dict.fromkeys((k for k in await self._models.keys() if k != kept), None)
                return await self._store_all(self._models)
        except (BusUnavailable, TimeoutError):
            self._store_ready.set()
            return False

    async def _learn_the_past(self, models: KeyValue) -> None:
        """Stored models, then the tail of the step stream. Neither is needed."""
        try:
            for entry in (await models.items()).values():
                self._handle(Loaded(entry.value), self._clock.monotonic_s())
            subject = Subjects(self._config.cell).every_step_end()
            past = await self._bus.replay(subject, self._config.replay_s) if self._config.replay_s else []
        except BusUnavailable as error:
            log.warning("graph.no_past", error=str(error))
            return
        for number, message in enumerate(past):
            self._handle(Replayed(message), self._clock.monotonic_s())
            if number % _SLICE == _SLICE - 1:
                await asyncio.sleep(0)
        log.info("graph.past", steps=sum(isinstance(message, StepFinished) for message in past))

    async def _tick(self) -> None:
        while True:
            delay_s = self._wake_s - self._clock.monotonic_s()
            if delay_s <= 0:
                self._wake_s = float("inf")
                self.feed(Tick())
                self._share()
                WORKFLOWS.set(len(self.state.workflows))
                MODELS.set(len(self.state.models))
                continue
            self._woken.clear()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._woken.wait(), min(delay_s, _LONGEST_NAP_S))

    # Partitions

    async def _lease(self, members: KeyValue) -> None:
        while True:
            with contextlib.suppress(BusUnavailable):
                await members.put(self._me, b"")
                for member, revision in self._members.take_lost().items():
                    with contextlib.suppress(KvConflict):
                        await members.delete(member, revision)
            await asyncio.sleep(RENEW_S)

    def _member_seen(self, member: str, entry: Entry | None) -> None:
        if member == self._me:
            return
        if entry is None:
            self._members.gone(member)
        else:
            self._members.renewed(member, entry.revision, self._clock.monotonic_s())
        self._share()

    def _share(self) -> None:
        if self._members.settle(self._clock.monotonic_s()):
            log.info("graph.partitions", owned=len(self._members.owned), members=len(self._members.members))
            self.feed(Owned(self._members.owned))
        PARTITIONS_OWNED.set(len(self._members.owned))

    # Out

    def _perform(self, effects: list[Effect]) -> None:
        for effect in effects:
            match effect:
                case Publish():
                    self._outbox.put_nowait(effect)
                case Persist(key, value):
                    self._stores[key] = value
                    self._store_ready.set()
                case Forget(key):
                    self._stores[key] = None
                    self._store_ready.set()
                case WakeAt(at_s):
                    self._wake_s = at_s
                    self._woken.set()
                case _:
                    raise AssertionError(f"the graph's core asked for {effect}")

    async def _send(self) -> None:
        while (publish := await self._outbox.get()) is not None:
            await self._bus.publish(publish.subject, publish.message)
            if isinstance(publish.message, Forecast):
                FORECASTS.inc()

    async def _store(self, models: KeyValue) -> None:
        while True:
            await self._store_ready.wait()
            self._store_ready.clear()
            if not await self._store_all(models):
                await asyncio.sleep(RENEW_S)
                self._store_ready.set()

    async def _store_all(self, models: KeyValue) -> bool:
        """Whether everything is stored, and what is to be deleted is."""
        async with self._storing:
            return await self._store_each(models)

    async def _store_each(self, models: KeyValue) -> bool:
        while self._stores:
            key, value = next(iter(self._stores.items()))
            try:
                await (models.delete(key) if value is None else models.put(key, value))
            except MessageTooLarge as error:
                log.warning("graph.model_too_large", key=key, error=str(error))
            except BusUnavailable:
                UNSTORED.inc()
                return False
            if key in self._stores and self._stores[key] is value:
                del self._stores[key]
        return True


async def serve(app: App, config: GraphConfig, bus: Bus) -> None:
    """Run one graph process on this bus until told to stop."""
    await Graph(config, bus, MonotonicClock()).live(app)
