"""All cores of the step protocol in virtual time, on a network that loses, doubles, delays and reorders messages.

Not the laboratory: no engine model, one number per step says how long it takes. Used by `unit/protocol`.
"""

import fnmatch
import heapq
from collections.abc import Callable
from random import Random
from typing import Any

from saga.admission.state import AdmissionState
from saga.admission.worker_budgets import WorkerBudgets
from saga.contract.ids import GatewayId, PoolId, RootId, SessionId, StepId, TenantId, WorkerId, rid
from saga.contract.messages import CostModel, Grant, Message, StepReady, decode, encode
from saga.contract.subjects import Subjects
from saga.gateway.events import Completed, EngineDied, GaveUp, Progressed, Reject, Run, SendChain, Sending, Submitted
from saga.gateway.state import GatewayState
from saga.kernel.effects import Answer, Append, Log, Promoted, Publish, Received, Request, Tick, WakeAt
from saga.placement.policy import CheapestStart
from saga.placement.state import PlacementState
from saga.worker.events import (
    AbortRequest,
    Attached,
    CheckEngine,
    CloseTag,
    EngineFacts,
    EngineGone,
    LoadSeen,
    TagClosed,
)
from saga.worker.retention import POLICIES as RETENTION
from saga.worker.state import WorkerState

SUBJECTS = Subjects("test")
POOL = PoolId("model")
LEASE_S = 1.2  # of a leader


class Faults:
    """How bad the network is. Probabilities are per delivery."""

    def __init__(
        self,
        lose: float = 0.0,
        double: float = 0.0,
        late: float = 0.0,
        latest_s: float = 0.0,
        *,
        swallow: type[Message] | None = None,
    ) -> None:
        """`swallow`: no message of this kind arrives at all."""
        self.lose, self.double, self.late, self.latest_s = lose, double, late, latest_s
        self.swallow = swallow


class Party:
    """One process: a core, what it listens to, whether it lives."""

    def __init__(self, name: str, core: Any, subjects: list[str]) -> None:
        self.name, self.core, self.subjects = name, core, subjects
        self.alive = True


class Engine:
    """Runs requests for as long as they take. Remembers which steps run, to catch one that runs twice."""

    def __init__(self) -> None:
        self.alive = True
        self.running: dict[str, tuple[StepId, Party]] = {}
        self.open_tags: set[str] = set()


class World:
    """Events in virtual time, keyed (time, sequence)."""

    def __init__(self, seed: int, faults: Faults, *, workers: int = 2, gateways: int = 2, slots: int = 3) -> None:
        self.rng = Random(seed)
        self.faults = faults
        self.now_s = 100.0
        self._heap: list[tuple[float, int, Callable[[], None]]] = []
        self._sequence = 0
        self.ended: dict[StepId, str] = {}
        self.submitted: dict[StepId, Party] = {}
        self.violations: list[str] = []
        self.engines: dict[WorkerId, Engine] = {}
        self.parties: dict[str, Party] = {}
        self.slots = slots
        self._fence = 0
        self.leader: dict[str, str] = {}
        self.runs = 0
        for i in range(workers):
            self._add_worker(WorkerId(f"w{i}"))
        for i in range(gateways):
            gateway = GatewayState(GatewayId(f"g{i}"), SUBJECTS)
            name = f"g{i}"
            self._add(name, gateway, [SUBJECTS.gateway(GatewayId(name)), SUBJECTS.leader_hello()])
        for i in range(2):
            self.start_leader("admission", f"a{i}")
            self.start_leader("placement", f"p{i}")
        self.promote("admission", "a0")
        self.promote("placement", "p0")

    # --- building ----------------------------------------------------------------------------------------------

    def _add(self, name: str, core: Any, subjects: list[str]) -> Party:
        party = self.parties[name] = Party(name, core, subjects)
        self.at(self.now_s, lambda: self.tell(party, Tick()))
        return party

    def start_leader(self, service: str, name: str) -> None:
        """A standby starts empty and follows what the services' standbys follow."""
        s = SUBJECTS
        if service == "admission":
            core: Any = AdmissionState(s, WorkerBudgets())
            follows = [s.worker_presence(), s.leader_hello()]
        else:
            core = PlacementState(name, s, CheapestStart(), now_s=self.now_s)
            follows = [s.worker_presence(), s.leader_hello(), s.every_residency(), s.resync_inbox(name)]
        self._add(name, core, follows)

    def promote(self, service: str, name: str) -> None:
        """The lease in KV is this one's now."""
        s = SUBJECTS
        self._fence += 1
        self.leader[service] = name
        party = self.parties[name]
        party.subjects += [s.every_lease(), s.every_step_end(), s.gateway_word()]
        if service == "admission":
            party.subjects += [s.step_ready(), s.every_gateway(), s.every_forecast(), s.placement_word()]
        else:
            party.subjects += [s.step_admitted(), s.every_sessions_released()]
        self.tell(party, Promoted(self._fence))

    def _add_worker(self, worker_id: WorkerId) -> None:
        s = SUBJECTS
        self.engines[worker_id] = Engine()
        core = WorkerState(
            worker_id, f"http://{worker_id}", s, RETENTION["tags"](300.0, 300.0), Random(1), lease_ttl_s=5.0
        )
        subjects = [s.lease(worker_id), s.leases_renewed(worker_id), s.step_ends_at(worker_id)]
        subjects += [s.sessions_released(worker_id), s.resync(worker_id)]
        party = self._add(worker_id, core, subjects)
        self.attach(party)

    def attach(self, party: Party) -> None:
        """The agent finds its engine up."""
        facts = EngineFacts(
            model=POOL,
            page_tokens=16,
            kv_tokens=10_000,
            context_tokens=5_000,
            max_running=self.slots,
            session_tags=True,
            cost=CostModel(prompt_s_per_token=1e-4, output_s_per_token=1e-3),
        )
        self.tell(party, Attached(facts, int(self.now_s * 1000)))

    # --- the loop ----------------------------------------------------------------------------------------------

    def at(self, at_s: float, act: Callable[[], None]) -> None:
        self._sequence += 1
        heapq.heappush(self._heap, (at_s, self._sequence, act))

    def run_until(self, end_s: float) -> None:
        while self._heap and self._heap[0][0] <= end_s:
            self.now_s, _, act = heapq.heappop(self._heap)
            act()
        self.now_s = end_s

    def tell(self, party: Party, event: Any) -> None:
        """The party handles an event; its effects happen; its invariants hold."""
        if not party.alive:
            return
        effects = party.core.handle(event, self.now_s)
        party.core.check()
        for effect in effects:
            self._perform(party, effect)

    def _perform(self, party: Party, effect: Any) -> None:
        match effect:
            case WakeAt(at_s):
                self.at(max(at_s, self.now_s + 1e-6), lambda: self.tell(party, Tick()))
            case Publish(subject, message):
                self._send(subject, message)
            case Append(subject, message):
                self._append(party, subject, message)
            case Request(subject, message):
                self._send(subject, message, asker=party)
            case Answer(message):
                if self._asker is not None:
                    self._deliver(self._asker, message)
            case Run(step_id, _, grant):
                self.at(self.now_s + 0.001, lambda: self._run(party, step_id, grant))
            case Reject(step_id, reason):
                self.ended[step_id] = f"rejected: {reason}"
            case SendChain() | Log() | CheckEngine():
                pass
            case AbortRequest(request_id):
                self._abort(WorkerId(party.name), request_id)
            case CloseTag(tag):
                self.engines[WorkerId(party.name)].open_tags.discard(tag)
                self.at(self.now_s, lambda: self.tell(party, TagClosed(tag)))
            case _:  # Persist, Forget: the table in KV is tested with the service
                pass

    # --- the network -------------------------------------------------------------------------------------------

    _asker: Party | None = None

    def _send(self, subject: str, message: Message, asker: Party | None = None) -> None:
        for party in list(self.parties.values()):
            if party.alive and any(_matches(pattern, subject) for pattern in party.subjects):
                self._deliver(party, message, asker)

    def _append(self, sender: Party, subject: str, message: Message) -> None:
        """Durable: stored once acknowledged, sent again until then; its followers still hear it at most once each."""
        self._send(subject, message)
        if self.rng.random() < self.faults.lose:
            self.at(self.now_s + 0.5, lambda: self._append(sender, subject, message) if sender.alive else None)

    def _deliver(self, party: Party, message: Message, asker: Party | None = None) -> None:
        if self.faults.swallow is not None and isinstance(message, self.faults.swallow):
            return
        copies = 0 if self.rng.random() < self.faults.lose else 1
        copies += self.rng.random() < self.faults.double
        payload = encode(message)
        for _ in range(copies):
            delay_s = self.rng.uniform(0.0002, 0.001)
            if self.rng.random() < self.faults.late:
                delay_s += self.rng.uniform(0.0, self.faults.latest_s)
            self.at(self.now_s + delay_s, lambda: self._arrive(party, payload, asker))

    def _arrive(self, party: Party, payload: bytes, asker: Party | None) -> None:
        self._asker = asker
        self.tell(party, Received(decode(payload)))
        self._asker = None

    # --- clients and engines -----------------------------------------------------------------------------------

    def submit(self, number: int, gateway: str, *, gone_after_s: float | None = None) -> StepId:
        """A client sends a step of one of a few workflows."""
        step_id = StepId(f"{number:032x}")
        root = f"r{number % 5}"
        step = StepReady(
            step_id=step_id,
            attempt=0,
            gateway_id=GatewayId(gateway),
            tenant=TenantId(f"t{number % 2}"),
            root=RootId(root),
            session=SessionId(f"{root}-s{number % 2}"),
            pool=POOL,
            prompt_tokens=1_000 + 37 * number % 2_000,
            max_output_tokens=100,
            page_tokens=16,
        )
        party = self.parties[gateway]
        self.submitted[step_id] = party
        self.tell(party, Submitted(step))
        if gone_after_s is not None:
            self.at(self.now_s + gone_after_s, lambda: self._client_gone(party, step_id))
        return step_id

    def _client_gone(self, party: Party, step_id: StepId) -> None:
        if step_id in self.ended or not party.alive:
            return
        self.ended[step_id] = "client gone"
        for worker_id, engine in self.engines.items():
            for request_id in [r for r, (s, p) in engine.running.items() if s == step_id and p is party]:
                self._abort(worker_id, request_id, tell=False)
        self.tell(party, GaveUp(step_id))

    def _run(self, party: Party, step_id: StepId, grant: Grant) -> None:
        if not party.alive:
            return
        self.tell(party, Sending(step_id, grant))
        if not party.core.holds(step_id, grant):
            return
        engine = self.engines[grant.worker_id]
        if not engine.alive:
            self.tell(party, EngineDied(step_id, 0))
            return
        for other in self.engines.values():
            if any(running == step_id for running, _ in other.running.values()):
                self.violations.append(f"{step_id} runs twice at {self.now_s:.3f}")
        request_id = rid(step_id, grant.attempt)
        engine.running[request_id] = (step_id, party)
        if grant.session_tag:
            engine.open_tags.add(grant.session_tag)
        self.runs += 1
        run_s = self.rng.uniform(0.05, 4.0)
        self.at(self.now_s + 0.03, lambda: self.tell(party, Progressed(step_id, 1)))
        self.at(self.now_s + run_s, lambda: self._done(grant.worker_id, request_id))

    def _done(self, worker_id: WorkerId, request_id: str) -> None:
        step_id, party = self.engines[worker_id].running.pop(request_id, (None, None))
        if step_id is None or party is None or not party.alive:
            return
        self.ended[step_id] = "finished"
        self.tell(
            party,
            Completed(step_id=step_id, prompt_tokens=100, output_tokens=10, cached_tokens=0, finish_reason="stop"),
        )

    def _abort(self, worker_id: WorkerId, request_id: str, *, tell: bool = True) -> None:
        step_id, party = self.engines[worker_id].running.pop(request_id, (None, None))
        if tell and step_id is not None and party is not None:
            self.tell(party, EngineDied(step_id, 0))

    # --- deaths ------------------------------------------------------------------------------------------------

    def kill_leader(self, service: str) -> None:
        """The leader dies; its standby notices when the lease has run out; a new standby is started."""
        name = self.leader[service]
        self.parties.pop(name).alive = False
        standby = next(n for n in self.parties if n[0] == service[0] and n[1:].isdigit())
        self.at(self.now_s + LEASE_S, lambda: self.promote(service, standby))
        fresh = f"{service[0]}{self._sequence}"
        self.at(self.now_s + 0.5, lambda: self.start_leader(service, fresh))

    def kill_engine(self, worker_id: WorkerId) -> None:
        """The engine dies with all it runs, and is back after two seconds."""
        engine, party = self.engines[worker_id], self.parties[worker_id]
        engine.alive = False
        victims, engine.running = engine.running, {}
        engine.open_tags.clear()
        for step_id, owner in victims.values():
            self.tell(owner, EngineDied(step_id, 3))
        self.at(self.now_s + 0.3, lambda: self.tell(party, EngineGone()))
        self.at(self.now_s + 2.0, lambda: self._engine_back(worker_id))

    def _engine_back(self, worker_id: WorkerId) -> None:
        self.engines[worker_id].alive = True
        self.attach(self.parties[worker_id])
        self.tell(self.parties[worker_id], LoadSeen(0, 0, 0))

    def kill_gateway(self, name: str) -> None:
        """The gateway dies; its clients' steps die with it, and its requests once nobody renews their leases."""
        self.parties.pop(name).alive = False

    def heal(self) -> None:
        """From here on the network is good."""
        self.faults = Faults()


def _matches(pattern: str, subject: str) -> bool:
    if pattern.endswith(">"):
        return subject.startswith(pattern[:-1])
    return pattern == subject or ("*" in pattern and fnmatch.fnmatchcase(subject, pattern))
