"""The shell of a gateway in virtual time: tickets, exchanges with engines, and streams whose every token is counted.

As `http_desk`, `http_exchange` and `http_engine` do it: one attempt after the other, each goes on from the tokens that
its client has; a worker that says its engine died cuts its streams; what cannot go on is a typed error.
"""

from collections import deque
from collections.abc import Callable

from fault_engine import Connection, Engine, Request
from fault_network import Network
from fault_process import Process
from fault_shares import Shares

from saga.contract.ids import StepId, rid
from saga.contract.messages import Message, StepChain, StepReady, WorkerLeaving
from saga.contract.subjects import Subjects
from saga.gateway.events import Completed, EngineDied, GaveUp, Progressed, Reject, Run, SendChain, Sending, Submitted

CONNECT_S = 2.0
PROGRESS_EVERY_S = 2.0


class Stream:
    """What one client has of one answer, and how its step ended."""

    __slots__ = ("chain", "ended", "on_end", "resumable", "step", "tokens", "total")

    def __init__(
        self, step: StepReady, chain: bytes, total: int, on_end: "Callable[[Stream], None]", *, resumable: bool
    ) -> None:
        """`total`: tokens of the whole answer; `resumable`: whether another engine may go on in the middle of it."""
        self.step, self.chain, self.total = step, chain, total
        self.resumable = resumable
        self.tokens = 0
        self.ended = ""  # `answered`, or why not
        self.on_end = on_end

    def end(self, how: str) -> None:
        """Once."""
        assert not self.ended, f"{self.step.step_id} ended twice: {self.ended}, {how}"
        self.ended = how
        self.on_end(self)


class _Ticket:
    __slots__ = ("attempt", "begun_s", "connection", "news", "progress_s", "request_id", "stream", "worker_id")

    def __init__(self, stream: Stream) -> None:
        self.stream = stream
        self.news: deque[Run] = deque()
        self.attempt: Run | None = None  # that is under way
        self.connection: Connection | None = None
        self.request_id = ""
        self.worker_id = ""
        self.progress_s = 0.0
        self.begun_s = 0.0


class Gateway:
    """One incarnation. `violations`: where broken streams are told."""

    def __init__(
        self,
        process: Process,
        subjects: Subjects,
        network: Network,
        engines: dict[str, Engine],
        shares: Shares,
        violations: list[str],
    ) -> None:
        self.process = process
        self.tickets: dict[StepId, _Ticket] = {}
        self._subjects, self._network, self._engines = subjects, network, engines
        self._shares, self._violations = shares, violations
        process.hears = self._hears
        process.acts |= {
            Run: self._run,
            Reject: self._reject,
            SendChain: self._send_chain,
        }

    # --- clients -----------------------------------------------------------------------------------------------

    def submit(self, stream: Stream) -> None:
        """A client's request."""
        self.tickets[stream.step.step_id] = _Ticket(stream)
        self.process.tell(Submitted(stream.step))

    def client_gone(self, step_id: StepId) -> None:
        """The client has closed its connection."""
        ticket = self.tickets.pop(step_id, None)
        if ticket is None:
            return
        self._hang_up(ticket)
        ticket.stream.end("client gone")
        self.process.tell(GaveUp(step_id, ticket.stream.tokens))

    def die(self, *, silent: bool) -> None:
        """With all its connections. `silent`: engines do not notice."""
        self.process.life.end()
        tickets, self.tickets = list(self.tickets.values()), {}
        for ticket in tickets:
            if silent and ticket.connection is not None:
                ticket.connection.on_piece = lambda *_: None
                ticket.connection.on_end = lambda *_: None
                ticket.connection.on_broken = lambda: None
            else:
                self._hang_up(ticket)
            ticket.stream.end("gateway died")

    # --- the core's word ---------------------------------------------------------------------------------------

    def _hears(self, message: Message) -> bool:
        if not isinstance(message, WorkerLeaving):
            return False
        if message.engine_died:
            self.link_died(message.worker_id)
        return True

    def link_died(self, worker_id: str) -> None:
        """Nothing will come any more over the connections to its engine."""
        for ticket in list(self.tickets.values()):
            if ticket.worker_id == worker_id and ticket.connection is not None:
                self._lost(ticket)

    def _run(self, run: Run) -> None:
        ticket = self.tickets.get(run.step_id)
        if ticket is None:
            return
        self._shares.granted(ticket.stream.step, run.grant)
        if ticket.attempt is not None:
            self._violations.append(f"two attempts of {run.step_id} at once: {ticket.attempt.attempt}, {run.attempt}")
        ticket.news.append(run)
        self._next(ticket)

    def _reject(self, reject: Reject) -> None:
        ticket = self.tickets.pop(reject.step_id, None)
        if ticket is not None:
            ticket.stream.end(f"refused: {reject.reason}")

    def _send_chain(self, effect: SendChain) -> None:
        ticket = self.tickets.get(effect.step_id)
        if ticket is not None:
            chain = StepChain(step_id=effect.step_id, session=effect.session, hashes=ticket.stream.chain)
            self._network.publish(self.process, self._subjects.gateway_word(), chain)

    # --- an attempt --------------------------------------------------------------------------------------------

    def _next(self, ticket: _Ticket) -> None:
        if ticket.attempt is not None or not ticket.news:
            return
        run = ticket.attempt = ticket.news.popleft()
        ticket.worker_id = run.grant.worker_id
        engine = self._engines[run.grant.worker_id]
        name, life = self.process.name, self.process.life
        if self._network.divided(name, engine.name):
            self._network.agenda.after(CONNECT_S, life.do, lambda: self._unreached(ticket, run))
        elif not engine.life.alive:
            self._network.wire(engine.name, name, lambda: life.do(lambda: self._unreached(ticket, run)))
        else:
            self._network.wire(name, engine.name, lambda: life.do(lambda: self._connected(ticket, run, engine)))

    def _unreached(self, ticket: _Ticket, run: Run) -> None:
        if ticket.attempt is run and not ticket.stream.ended:
            # As live: the lease is looked at just before the first byte, and none was written.
            self.process.tell(EngineDied(run.step_id, ticket.stream.tokens))
            ticket.attempt = None
            self._next(ticket)

    def _connected(self, ticket: _Ticket, run: Run, engine: Engine) -> None:
        if ticket.attempt is not run or ticket.stream.ended:
            return
        self.process.tell(Sending(run.step_id, run.grant))
        if not self.process.core.holds(run.step_id, run.grant):
            ticket.attempt = None
            self._next(ticket)
            return
        stream, life = ticket.stream, self.process.life
        connection = ticket.connection = Connection(
            on_piece=lambda begin, end: life.do(lambda: self._piece(ticket, connection, begin, end)),
            on_end=lambda cached: life.do(lambda: self._complete(ticket, connection, cached)),
            on_broken=lambda: life.do(lambda: self._broken(ticket, connection)),
        )
        ticket.request_id = rid(run.step_id, run.attempt)
        ticket.begun_s = self.process.now_s()
        request = Request(
            ticket.request_id,
            self.process.name,
            connection,
            stream.chain,
            stream.step.prompt_tokens,
            run.grant.session_tag,
            stream.tokens,
            stream.total,
        )
        if engine.life.alive:
            incarnation = engine.life
            self._network.wire(self.process.name, engine.name, lambda: self._arrived(incarnation, engine, request))
        else:
            self._broken(ticket, connection)

    def _arrived(self, incarnation: object, engine: Engine, request: Request) -> None:
        if engine.life is incarnation and engine.life.alive:
            engine.life.do(lambda: engine.arrive(request))
        elif not request.connection.closed:
            request.connection.on_broken()

    def _piece(self, ticket: _Ticket, connection: Connection, begin: int, end: int) -> None:
        if ticket.connection is not connection:
            return
        stream = ticket.stream
        if begin != stream.tokens:
            told = "again" if begin < stream.tokens else "too early"
            self._violations.append(f"{stream.step.step_id}: token {begin} came {told}, the client has {stream.tokens}")
        first = stream.tokens == 0
        stream.tokens = end
        now_s = self.process.now_s()
        if first or now_s >= ticket.progress_s:
            ticket.progress_s = now_s + PROGRESS_EVERY_S
            self.process.tell(Progressed(stream.step.step_id, end))

    def _complete(self, ticket: _Ticket, connection: Connection, cached_tokens: int) -> None:
        if ticket.connection is not connection:
            return
        stream, connection.closed = ticket.stream, True
        step = stream.step
        self.tickets.pop(step.step_id, None)
        self._shares.answered(step, ticket.worker_id, cached_tokens, stream.total)
        stream.end("answered")
        if stream.tokens != stream.total:
            self._violations.append(f"{step.step_id}: answered with {stream.tokens} of {stream.total} tokens")
        self.process.tell(
            Completed(
                step_id=step.step_id,
                prompt_tokens=step.prompt_tokens,
                output_tokens=stream.total,
                cached_tokens=cached_tokens,
                finish_reason="stop" if step.final else "tool_calls",
                tools=() if step.final else ("search",),
                engine_s=self.process.now_s() - ticket.begun_s,
            )
        )

    def _broken(self, ticket: _Ticket, connection: Connection) -> None:
        if ticket.connection is connection:
            self._lost(ticket)

    def _lost(self, ticket: _Ticket) -> None:
        """The engine has gone under this attempt: go on elsewhere, or say why not."""
        self._hang_up(ticket)
        ticket.attempt = None
        stream = ticket.stream
        step_id = stream.step.step_id
        if stream.tokens > 0 and not stream.resumable:
            self.tickets.pop(step_id, None)
            stream.end("failed: not resumable")
            self.process.tell(GaveUp(step_id, stream.tokens, failed=True))
        else:
            self.process.tell(EngineDied(step_id, stream.tokens))
            self._next(ticket)

    def _hang_up(self, ticket: _Ticket) -> None:
        """Close the connection; the engine ends the request when it hears so."""
        connection, ticket.connection = ticket.connection, None
        if connection is None:
            return
        connection.closed = True
        engine, request_id = self._engines[ticket.worker_id], ticket.request_id
        life = engine.life
        self._network.wire(self.process.name, engine.name, lambda: life.do(lambda: engine.closed(request_id)))
