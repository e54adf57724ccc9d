"""A cell that is only spoken: what gateways, leaders, graph and workers would say of agents at work, from a seed.

For the console's tests, pictures and benchmark: the messages are the real ones in their real order, what they tell of
is a simple queueing model. `advance(now_s)` returns what is said until then; `SpokenCell.say` puts it on a bus.
"""

import asyncio
import hashlib
import heapq
from random import Random

from spoken_words import COST, GATEWAY, POOL, TASKS, TENANTS, TOOLS, Agent, Call, Engine, gateway_beat, heartbeat

from saga.contract.ids import LeaseId, RootId, SessionId, SessionTag, StepId, TenantId, WorkerId
from saga.contract.messages import (
    Forecast,
    Grant,
    Message,
    SessionsReleased,
    StepAdmitted,
    StepFinished,
    StepReady,
    Tag,
    TenantsAnswer,
    TenantsAsk,
)
from saga.contract.subjects import Subjects
from saga.contract.tenant_messages import TenantUse


class SpokenCell:
    """Agents, workers, and all that is said of them."""

    def __init__(
        self,
        *,
        workers: int = 4,
        workflows: int = 60,
        steps_per_s: float = 8.0,
        seed: int = 1,
        kv_tokens: int = 640_000,
        slots: int = 24,
        cell: str = "main",
        pressure: float = 1.0,
        sub_agents: float = 0.03,
    ) -> None:
        """`pressure`: contexts over KV; `sub_agents`: the probability that a step starts one."""
        self.random = Random(seed)
        self.subjects = Subjects(cell)
        self.engines = {f"w{n}": Engine(f"w{n}") for n in range(workers)}
        self.kv_tokens, self.slots = kv_tokens, slots
        self.cycle_s = workflows / steps_per_s
        self.mean_tokens = pressure * workers * kv_tokens / workflows
        self.sub_agents = sub_agents
        self.now_s = 0.0
        self.at = 0.0  # wall time of 0
        self.steps = 0
        self.said: list[tuple[str, Message]] = []
        self.waiting: list[Call] = []  # in admission
        self.agents: dict[RootId, Agent] = {}
        self._agenda: list[tuple[float, int, str, object]] = []
        self._number = 0
        self._born = 0
        for _ in range(workflows):
            self._later(self.random.uniform(0, self.cycle_s), "ready", self._agent(young=False))
        self._later(0.0, "second", None)

    # --- outside -----------------------------------------------------------------------------------------------

    def advance(self, now_s: float) -> list[tuple[str, Message]]:
        """What is said until then, by subject."""
        while self._agenda and self._agenda[0][0] <= now_s:
            self.now_s, _number, what, about = heapq.heappop(self._agenda)
            getattr(self, f"_{what}")(about)
        said, self.said = self.said, []
        return said

    async def say(self, bus, seconds: float, every_s: float = 0.02) -> None:
        """In real time, on a bus; tenants are answered for, too."""
        loop = asyncio.get_running_loop()
        began_s, first_s = loop.time(), self.now_s
        while (passed_s := loop.time() - began_s) < seconds:
            for subject, message in self.advance(first_s + passed_s):
                await bus.publish(subject, message)
            await asyncio.sleep(every_s)

    async def answer_tenants(self, bus):
        """As admission would."""

        async def answer(incoming):
            if isinstance(incoming.message, TenantsAsk):
                await incoming.respond(self.tenants(incoming.message))

        return await bus.subscribe(self.subjects.tenants_ask(), answer)

    def tenants(self, _ask: TenantsAsk) -> TenantsAnswer:
        """All of them on one page."""
        running = [call for engine in self.engines.values() for call in engine.running.values()]
        uses = []
        for name, weight in TENANTS:
            own = [agent for agent in self.agents.values() if agent.tenant == name]
            uses.append(
                TenantUse(
                    tenant=TenantId(name),
                    weight=weight,
                    active_workflows=sum(not agent.paused for agent in own),
                    running_steps=sum(call.agent.tenant == name for call in running),
                    waiting_steps=sum(call.agent.tenant == name for call in self.waiting),
                    kv_tokens=sum(agent.tokens for agent in own if agent.kept),
                    known_workflows=len(own),
                )
            )
        return TenantsAnswer(tenants=tuple(uses), more=False, fence=1)

    # --- inside ------------------------------------------------------------------------------------------------

    def _later(self, after_s: float, what: str, about: object) -> None:
        self._number += 1
        heapq.heappush(self._agenda, (self.now_s + after_s, self._number, what, about))

    def _agent(self, *, young: bool) -> Agent:
        rng = self.random
        self._born += 1
        tenant = rng.choices([name for name, _ in TENANTS], [5, 3, 2, 2, 1])[0]
        task = rng.choice(TASKS)
        root = RootId(f"{tenant}/{task}-{1000 + self._born}")
        tokens = int(self.mean_tokens * rng.uniform(0.2, 0.5 if young else 1.6))
        agent = Agent(
            root,
            SessionId(f"{root}/main"),
            SessionId(""),
            TenantId(tenant),
            hashlib.sha256(task.encode()).hexdigest()[:16],
            rng.randint(8, 60),
            tokens,
            rng.choice([0.0, 0.0, 120.0, 300.0, 600.0]),
        )
        self.agents[root] = agent
        return agent

    def _sub_agent(self, parent: Agent) -> Agent:
        self._born += 1
        session = SessionId(f"{parent.root}/sub-{self._born}")
        left, tokens = self.random.randint(2, 6), int(0.2 * self.mean_tokens)
        return Agent(parent.root, session, parent.session, parent.tenant, parent.agent_class, left, tokens, 0.0)

    def _ready(self, agent: Agent) -> None:
        rng = self.random
        self.steps += 1
        new_tokens = max(64, int(rng.expovariate(1 / (0.02 * self.mean_tokens))))
        agent.tokens += new_tokens
        ready = StepReady(
            step_id=StepId(f"{rng.getrandbits(128):032x}"),
            attempt=0,
            gateway_id=GATEWAY,
            tenant=agent.tenant,
            root=agent.root,
            session=agent.session,
            parent=agent.parent,
            pool=POOL,
            agent_class=agent.agent_class,
            prompt_tokens=agent.tokens,
            max_output_tokens=4_096,
            page_tokens=64,
            new_hashes=rng.randbytes(8 * (new_tokens // 64)),
            deadline_s=agent.deadline_s,
            gap_s=agent.gap_s,
            at=self.at + self.now_s,
        )
        call = Call(agent, ready, self.now_s)
        self._say(self.subjects.step_ready(), ready)
        engine = self.engines.get(agent.home)
        over = engine is not None and engine.tokens > 0.97 * self.kv_tokens
        if agent.paused or (over and rng.random() < 0.5):
            if agent.kept:
                self._release(agent, "paused")
            agent.paused, call.cause = True, "inactive"
            self.waiting.append(call)
            return
        self._admit(call)

    def _admit(self, call: Call) -> None:
        agent = call.agent
        agent.paused = False
        admitted = StepAdmitted(
            step=call.ready,
            tag=Tag(self.now_s, call.ready_s, call.ready.step_id),
            home=WorkerId(agent.home),
            waited=call.cause,
            fence=1,
        )
        self._say(self.subjects.step_admitted(), admitted)
        least = min(self.engines.values(), key=lambda e: (len(e.running) + len(e.queue), e.tokens, e.id))
        engine = self.engines[agent.home] if agent.home else least
        if len(engine.running) < self.slots:
            self._grant((call, engine, "home" if agent.home else "cheapest_start"))
        elif len(least.running) < self.slots and self.random.random() < 0.4:
            call.cause = "home"
            self._later(self.random.uniform(0.3, 1.5), "grant", (call, least, "stolen"))
        else:
            call.cause = "home"
            engine.queue.append(call)

    def _grant(self, what: tuple[Call, Engine, str]) -> None:
        call, engine, reason = what
        agent, rng = call.agent, self.random
        moved = bool(agent.home) and agent.home != engine.id
        if moved or not agent.kept:
            call.cached = int(rng.uniform(0.05, 0.2) * agent.tokens)
        else:
            call.cached = int(rng.uniform(0.93, 0.995) * call.ready.prompt_tokens)
        if agent.kept and agent.home in self.engines:
            self.engines[agent.home].tokens -= agent.tokens
        call.output = max(16, int(rng.lognormvariate(5.0, 0.7)))
        call.lease = f"{rng.getrandbits(80):020x}"
        call.worker, call.start_s = engine.id, self.now_s
        prefill_s = (agent.tokens - call.cached) * COST.prompt_s_per_token
        call.engine_s = min(0.7 * self.cycle_s, prefill_s + call.output * rng.uniform(0.4, 1.4) * self.cycle_s / 500)
        self._say(
            self.subjects.gateway(GATEWAY),
            Grant(
                step_id=call.ready.step_id,
                attempt=0,
                lease_id=LeaseId(call.lease),
                root=agent.root,
                session=agent.session,
                worker_id=WorkerId(engine.id),
                engine_url=f"http://{engine.id}:30000",
                session_tag=SessionTag("saga-1"),
                cached_tokens=call.cached,
                reason=reason,
                cost_s=call.engine_s,
                waited=call.cause,
                ttl_s=2.0,
                lease_ttl_s=5.0,
                moved_from=WorkerId(agent.home if moved else ""),
                admission_fence=1,
                fence=1,
                new_session=not agent.home,
            ),
        )
        agent.home, agent.kept = engine.id, True
        engine.tokens += agent.tokens
        engine.running[call.ready.step_id] = call
        self._later(call.engine_s, "finish", call)

    def _finish(self, call: Call) -> None:
        agent, rng = call.agent, self.random
        engine = self.engines[call.worker]
        del engine.running[call.ready.step_id]
        agent.left -= 1
        over = agent.left <= 0
        final = over and not agent.parent
        tool, median_s = rng.choice(TOOLS)
        prefill_s = (call.ready.prompt_tokens - call.cached) * COST.prompt_s_per_token
        finished = StepFinished(
            step_id=call.ready.step_id,
            attempt=0,
            lease_id=LeaseId(call.lease),
            worker_id=WorkerId(call.worker),
            gateway_id=GATEWAY,
            tenant=agent.tenant,
            root=agent.root,
            session=agent.session,
            parent=agent.parent,
            pool=POOL,
            agent_class=agent.agent_class,
            prompt_tokens=call.ready.prompt_tokens,
            output_tokens=call.output,
            cached_tokens=call.cached,
            finish_reason="stop" if final else "tool_calls",
            tools=() if final else (tool,),
            final=final,
            gap_s=agent.gap_s,
            waited_s=call.start_s - call.ready_s,
            first_token_s=min(0.8 * call.engine_s, 0.05 + prefill_s),
            engine_s=call.engine_s,
            at=self.at + self.now_s,
        )
        self._say(self.subjects.step_finished(WorkerId(call.worker)), finished)
        agent.tokens += call.output
        engine.tokens += call.output
        gap_s = min(4 * self.cycle_s, 0.35 * self.cycle_s * rng.lognormvariate(0.0, 0.8) * (0.6 + median_s / 3))
        self._say(
            self.subjects.forecast(WorkerId(call.worker)),
            Forecast(
                root=agent.root,
                session=agent.session,
                step_id=call.ready.step_id,
                worker_id=WorkerId(call.worker),
                returns=0.1 if final else 0.95,
                gap_p50_s=gap_s,
                gap_p90_s=4 * gap_s,
                gap_p95_s=6 * gap_s,
                gap_p99_s=20 * gap_s,
                new_tokens=0.02 * self.mean_tokens,
                remaining_steps=agent.left,
                remaining_engine_s=agent.left * call.engine_s,
                samples=100,
            ),
        )
        if engine.queue:
            self._grant((engine.queue.pop(0), engine, "home"))
        if over and agent.parent:
            self._release(agent, "superseded")
        elif final:
            self._release(agent, "closed")
            del self.agents[agent.root]
            self._later(rng.uniform(0.2, 1.0) * self.cycle_s, "ready", self._agent(young=True))
        else:
            agent.gap_s = gap_s
            self._later(gap_s, "ready", agent)
            if not agent.parent and rng.random() < self.sub_agents:
                self._later(0.3 * gap_s, "ready", self._sub_agent(agent))

    def _release(self, agent: Agent, reason: str) -> None:
        self.engines[agent.home].tokens -= agent.tokens if agent.kept else 0
        agent.kept = False
        self._say(
            self.subjects.sessions_released(WorkerId(agent.home)),
            SessionsReleased(worker_id=WorkerId(agent.home), sessions=(agent.session,), reason=reason, fence=1),
        )

    def _second(self, _about: object) -> None:
        for engine in self.engines.values():
            self._say(self.subjects.worker_presence(), heartbeat(engine, self.kv_tokens, self.slots))
        for call in list(self.waiting):
            if self.random.random() < 0.25:
                self.waiting.remove(call)
                self._admit(call)
        self._say(self.subjects.gateway_word(), gateway_beat(self.engines.values(), self.waiting, self.now_s))
        self._later(1.0, "second", None)

    def _say(self, subject: str, message: Message) -> None:
        self.said.append((subject, message))
