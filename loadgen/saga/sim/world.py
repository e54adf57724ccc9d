"""The mesh in virtual time: the cores of the live services, joined by a network with constant delays.

One gateway, one leading admission, one leading placement, one graph, and an agent with an engine for each worker. A
message reaches its followers by a table from subjects to parties; nothing is encoded. What clients do is `clients`.
"""

from collections.abc import Callable, Sequence
from random import Random
from typing import Any

from msgspec import Struct

from saga.admission.events import TenantChanged
from saga.admission.state import AdmissionState
from saga.contract.ids import GatewayId, TenantId, WorkerId
from saga.contract.messages import Message
from saga.contract.subjects import Subjects
from saga.engine.profile import Profile
from saga.engine.settings import EngineSettings
from saga.engine.shared_tier import SharedTier
from saga.gateway.events import EndPrefetch, Prefetch, Reject, Run, SendChain
from saga.gateway.state import GatewayState
from saga.graph.state import GraphState
from saga.kernel.effects import Answer, Append, Forget, Log, Persist, Promoted, Publish, Received, Request, Tick, WakeAt
from saga.placement.preemption import WhenItPays
from saga.placement.state import PlacementState
from saga.sim.agenda import Agenda
from saga.sim.engines import EngineHost
from saga.sim.party import Gone, Party
from saga.sim.systems.registry import System
from saga.worker.events import AbortRequest, Attached, CheckEngine, CloseTag, LoadSeen, SetRetention
from saga.worker.state import WorkerState

CELL = "sim"
GATEWAY = GatewayId("g0")
LEASE_TTL_S = 6.0  # as the agents' default
POLL_S = 5.0  # agents look at their engine; live twice a second
BEAT_S = 2.5  # of the gateway; live 1 s. Nothing is lost here, so it says nothing new; steps that nobody names live 5 s


class Upkeep(Struct, frozen=True):
    """How often parties say that they are there, in seconds. Live: 1, 3, 1."""

    heartbeat_s: float
    worker_silent_s: float
    idle_tick_s: float


WATCHFUL = Upkeep(2.5, 3.0, 1.0)  # where workers die
# Where none does, nobody needs to notice it. Recorded sessions are idle for hours: most of a run was this.
CAREFREE = Upkeep(60.0, 180.0, 60.0)


class Delays(Struct, frozen=True):
    """One-way times in seconds. Assumed, not yet measured on the live mesh; the KV bound has none."""

    message_s: float = 0.0003  # a message over NATS with its handling
    engine_s: float = 0.0005  # a request or an answer over HTTP


NO_DELAYS = Delays(0.0, 0.0)


class World:
    """All parties but the clients. `on_run`, `on_reject`, ...: what the gateway's core asks of its shell."""

    def __init__(
        self,
        agenda: Agenda,
        system: System,
        profile: Profile,
        workers: int,
        seed: int,
        *,
        weights: dict[str, float],
        delays: Delays,
        engine: EngineSettings | None = None,
        speed: float = 1.0,
        upkeep: Upkeep = WATCHFUL,
        others: Sequence[tuple[Profile, EngineSettings]] = (),
        late: int = 0,
        shared: SharedTier | None = None,
    ) -> None:
        """`engine`: settings of every engine; those of the system's retention when None. `speed`: engine-seconds per
        second, as of engines behind a live mesh. `others`: further workers, of other profiles. `late`: so many of the
        first, the last of them, are not there before `join`. `shared`: a KV tier behind the host tiers of all."""
        self.shared = shared
        self._speed = speed
        self._upkeep = upkeep
        self._seed = seed
        self.agenda = agenda
        self.delays = delays
        self.on_run: Callable[[Run], None] = _nobody
        self.on_reject: Callable[[Reject], None] = _nobody
        self.on_chain: Callable[[SendChain], None] = _nobody
        self.on_prefetch: Callable[[Prefetch | EndPrefetch], None] = _nobody
        self.ears: dict[type[Message], Callable[[Any], None]] = {}  # who overhears what
        self._subjects = subjects = Subjects(CELL)
        self._system = system
        self._routes: dict[tuple[str, type[Message]], tuple[Party, ...]] = {}
        self._acts: dict[type, Callable[[Party, Any], None]] = {
            WakeAt: Party.wake_at,
            Publish: self._publish,
            Append: self._publish,
            Request: self._publish,
            Answer: self._answer,
            Run: lambda _, effect: self.on_run(effect),
            Reject: lambda _, effect: self.on_reject(effect),
            SendChain: lambda _, effect: self.on_chain(effect),
            Prefetch: lambda _, effect: self.on_prefetch(effect),
            EndPrefetch: lambda _, effect: self.on_prefetch(effect),
            CloseTag: self._close_tag,
            AbortRequest: self._abort,
            SetRetention: self._set_retention,
            Log: _ignore,
            Persist: _ignore,
            Forget: _ignore,
            CheckEngine: _ignore,
        }
        self.gateway = self._party("gateway", GatewayState(GATEWAY, subjects, BEAT_S))
        admission = AdmissionState(
            subjects,
            system.active_set(),
            system.order(),
            system.rank(),
            weights={TenantId(tenant): weight for tenant, weight in weights.items()},
            worker_silent_s=upkeep.worker_silent_s,
            idle_tick_s=upkeep.idle_tick_s,
            speed=speed,
        )
        self.admission = self._party("admission", admission)
        placement = PlacementState(
            "p0",
            subjects,
            system.placement(),
            system.stealing(seed),
            preemption=WhenItPays() if system.preempts else None,
            lookahead=1,
            supersede=system.supersede,
            worker_silent_s=upkeep.worker_silent_s,
            idle_tick_s=upkeep.idle_tick_s,
        )
        self.placement = self._party("placement", placement)
        forecasts = system.forecasts()
        self.graph = self._party("graph", GraphState(subjects, forecasts) if forecasts is not None else Gone())
        self.workers: dict[WorkerId, Party] = {}
        self.engines: dict[WorkerId, EngineHost] = {}
        self._epochs: dict[WorkerId, int] = {}
        self._seen: dict[WorkerId, LoadSeen] = {}
        tags = system.retention().tags
        for number in range(workers):
            self._add_worker(WorkerId(f"w{number}"), profile, engine or EngineSettings(session_radix_cache=tags))
        for number, (other, its) in enumerate(others, workers):
            self._add_worker(WorkerId(f"w{number}"), other, its)
        self._late = tuple(WorkerId(f"w{number}") for number in range(workers - late, workers))
        self._lead()

    # --- building ----------------------------------------------------------------------------------------------

    def _party(self, name: str, core: Any) -> Party:  # noqa: ANN401 - each core has its own events
        return Party(name, core, self.agenda, self._acts)

    def _add_worker(self, worker_id: WorkerId, profile: Profile, engine: EngineSettings) -> None:
        party = self.workers[worker_id] = self._party(worker_id, self._agent(worker_id))
        first = next(iter(self.engines.values()), None)
        pool = first.core.pool if first is not None and self._system.shared_kv else None
        self.engines[worker_id] = EngineHost(
            self.agenda,
            profile,
            party,
            engine=engine,
            delay_s=self.delays.engine_s,
            pool=pool,
            speed=self._speed,
            shared=self.shared,
        )

    def _agent(self, worker_id: WorkerId) -> WorkerState:
        return WorkerState(
            worker_id,
            f"sim://{worker_id}",
            self._subjects,
            self._system.retention(),
            Random(f"{self._seed}/{worker_id}"),
            lease_ttl_s=LEASE_TTL_S,
            heartbeat_s=self._upkeep.heartbeat_s,
            prefetch=self._system.prefetch(),
        )

    def _lead(self) -> None:
        for party in (self.gateway, self.admission, self.placement, self.graph):
            party.tell(Tick())
        for tenant, terms in self._system.terms.items():
            self.admission.tell(TenantChanged(TenantId(tenant), terms))
        self.admission.tell(Promoted(1))
        self.placement.tell(Promoted(1))
        for worker_id in self.workers:
            if worker_id not in self._late:
                self._start(worker_id)

    def join(self) -> None:
        """The late workers are there now, empty."""
        for worker_id in self._late:
            self._start(worker_id)
        self._late = ()

    def _start(self, worker_id: WorkerId) -> None:
        self._attach(worker_id, self.workers[worker_id])
        self.agenda.after(POLL_S, self._poll, worker_id)

    def _attach(self, worker_id: WorkerId, party: Party) -> None:
        epoch = self._epochs[worker_id] = self._epochs.get(worker_id, 0) + 1
        self._seen.pop(worker_id, None)
        party.tell(Attached(self.engines[worker_id].facts, epoch))

    # --- workers that die --------------------------------------------------------------------------------------

    def lose(self, number: int, for_s: float) -> None:
        """The machine of worker `number` fails now: engine, KV and agent. Another takes its place after `for_s`.

        Nobody says so: gateways find their connections broken, the leaders miss its heartbeats.
        """
        worker_id = WorkerId(f"w{number}")
        engine, party = self.engines[worker_id], self.workers[worker_id]
        if engine.down:
            return
        party.replace(Gone())
        engine.die(keep_kv=self._system.shared_kv)
        self.agenda.after(for_s, self._return, worker_id)

    def _return(self, worker_id: WorkerId) -> None:
        self.engines[worker_id].start_anew()
        party = self.workers[worker_id]
        party.replace(self._agent(worker_id))
        self._attach(worker_id, party)

    def _poll(self, worker_id: WorkerId) -> None:
        engine = self.engines[worker_id].core
        seen = LoadSeen(engine.running, engine.waiting, engine.pool.used_tokens)
        if self._seen.get(worker_id) != seen:
            self._seen[worker_id] = seen
            self.workers[worker_id].tell(seen)
        self.agenda.after(POLL_S, self._poll, worker_id)

    # --- the network -------------------------------------------------------------------------------------------

    def publish(self, publish: Publish) -> None:
        """Send a message: it arrives after the delay, at each follower of its subject in turn."""
        self._publish(self.gateway, publish)

    def _publish(self, _: Party, effect: Publish | Append | Request) -> None:
        self.agenda.after(self.delays.message_s, self._deliver, (effect.subject, effect.message))

    def _deliver(self, post: tuple[str, Message]) -> None:
        subject, message = post
        route = (subject, type(message))
        parties = self._routes.get(route)
        if parties is None:
            parties = self._routes[route] = self._followers(subject)
        received = Received(message)
        for party in parties:
            party.tell(received)
        ear = self.ears.get(type(message))
        if ear is not None:
            ear(message)

    def _followers(self, subject: str) -> tuple[Party, ...]:
        """As the live services subscribe; see `docs/evaluation.md`."""
        kind, _, rest = subject.removeprefix(f"saga.{CELL}.").partition(".")
        last = WorkerId(rest.rpartition(".")[2])
        here = (self.workers[last],) if last in self.workers else ()
        match kind, rest:
            case "admission", "ready":
                return (self.admission, self.graph)
            case "admission", _:
                return (self.admission,)
            case "placement", _:
                return (self.placement,)
            case "gateway", _:
                return (self.gateway, self.admission)
            case "lease", _:
                return (*here, self.admission, self.placement)
            case "renewed", _:
                return here
            case "step", _:
                return (*here, self.admission, self.placement, self.graph)
            case "leaders", "hello":
                return (self.gateway, self.admission, self.placement)
            case ("leaders", _) | ("worker", "presence"):
                return (self.admission, self.placement)
            case "worker", _:
                return (*here, self.placement)
            case "forecast", _:
                return (*here, self.admission)
            case "residency", _ if rest.startswith("resync"):
                return here
            case "residency", _:
                return (self.placement,)
            case _:
                raise AssertionError(f"nobody follows {subject}")

    def _answer(self, _: Party, effect: Answer) -> None:
        self.agenda.after(self.delays.message_s, self.gateway.tell, Received(effect.message))

    # --- agents and engines ------------------------------------------------------------------------------------

    def _close_tag(self, party: Party, effect: CloseTag) -> None:
        self.agenda.after(self.delays.engine_s, self.engines[WorkerId(party.name)].close_tag, effect.tag)

    def _abort(self, party: Party, effect: AbortRequest) -> None:
        self.agenda.after(self.delays.engine_s, self.engines[WorkerId(party.name)].abort, effect.rid)

    def _set_retention(self, party: Party, effect: SetRetention) -> None:
        host = self.engines[WorkerId(party.name)]
        self.agenda.after(self.delays.engine_s, host.set_retention, (effect.tag, effect.value))

    def check(self) -> None:
        """Assert the invariants of every core."""
        for party in (self.gateway, self.admission, self.placement, self.graph, *self.workers.values()):
            party.core.check()
        if not self._system.shared_kv:
            for engine in self.engines.values():
                engine.core.check()
        if self.shared is not None:
            self.shared.check()


def _ignore(_party: Party, _effect: object) -> None:
    """Logs, rows of tables in KV and looks at an engine that cannot die say nothing here."""


def _nobody(effect: object) -> None:
    raise AssertionError(f"no client is there for {effect}")
