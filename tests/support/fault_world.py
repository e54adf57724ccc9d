"""All cores of a cell in virtual time, made as their services make them, and the faults that befall them.

Not the laboratory: no engine model and no policies to compare, but every way to lose a message or a process. Used by
`unit/protocol` and `faults/seeds_run.py`.
"""

from collections.abc import Callable
from functools import partial
from random import Random
from typing import Any

from fault_agent import Agent
from fault_clients import Clients
from fault_engine import Engine
from fault_gateway import Gateway
from fault_invariants import Invariants
from fault_life import Clocks
from fault_network import Network
from fault_process import Process
from fault_schedule import Cut, Fault, Kill, Noise, Pause, Skew
from fault_shares import Shares
from fault_store import Candidate, Store, Table
from msgspec.structs import replace

from saga.admission import making as admission
from saga.admission.events import Loaded as RowsLoaded
from saga.contract.ids import GatewayId, WorkerId
from saga.contract.subjects import Subjects
from saga.gateway import making as gateway
from saga.graph import making as graph
from saga.graph.events import Loaded as ModelLoaded
from saga.graph.events import Owned, Replayed
from saga.graph.partitions import PARTITIONS
from saga.kernel.effects import Answer, Append, Publish, Request, Tick
from saga.placement import making as placement
from saga.sim.agenda import Agenda
from saga.worker import making as worker

CELL = "faults"
NOTICE_S = 6.0  # until a gateway's TCP notices that nobody answers at the other end
DRIFT = 5e-4  # of monotonic clocks, at most
STARTED_S = 0.5  # from a process's start to its subscriptions


class World:
    """A cell of three workers, two gateways, a graph, and two candidates for each lead."""

    def __init__(self, seed: int, *, workers: int = 3, gateways: int = 2) -> None:
        self.agenda = Agenda()
        self.rng = Random(f"world/{seed}")
        self.subjects = Subjects(CELL)
        self.invariants = Invariants()
        self.network = Network(self.agenda, Random(f"network/{seed}"), self.role_of)
        self.store = Store(self.network)
        self.candidates: dict[str, Candidate] = {}  # by process name
        self.gateways: dict[str, Gateway] = {}
        self.agents: dict[str, Agent] = {}
        self.engines = {f"w{i}": Engine(f"e{i}", self.network) for i in range(workers)}
        self.shares = Shares(lambda: self.agenda.now_s, self.engines)
        self.graph: Process | None = None
        self._clocks: dict[str, Clocks] = {}
        self._journals: dict[str, dict[str, bytes]] = {name: {} for name in self.engines}
        self._started = 0
        for service in ("admission", "placement"):
            for _ in range(2):
                self.start_candidate(service)
        self.start_graph()
        for number in range(gateways):
            self.start_gateway(f"g{number}")
        for name in self.engines:
            self.start_agent(name)

    # --- processes ---------------------------------------------------------------------------------------------

    def processes(self) -> list[Process]:
        """All that live."""
        found = [c.process for c in self.candidates.values()]
        found += [g.process for g in self.gateways.values()] + [a.process for a in self.agents.values()]
        return found + ([self.graph] if self.graph is not None else [])

    def clocks(self, name: str) -> Clocks:
        """Of the machine that this process runs on."""
        if name not in self._clocks:
            rng = Random(f"{self.rng.random()}")
            self._clocks[name] = Clocks(rng.uniform(0.0, 1e5), 1.0 + rng.uniform(-DRIFT, DRIFT))
        return self._clocks[name]

    def _process(self, name: str, core: Any, *, ticks_away: bool = False) -> Process:
        process = Process(name, core, self.agenda, self.clocks(name), ticks_away=ticks_away)
        network = self.network
        process.after = self.invariants.after
        process.acts |= {
            Publish: lambda effect: network.publish(process, effect.subject, effect.message),
            Append: lambda effect: network.append(process, effect.subject, effect.message),
            Request: lambda effect: network.publish(process, effect.subject, effect.message, asker=process),
            Answer: lambda effect: process.asker and network.answer(process, process.asker, effect.message),
        }
        return process

    def _began(self, process: Process) -> None:
        self.agenda.after(0.0, process.tell, Tick())

    def start_candidate(self, service: str) -> None:
        """One more for this lead."""
        s, self._started = self.subjects, self._started + 1
        name = f"{service[0]}{self._started}"
        clocks, now_s = self.clocks(name), self.agenda.now_s
        follows = [s.worker_presence(), s.leader_hello(), s.worker_standing()]
        leads_on = [s.every_lease(), s.every_step_end(), s.gateway_word()]
        if service == "admission":
            wall_offset_s = clocks.wall_s(now_s) - clocks.monotonic_s(now_s)
            process = self._process(name, admission.make_core(_admission(wall_offset_s)))
            table = Table(process, self.store, "workflows", self.network)
            leads_on += [s.step_ready(), s.every_gateway(), s.every_forecast(), s.placement_word(), s.workflow_ended()]
            before: Callable[[], None] = lambda: process.tell(RowsLoaded(table.rows()))  # noqa: E731
            after = table.drop
        else:
            process = self._process(name, placement.make_core(_placement(name, clocks.monotonic_s(now_s))))
            follows += [s.every_residency(), s.resync_inbox(name)]
            leads_on += [s.step_admitted(), s.every_sessions_released()]
            before, after = _nothing, _nothing
        self.network.subscribe(process, follows)
        candidate = Candidate(process, service, self.store, self.network, leads_on, before=before, after=after)
        process.hears = candidate.heard
        self.candidates[name] = candidate
        self._began(process)

    def start_gateway(self, name: str) -> None:
        """Under this name, which another may have had."""
        s = self.subjects
        core = gateway.make_core(gateway.Making(cell=CELL, gateway_id=GatewayId(name)))
        process = self._process(name, core, ticks_away=True)
        process.reconnects = False
        violations = self.invariants.violations
        self.gateways[name] = Gateway(process, s, self.network, self.engines, self.shares, violations)
        self.network.subscribe(process, [s.gateway(GatewayId(name)), s.leader_hello(), s.worker_presence()])
        self._began(process)

    def start_agent(self, name: str) -> None:
        """Beside the engine of the same number."""
        s, worker_id = self.subjects, WorkerId(name)
        process = self._process(name, worker.make_core(_worker(worker_id, self.rng.random())), ticks_away=True)
        subjects = [s.lease(worker_id), s.leases_renewed(worker_id), s.step_ends_at(worker_id)]
        subjects += [s.sessions_released(worker_id), s.forecast(worker_id), s.resync(worker_id)]
        self.network.subscribe(process, subjects)
        self.agents[name] = Agent(process, self.engines[name], self.network, self._journals[name])
        self._began(process)

    def start_graph(self) -> None:
        """From what is stored, and the stream."""
        s = self.subjects
        process = self.graph = self._process("graph", graph.make_core(graph.Making(cell=CELL, forecast="saga")))
        process.reconnects = False
        table = Table(process, self.store, "graph", self.network)
        for row in table.rows():
            process.tell(ModelLoaded(row))
        for message in self.network.stream[-200:]:
            process.tell(Replayed(message))
        process.tell(Owned(frozenset(range(PARTITIONS))))
        self.network.subscribe(process, [s.every_step_end(), s.step_ready(), s.workflow_ended()])
        self._began(process)

    def leader(self, service: str) -> Candidate | None:
        """Whoever holds the lease and lives."""
        lease = self.store.leases.get(service)
        return self.candidates.get(lease.holder.name) if lease is not None else None

    def role_of(self, name: str) -> str:
        """`admission`, `placement`, their standbys, or the name itself."""
        candidate = self.candidates.get(name)
        if candidate is None:
            return name
        leads = self.leader(candidate.service) is candidate
        return candidate.service if leads else f"{candidate.service}-standby"

    # --- faults ------------------------------------------------------------------------------------------------

    def befall(self, faults: tuple[Fault, ...], from_s: float) -> None:
        """Let these happen, their times counted from then."""
        for fault in faults:
            self.agenda.at(from_s + fault.at_s, self._happen, fault)

    def _happen(self, fault: Fault) -> None:
        match fault:
            case Noise():
                self.network.disturb(fault)
            case Kill():
                self.kill(fault.victim, fault.down_s, silent=fault.silent)
            case Pause():
                life = self._life(fault.victim)
                if life is not None and not life.stopped:
                    life.stop()
                    self.agenda.after(fault.for_s, lambda _: life.go_on(), None)
            case Cut(other="bus"):
                cut_off = [p for p in self.processes() if fault.one in ("*", p.name, self.role_of(p.name))]
                for process in cut_off:
                    self._cut_off(process, fault.for_s)
            case Cut():
                self.network.cut(replace(fault, one=self._named(fault.one), other=self._named(fault.other)))
                self.agenda.after(NOTICE_S, self._notice, None)
            case Skew():
                self.clocks(self._named(fault.victim)).wall_offset_s += fault.wall_s

    def _notice(self, _: None) -> None:
        """A wire has been cut for so long that gateways give up the connections over it."""
        for asked in self.gateways.values():
            for worker_id, engine in self.engines.items():
                if self.network.divided(asked.process.name, engine.name):
                    asked.process.life.do(partial(asked.link_died, worker_id))

    def kill(self, victim: str, down_s: float, *, silent: bool = False) -> None:
        """kill -9, and a new one after `down_s`. `silent`: so that nobody notices a broken connection; of a worker or
        its engine: the machine of both."""
        name = self._named(victim)
        again: Callable[[str], None] | None = None
        if name in self.candidates:
            candidate = self.candidates.pop(name)
            self._end(candidate.process)
            self.agenda.after(down_s, self.start_candidate, candidate.service)
        elif name in self.gateways:
            dead = self.gateways.pop(name)
            dead.die(silent=silent)
            self._end(dead.process)
            again = self.start_gateway
        elif name == "graph" and self.graph is not None:
            self._end(self.graph)
            self.graph = None
            self.agenda.after(down_s, lambda _: self.start_graph(), None)
        elif name[0] in "we":
            worker_name = f"w{name[1:]}"
            if (name[0] == "w" or silent) and worker_name in self.agents:
                self._end(self.agents.pop(worker_name).process)
                self.engines[worker_name].on_change = _nothing
                again, name = self.start_agent, worker_name
            if name[0] == "e" or silent:
                self._kill_engine(self.engines[worker_name], down_s, silent=silent)
        if again is not None:
            self.agenda.after(down_s, again, name)

    def _kill_engine(self, engine: Engine, down_s: float, *, silent: bool) -> None:
        if engine.life.alive:
            engine.die(silent=silent, notice_s=min(down_s, NOTICE_S))  # a machine that is back resets connections
            self.agenda.after(down_s, lambda _: engine.start(), None)

    def _end(self, process: Process) -> None:
        process.life.end()
        self.network.leave(process)

    def _cut_off(self, process: Process, for_s: float) -> None:
        if process.away:
            return
        self.network.away(process)
        agent = self.agents.get(process.name)
        if agent is not None and agent.process is process:
            agent.bus_away()
        self.agenda.after(for_s, self.network.back, process)

    def _named(self, role: str) -> str:
        """Who is that now; the role itself when it is nobody."""
        return next((name for name in self.candidates if self.role_of(name) == role), role)

    def _life(self, victim: str) -> Any:
        name = self._named(victim)
        if name[0] == "e":
            return self.engines[f"w{name[1:]}"].life
        return next((process.life for process in self.processes() if process.name == name), None)

    def users(self, users: dict[str, int], stop_s: float) -> Clients:
        """Let these run workflows."""
        return Clients(self.agenda, self.rng, lambda: self.gateways, users, stop_s)

    def run_until(self, at_s: float) -> None:
        """Until then."""
        self.agenda.run(at_s)
        self.agenda.now_s = max(self.agenda.now_s, at_s)


def _admission(wall_offset_s: float) -> admission.Making:
    return admission.Making(
        cell=CELL, policy="saga", wall_offset_s=wall_offset_s, max_waiting_steps=10_000, max_wait_s=600.0, weights={}
    )


def _placement(name: str, born_s: float) -> placement.Making:
    return placement.Making(
        cell=CELL, holder_id=name, policy="saga", lookahead_steps=1, supersede=True, stealing="saga", born_s=born_s
    )


def _worker(worker_id: WorkerId, seed: float) -> worker.Making:
    return worker.Making(
        cell=CELL,
        worker_id=worker_id,
        engine_url=f"http://{worker_id}",
        retention="saga",
        tag_ttl_s=60.0,
        tag_cap_s=300.0,
        lease_ttl_s=6.0,
        resync_jitter_s=0.2,
        seed=f"{seed}",
        prefetch="saga",
    )


def _nothing() -> None:
    """Nobody cares."""
