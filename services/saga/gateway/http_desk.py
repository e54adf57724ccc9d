"""What a request sees of the mesh: hand in a step, wait at its ticket, say what became of it.

The shell around the core (`state.py`): bus messages become events, effects become messages, timers and news at tickets.
Made by `service.py`, used by `http_*.py`.
"""

import asyncio
from collections import deque
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any, Final

from saga.contract.ids import NO_WORKER, GatewayId, PoolId, StepId
from saga.contract.messages import Grant, Message, StepChain, StepReady, WorkerLeaving, WorkflowDeclared
from saga.contract.subjects import Subjects, kv_bucket
from saga.gateway.declaring import Deadlines
from saga.gateway.events import EndPrefetch, GatewayEffect, GatewayEvent, Prefetch, Reject, Run, SendChain, Submitted
from saga.gateway.fleet import Fleet, Pool
from saga.gateway.making import Making, make_core
from saga.gateway.sessions import Prompt
from saga.kernel.effects import Append, Effect, Log, Publish, Received, Request, Tick, WakeAt
from saga.runtime.bus import Bus, Handler, Incoming
from saga.runtime.clock import Clock, MonotonicClock
from saga.runtime.errors import BusTimeout, BusUnavailable, MessageError
from saga.runtime.log import get_logger
from saga.runtime.recording import recorded

REQUEST_TIMEOUT_S: Final = 2.0
SERVICES_LED: Final = ("admission", "placement")
LEAVE_WITHIN_S: Final = 5.0  # for step ends still on their way to the stream
log = get_logger()


class Ticket:
    """Where one request waits for what becomes of its step."""

    __slots__ = ("_desk", "_news", "_waiter", "cut", "prompt", "step", "worker_id")

    def __init__(self, desk: "Desk", step: StepReady, prompt: Prompt) -> None:
        self._desk = desk
        self._news: deque[Run | Reject] = deque()
        self._waiter: asyncio.Future[None] | None = None
        self.step = step
        self.prompt = prompt
        self.worker_id = NO_WORKER  # that it was granted last
        self.cut: Callable[[], None] | None = None  # ends the exchange with an engine that is dead

    def put(self, news: Run | Reject) -> None:
        """The core has decided."""
        if isinstance(news, Run):
            self.worker_id = news.grant.worker_id
        self._news.append(news)
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    async def next(self) -> Run | Reject:
        """The next decision: a grant to run under, or a refusal."""
        while not self._news:
            self._waiter = asyncio.get_running_loop().create_future()
            await self._waiter
        return self._news.popleft()

    def close(self) -> None:
        """Nobody waits here any more."""
        self._desk.forget(self)


class Desk:
    """The core with its bus, for as many requests as are in flight."""

    def __init__(
        self,
        bus: Bus,
        gateway_id: GatewayId,
        cell: str,
        *,
        clock: Clock | None = None,
        fleet: Fleet | None = None,
        record: Path | None = None,
    ) -> None:
        self.gateway_id = gateway_id
        self.clock = clock or MonotonicClock()
        self.fleet = fleet or Fleet()
        self.on_prefetch: Callable[[Prefetch | EndPrefetch], None] = lambda _: None  # who talks to engines
        self.deadlines = Deadlines()  # of workflows declared here or elsewhere
        making = Making(cell=cell, gateway_id=gateway_id)
        self.state = make_core(making)
        self._handle = recorded(record, "gateway", gateway_id, making, self.state.handle)
        self._bus = bus
        self.subjects = Subjects(cell)
        self._leaders = kv_bucket(cell, "leaders")
        self._tickets: dict[StepId, Ticket] = {}
        self._outbox: deque[Publish] = deque()
        self._sending: asyncio.Task[None] | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._timer: asyncio.TimerHandle | None = None
        self._timer_s = 0.0
        self._lead_revisions: dict[str, int] = {}
        self._failed: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    # --- for requests ------------------------------------------------------------------------------------------

    def now_s(self) -> float:
        """Monotonic."""
        return self.clock.monotonic_s()

    def submit(self, step: StepReady, prompt: Prompt) -> Ticket:
        """A new step; its grant or refusal comes to the ticket."""
        ticket = Ticket(self, step, prompt)
        self._tickets[step.step_id] = ticket
        self.tell(Submitted(step))
        return ticket

    def tell(self, event: GatewayEvent) -> None:
        """What became of a step."""
        now_s = self.now_s()
        self._perform(self._handle(event, now_s), now_s)

    def holds(self, step_id: StepId, grant: Grant) -> bool:
        """Whether the request may be written now; ask right after Sending."""
        return self.state.holds(step_id, grant)

    async def ask(self, subject: str, message: Message, timeout_s: float) -> Message:
        """Another service's answer, past the core. Raises BusUnavailable, MessageError."""
        return await self._bus.request(subject, message, timeout_s)

    async def listen(self, subject: str, handler: Handler) -> None:
        """Hears a subject past the core; returns when the server knows."""
        await self._bus.subscribe(subject, handler)
        await self._bus.barrier()

    def say(self, subject: str, message: Message) -> None:
        """To whom it concerns, past the core; at most once."""
        self._publish(Publish(subject, message))

    def forget(self, ticket: Ticket) -> None:
        """The request behind this ticket is over."""
        self._tickets.pop(ticket.step.step_id, None)

    def spawn(self, work: Coroutine[Any, Any, None], name: str) -> None:
        """Runs work that may outlive a request. If it raises, the process ends."""
        task = asyncio.get_running_loop().create_task(work, name=name)
        self._tasks.add(task)
        task.add_done_callback(self._ended)

    # --- for probes --------------------------------------------------------------------------------------------

    def pools(self) -> dict[PoolId, Pool]:
        """What Fleet says, with silence excused while the bus is away."""
        now_s = self.now_s()
        if not self._bus.connected:
            self.fleet.excuse(now_s)
        return self.fleet.pools(now_s)

    async def missing(self) -> list[str]:
        """What this gateway lacks to serve; empty: nothing."""
        missing = [] if self._bus.connected else ["nats"]
        missing += [f"{service} leader" for service in SERVICES_LED if not await self._leads(service)]
        if not any(pool.healthy for pool in self.pools().values()):
            missing.append("healthy worker")
        return missing

    async def _leads(self, service: str) -> bool:
        """Whether a leader was heard, or its lease in KV is being renewed: a late gateway has heard no hello."""
        if service in self.state.leaders_heard:
            return True
        try:
            entry = await (await self._bus.kv(self._leaders)).get(service)
        except BusUnavailable:
            return False
        if entry is None:
            return False
        before, self._lead_revisions[service] = self._lead_revisions.get(service, 0), entry.revision
        if before and entry.revision > before:
            self.state.leaders_heard.add(service)
            return True
        return False

    # --- the bus -----------------------------------------------------------------------------------------------

    async def open(self) -> None:
        """Subscribes; returns when the server knows."""
        subjects = self.subjects
        await self._bus.subscribe(subjects.gateway(self.gateway_id), self._hear)
        await self._bus.subscribe(subjects.leader_hello(), self._hear)
        await self._bus.subscribe(subjects.worker_presence(), self._hear_worker)
        await self._bus.subscribe(subjects.workflow_declared(), self._hear_declared)
        await self._bus.barrier()
        self._bus.on_reconnect(self._on_reconnect)
        self._tick()

    async def watch(self) -> None:
        """Raises what a spawned task raised: nothing limps."""
        await asyncio.shield(self._failed)

    async def close(self) -> None:
        """Waits, bounded, until what was said is on its way."""
        if self._timer is not None:
            self._timer.cancel()
        tasks = set(self._tasks)
        if self._sending is not None:
            tasks.add(self._sending)
        if tasks:
            await asyncio.wait(tasks, timeout=LEAVE_WITHIN_S)
        for task in tasks:
            task.cancel()

    def _on_reconnect(self) -> None:
        self.fleet.excuse(self.now_s())

    def _hear(self, incoming: Incoming) -> None:
        self._receive(incoming.message)

    def _receive(self, message: Message) -> None:
        now_s = self.now_s()
        self._perform(self._handle(Received(message), now_s), now_s)

    def _hear_worker(self, incoming: Incoming) -> None:
        message = incoming.message
        self.fleet.hear(message, self.now_s())
        if isinstance(message, WorkerLeaving) and message.engine_died:
            for ticket in self._tickets.values():
                if ticket.worker_id == message.worker_id and ticket.cut is not None:
                    ticket.cut()

    def _hear_declared(self, incoming: Incoming) -> None:
        if isinstance(incoming.message, WorkflowDeclared):
            self.deadlines.hear(incoming.message)

    def _tick(self) -> None:
        self._timer = None
        now_s = self.now_s()
        self._perform(self._handle(Tick(), now_s), now_s)

    def _wake_at(self, at_s: float, now_s: float) -> None:
        if self._timer is not None:
            if at_s >= self._timer_s:
                return
            self._timer.cancel()
        self._timer_s = at_s
        self._timer = asyncio.get_running_loop().call_later(max(0.0, at_s - now_s), self._tick)

    def _perform(self, effects: list[Effect | GatewayEffect], now_s: float) -> None:
        for effect in effects:
            match effect:
                case Publish():
                    self._publish(effect)
                case Run(step_id) | Reject(step_id):
                    ticket = self._tickets.get(step_id)
                    if ticket is not None:
                        ticket.put(effect)
                case Request(subject, message):
                    self.spawn(self._request(subject, message), "request")
                case Append(subject, message, message_id):
                    self.spawn(self._append(subject, message, message_id), "append")
                case WakeAt(at_s):
                    self._wake_at(at_s, now_s)
                case SendChain(step_id):
                    self._send_chain(step_id)
                case Prefetch() | EndPrefetch():
                    self.on_prefetch(effect)
                case Log(event, facts):
                    log.info(event, **facts)

    def _send_chain(self, step_id: StepId) -> None:
        ticket = self._tickets.get(step_id)
        if ticket is not None:
            hashes, stride = ticket.prompt.all_hashes()
            chain = StepChain(step_id=step_id, session=ticket.step.session, hashes=hashes, hash_stride=stride)
            self._publish(Publish(self.subjects.gateway_word(), chain))

    def _publish(self, publish: Publish) -> None:
        """In order, soon, without making the caller wait."""
        self._outbox.append(publish)
        if self._sending is None:
            self._sending = asyncio.get_running_loop().create_task(self._send(), name="publish")
            self._sending.add_done_callback(self._ended)

    async def _send(self) -> None:
        try:
            while self._outbox:
                publish = self._outbox.popleft()
                await self._bus.publish(publish.subject, publish.message)
        finally:
            self._sending = None

    async def _request(self, subject: str, message: Message) -> None:
        try:
            answer = await self._bus.request(subject, message, REQUEST_TIMEOUT_S)
        except (BusUnavailable, MessageError):
            return  # the core asks again by itself
        self._receive(answer)

    async def _append(self, subject: str, message: Message, message_id: str) -> None:
        while True:
            try:
                await self._bus.append(subject, message, message_id)
            except BusTimeout:
                log.warning("step.end_unacknowledged", message_id=message_id)
                await asyncio.sleep(1.0)
            else:
                return

    def _ended(self, task: "asyncio.Task[None]") -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None and not self._failed.done():
            self._failed.set_exception(error)
            self._failed.exception()
