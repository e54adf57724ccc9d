"""The live shell of a worker agent: engine and bus on one side, the core on the other.

It decides nothing: messages, KV events and polls go into `WorkerState.handle`, effects come out and are carried out in
order. Run by `python -m saga.worker`.
"""

import asyncio
import contextlib
import itertools
import mmap
import os
from collections.abc import Coroutine
from pathlib import Path
from typing import Any, Final

import aiohttp
import zmq.asyncio

from saga.contract.drains import DRAINS_BUCKET
from saga.contract.errors import StartError
from saga.contract.ids import SessionTag, WorkerId
from saga.contract.messages import KvAsk
from saga.contract.subjects import Subjects, kv_bucket
from saga.kernel.effects import Forget, Log, Persist, Publish, Received, Reconnected, Tick, WakeAt
from saga.runtime import metrics
from saga.runtime.app import App
from saga.runtime.bus import Bus, Entry, Incoming
from saga.runtime.clock import Clock, MonotonicClock
from saga.runtime.log import get_logger
from saga.runtime.recording import recorded
from saga.runtime.rows import follow
from saga.worker.config import WorkerConfig
from saga.worker.events import (
    AbortRequest,
    Attached,
    BusAway,
    CheckEngine,
    CloseTag,
    Drain,
    EngineGone,
    KvEventsLost,
    Leave,
    LoadMissed,
    Restored,
    SetRetention,
    TagClosed,
    TagCloseFailed,
    WorkerEffect,
    WorkerEvent,
)
from saga.worker.http_sglang import PROVEN_VERSION, EngineSlow, EngineUnreachable, EngineView, SglangHttp
from saga.worker.journal_file import JournalFile
from saga.worker.making import Making, make_core
from saga.worker.pool_fit import misfit
from saga.worker.presence import NEVER_S
from saga.worker.retention_ring import RetentionRing
from saga.worker.sharing import with_shared_tier
from saga.worker.zmq_events import KvEventStream, Restarted

RETRY_S: Final = 0.25  # between two tries to attach
VIEW_EVERY_POLLS: Final = 10  # a restart so quick that no poll failed shows in what the engine says of itself
PATIENCE_S: Final = 5.0  # before the log says that there is no engine
LONGEST_NAP_S: Final = 60.0
WATCH_POOL_S: Final = 2.5  # after attaching: by then every other worker has beaten twice
STOP_S: Final = 5.0  # for requests to the engine that are under way at the end

log = get_logger()
OPEN_TAGS = metrics.gauge("saga_worker_open_session_tags", "Session tags open at the engine")
LEASES = metrics.gauge("saga_worker_leases", "Leases out on this worker")
PAGES = metrics.gauge("saga_worker_resident_pages", "KV pages that the engine holds")
EVENTS_LOST = metrics.counter("saga_worker_kv_events_lost_total", "Times that KV events could not be had again")
ABORTS = metrics.counter("saga_worker_aborts_total", "Requests aborted because nobody renewed their lease")


class RetentionChannel:
    """Our end of the channel to SAGA's plugin in the engine. Without a plugin, what it is told goes nowhere."""

    def __init__(self, path: str) -> None:
        """`path`: where the engine says that the plugin reads; empty: it has none."""
        self._ring: RetentionRing | None = None
        if not path:
            return
        try:
            with Path(path).open("r+b") as file:
                self._ring = RetentionRing(memoryview(mmap.mmap(file.fileno(), 0)))
        except (OSError, ValueError) as error:
            log.warning("worker.no_retention_channel", file=path, error=str(error))

    def set(self, effect: SetRetention) -> None:
        """What a tag is worth."""
        if self._ring is not None and not self._ring.set(effect.tag, effect.value):
            log.warning("worker.retention_not_told", tag=effect.tag, value=effect.value)

    def beat(self, now_s: float) -> None:
        """What was said still holds; with 0 it holds no longer."""
        if self._ring is not None:
            self._ring.beat(now_s)


class Agent:
    """One agent while it lives."""

    def __init__(self, app: App, config: WorkerConfig, bus: Bus, http: SglangHttp, clock: Clock) -> None:
        """Raises StartError for a bad policy or journal."""
        self._app = app
        self._worker_id = WorkerId(config.worker_id)
        self._subjects = Subjects(config.cell)
        self._config = config
        self._bus = bus
        self._http = http
        self._clock = clock
        self._file = JournalFile(config.journal_path)
        self._channel = RetentionChannel("")
        self._outbox: asyncio.Queue[Publish | None] = asyncio.Queue()
        self._calls: set[asyncio.Task[None]] = set()
        self._wake_s = NEVER_S
        self._woken = asyncio.Event()
        self._look = asyncio.Event()  # at the engine, now
        self._deaf = False  # the bus is away
        self._suspect = False  # that another process answers there
        self._epoch = 0
        making = Making(
            cell=config.cell,
            worker_id=self._worker_id,
            engine_url=config.engine_url,
            retention=config.retention,
            prefetch=config.prefetch,
            tag_ttl_s=config.tag_ttl_s,
            tag_cap_s=config.tag_cap_s,
            lease_ttl_s=config.lease_ttl_s,
            resync_jitter_s=config.resync_jitter_s,
            seed=os.urandom(8).hex(),
        )
        self.state = make_core(making)
        self._handle = recorded(app.shared.record, "worker", self._worker_id, making, self.state.handle)

    async def live(self) -> None:
        """From subscriptions to the last goodbye."""
        sending = self._app.spawn(self._send(), name="worker.send")
        self._app.spawn(self._tick(), name="worker.tick")
        self._app.spawn(self._follow_drains(), name="worker.drains")
        self.feed(Restored(tuple(self._file.journal.records())))
        subjects, me = self._subjects, self._worker_id
        subscriptions = [
            await self._bus.subscribe(subject, self._received)
            for subject in (
                subjects.lease(me),  # with the renewals of gateways older than the next subject
                subjects.leases_renewed(me),
                subjects.step_ends_at(me),
                subjects.sessions_released(me),
                subjects.forecast(me),
                subjects.resync(me),
            )
        ]
        subscriptions.append(await self._bus.subscribe(subjects.worker_ask(me), self._asked))
        await self._bus.barrier()
        refusal: StartError | None = None
        try:
            await self._app.stop_or(self._follow_engine())
        except StartError as error:
            refusal = error  # goodbye first: the mesh may count on this worker already
        self.feed(Leave())
        self._channel.beat(0.0)
        for subscription in subscriptions:
            await subscription.drain()
        if self._calls:
            await asyncio.wait(self._calls, timeout=STOP_S)
        self._outbox.put_nowait(None)
        await sending
        self._file.close()
        if refusal is not None:
            raise refusal

    def feed(self, event: WorkerEvent) -> None:
        """An event into the core, its effects out."""
        if self._bus.connected == self._deaf:
            self._deaf = not self._deaf
            self._perform(self._handle(BusAway() if self._deaf else Reconnected(), self._clock.monotonic_s()))
        self._perform(self._handle(event, self._clock.monotonic_s()))

    def _received(self, incoming: Incoming) -> None:
        self.feed(Received(incoming.message))

    async def _asked(self, incoming: Incoming) -> None:
        if isinstance(incoming.message, KvAsk):
            await incoming.respond(self.state.told(incoming.message, self._clock.monotonic_s()))

    async def _follow_drains(self) -> None:
        """What operators say of this worker. Not waited for: an engine serves while the store is away."""

        def said(worker_id: str, row: Entry | None) -> None:
            if worker_id == self._worker_id:
                log.info("worker.draining" if row is not None else "worker.not_draining", worker=worker_id)
                self.feed(Drain(row is not None))

        await follow(self._bus, kv_bucket(self._config.cell, DRAINS_BUCKET), said, self._app.stopping)

    # The engine

    async def _follow_engine(self) -> None:
        """One incarnation after the other."""
        context = zmq.asyncio.Context()
        try:
            while True:
                view = await self._find_engine()
                tier, tokens_per_s = self._config.shared_tier, self._config.shared_tokens_per_s
                facts = with_shared_tier(view.facts, tier, tokens_per_s, view.storage, self._config.engine_url)
                self._epoch = max(self._epoch + 1, int(self._clock.wall_s() * 1000))
                stream = KvEventStream(context, view.events_endpoint, view.replay_endpoint, view.topic)
                self._channel = RetentionChannel(view.retention_file)
                self.feed(Attached(facts, self._epoch))
                if view.version != PROVEN_VERSION:
                    log.warning("worker.unproven_version", version=view.version or "unknown", proven=PROVEN_VERSION)
                if self._config.retention != "lru" and not view.facts.session_tags:
                    log.warning("worker.no_session_tags", hint="start the engine with --enable-session-radix-cache")
                if not view.replay_endpoint:
                    log.warning("worker.no_replay", hint="add replay_endpoint to --kv-events-config")
                await self._until_gone(view, stream)
                self.feed(EngineGone())
        finally:
            context.destroy(linger=0)

    async def _find_engine(self) -> EngineView:
        started_s, told = self._clock.monotonic_s(), False
        while True:
            try:
                return await self._http.view()
            except (EngineUnreachable, EngineSlow) as error:
                if not told and self._clock.monotonic_s() - started_s > PATIENCE_S:
                    told = True
                    log.warning("worker.no_engine", url=self._config.engine_url, error=str(error))
            await asyncio.sleep(RETRY_S)

    async def _until_gone(self, view: EngineView, stream: KvEventStream) -> None:
        """Events and polls until the engine's process is gone or another."""
        watched = (self._poll(view), self._consume(stream), self._watch_pool())
        watching = [asyncio.create_task(each) for each in watched]
        listening = asyncio.create_task(self._listen(stream))
        try:
            done, _ = await asyncio.wait(watching, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                task.result()
        finally:
            for task in (*watching, listening):
                task.cancel()
            await asyncio.gather(*watching, listening, return_exceptions=True)
            stream.close()

    async def _consume(self, stream: KvEventStream) -> None:
        async for event in stream.follow():
            if isinstance(event, Restarted):
                return
            if isinstance(event, KvEventsLost):
                EVENTS_LOST.inc()
            self.feed(event)

    async def _watch_pool(self) -> None:
        """Never returns. Raises StartError when another worker, which was there first, shows that this one is unfit."""
        found = asyncio.get_running_loop().create_future()

        def hear(incoming: Incoming) -> None:
            hello = self.state.hello
            if hello is not None and not found.done() and (unfit := misfit(hello, incoming.message)):
                found.set_result(unfit)

        if self._bus.connected:
            others = await self._bus.subscribe(self._subjects.worker_presence(), hear)
            try:
                with contextlib.suppress(TimeoutError):
                    raise StartError(await asyncio.wait_for(found, WATCH_POOL_S))
            finally:
                await others.drain()
        await asyncio.Event().wait()

    async def _listen(self, stream: KvEventStream) -> None:
        """A broken connection of events is the first that is heard of an engine's death."""
        while True:
            await stream.disconnected()
            self._suspect = True
            self._look.set()

    async def _poll(self, view: EngineView) -> None:
        """Returns when nobody listens at the engine's address, twice in a row, or another process does."""
        refused = False
        for count in itertools.count(1):
            self._look.clear()
            try:
                self.feed(await self._http.load())
                refused = False
                if (self._suspect or count % VIEW_EVERY_POLLS == 0) and await self._http.view() != view:
                    return
                self._suspect = False
            except EngineSlow as error:
                log.info("worker.engine_slow", error=str(error))
                self.feed(LoadMissed())
            except EngineUnreachable:
                if refused:
                    return
                refused = True
                continue
            self._measure()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._look.wait(), self._config.poll_s)

    def _measure(self) -> None:
        self._channel.beat(self._clock.monotonic_s())
        OPEN_TAGS.set(len(self.state.tags))
        LEASES.set(len(self.state.leases))
        PAGES.set(self.state.feed.pages)

    # Effects

    def _perform(self, effects: list[WorkerEffect]) -> None:
        for effect in effects:
            match effect:
                case Publish():
                    self._outbox.put_nowait(effect)
                case Persist() | Forget():
                    self._file.write(effect)
                case WakeAt(at_s):
                    self._wake_s = at_s
                    self._woken.set()
                case CloseTag(tag):
                    self._call(self._close_tag(tag))
                case AbortRequest(request):
                    ABORTS.inc()
                    self._call(self._abort(request))
                case CheckEngine():
                    self._look.set()
                case SetRetention():
                    self._channel.set(effect)
                case Log(event, facts):
                    log.info(event, worker=self._worker_id, **facts)
                case _:
                    raise AssertionError(f"the worker's core asked for {effect}")

    async def _send(self) -> None:
        """One sender, so that deltas leave in their order."""
        while (publish := await self._outbox.get()) is not None:
            await self._bus.publish(publish.subject, publish.message)

    async def _tick(self) -> None:
        """Wakes the core when it asked for it."""
        while True:
            delay_s = self._wake_s - self._clock.monotonic_s()
            if delay_s <= 0:
                self._wake_s = NEVER_S
                self.feed(Tick())
                continue
            self._woken.clear()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._woken.wait(), min(delay_s, LONGEST_NAP_S))

    def _call(self, call: Coroutine[Any, Any, None]) -> None:
        task = self._app.spawn(call, name="worker.call")
        self._calls.add(task)
        task.add_done_callback(self._calls.discard)

    async def _close_tag(self, tag: SessionTag) -> None:
        try:
            await self._http.close_tag(tag)
        except (EngineUnreachable, EngineSlow):
            self.feed(TagCloseFailed(tag))
        else:
            self.feed(TagClosed(tag))

    async def _abort(self, request: str) -> None:
        try:
            await self._http.abort(request)
        except (EngineUnreachable, EngineSlow) as error:
            log.warning("worker.abort_failed", rid=request, error=str(error))


async def serve(app: App, config: WorkerConfig, bus: Bus) -> None:
    """Run one agent on this bus until told to stop."""
    async with aiohttp.ClientSession() as session:
        await Agent(app, config, bus, SglangHttp(session, config.engine_url), MonotonicClock()).live()
