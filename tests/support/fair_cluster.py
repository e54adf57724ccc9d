"""A pretend cluster behind one admission core: slots that take the lowest tag, and tenants that keep coming back.

Everything is decided by a seeded random, so that two clusters told the same do the same. Workers are alike and any may
run any step. Shared by the tests of fairness.
"""

from collections import defaultdict
from random import Random

from admission_story import Story, beat_of, hello, ready, step_id

from saga.contract.ids import GatewayId, LeaseId, RootId, SessionId, TenantId, WorkerId
from saga.contract.messages import GatewayBeat, Grant, Message, StepAdmitted, StepCancelled
from saga.kernel.effects import Tick

PROMPT_TOKENS = 3_000


class Agent:
    """One workflow: so many steps, one after the other."""

    def __init__(self, root: str, tenant: str, steps: int, deadline_s: float) -> None:
        self.root, self.tenant, self.steps_left, self.deadline_s = root, tenant, steps, deadline_s


class Cluster:
    """Tell it of agents, then let it run."""

    def __init__(
        self, policy, *, slots: int, workers: int = 1, kv_tokens: int = 10**9, seed: int = 0, **settings
    ) -> None:
        self.story = Story(policy, workers=0, **settings)
        self.random = Random(seed)
        self.said: list[Message] = []
        self.cached_share = 0.5
        self.output_tokens = (10, 400)
        self.cancels = 0.0  # of waiting steps, at each turn
        self.charged_s: dict[str, float] = defaultdict(float)  # by tenant, at the end of each step
        self.grants: list[tuple[str, float, float]] = []  # tenant, weight, what it came to cost; filled in at the end
        self.eligible: dict[str, list[bool]] = defaultdict(list)  # at each grant: whether the tenant had a step waiting
        self.joined: list[str] = []  # roots, in the order of their first step's admission
        self._slots = slots
        self._numbers = 0
        self._agents: dict[int, Agent] = {}
        self._waiting: dict[int, StepAdmitted] = {}
        self._running: dict[int, int] = {}  # step to its place in `grants`
        for number in range(workers):
            self._tell(hello(f"w{number}", kv_tokens=kv_tokens, context_tokens=kv_tokens))

    @property
    def core(self):
        return self.story.core

    def submit(self, agent: Agent, waited_s: float = 0.0) -> None:
        """Its next step."""
        self._numbers += 1
        self._agents[self._numbers] = agent
        step = ready(
            self._numbers,
            agent.root,
            tenant=TenantId(agent.tenant),
            prompt_tokens=PROMPT_TOKENS,
            max_output_tokens=500,
            deadline_s=agent.deadline_s,
            waited_s=waited_s,
        )
        self._tell(step)

    def run(self, turns: int) -> None:
        """So many grants or ends; a second each."""
        for _ in range(turns):
            self.story.now_s += 1.0
            self._beat()
            if self._waiting and self.random.random() < self.cancels:
                self._cancel(self.random.choice(sorted(self._waiting)))
            while self._waiting and len(self._running) < self._slots:
                self._grant()
            if self._running:
                self._finish(self.random.choice(sorted(self._running)))

    def _tell(self, message: Message) -> None:
        heard = self.story.hear(message)
        self.said += heard
        self._take_in(heard)

    def _take_in(self, heard: list[Message]) -> None:
        for message in heard:
            if isinstance(message, StepAdmitted):
                number = int(message.step.step_id, 16)
                if number not in self._running and number in self._agents:
                    self._waiting[number] = message
                if message.step.root not in self.joined:
                    self.joined.append(message.step.root)

    def _beat(self) -> None:
        names = tuple(beat_of(number) for number in self._agents)
        self._tell(GatewayBeat(gateway_id=GatewayId("g0"), waiting=names))
        heard = self.story.tell(Tick())
        self.said += heard
        self._take_in(heard)

    def _grant(self) -> None:
        for tenant in {agent.tenant for agent in self._agents.values()}:
            waits = any(self._agents[n].tenant == tenant for n in self._waiting)
            had = self.eligible[tenant]
            had += [False] * (len(self.grants) - len(had)) + [waits]
        number = min(self._waiting, key=lambda n: self._waiting[n].tag)
        admitted = self._waiting.pop(number)
        agent = self._agents[number]
        worker = admitted.home or "w0"
        cached_tokens = int(self.cached_share * self.random.random() * PROMPT_TOKENS)
        charge = self.core.book.steps[step_id(number)].charge
        self._running[number] = len(self.grants)
        self.grants.append((agent.tenant, charge.weight, 0.0))
        self._tell(
            Grant(
                step_id=step_id(number),
                attempt=0,
                lease_id=LeaseId(f"lease-{number}"),
                root=RootId(agent.root),
                session=SessionId(agent.root),
                worker_id=WorkerId(worker),
                engine_url="",
                session_tag="",
                cached_tokens=cached_tokens,
                ttl_s=1.0,
                lease_ttl_s=1.0,
                admission_fence=3,
                fence=1,
            )
        )
        self.story.take(number, agent.root, worker)

    def _finish(self, number: int) -> None:
        agent = self._agents.pop(number)
        place = self._running.pop(number)
        agent.steps_left -= 1
        charge = self.core.book.steps[step_id(number)].charge
        heard = self.story.finish(
            number,
            agent.root,
            tenant=TenantId(agent.tenant),
            prompt_tokens=PROMPT_TOKENS,
            cached_tokens=int(self.cached_share * self.random.random() * PROMPT_TOKENS),
            output_tokens=self.random.randint(*self.output_tokens),
            final=agent.steps_left <= 0,
        )
        self.said += heard
        self._book(agent, place, charge)
        self._take_in(heard)
        if agent.steps_left > 0:
            self.submit(agent)

    def _cancel(self, number: int) -> None:
        del self._waiting[number]
        agent = self._agents.pop(number)
        self._tell(
            StepCancelled(
                step_id=step_id(number),
                attempt=0,
                gateway_id=GatewayId("g0"),
                tenant=TenantId(agent.tenant),
                root=RootId(agent.root),
                session=SessionId(agent.root),
            )
        )
        self.submit(agent)

    def _book(self, agent: Agent, place: int, charge) -> None:
        self.charged_s[agent.tenant] += charge.cost_s
        self.grants[place] = (agent.tenant, charge.weight, charge.normalised_s)

    def worst_lead_s(self, one: str, other: str) -> float:
        """Of one tenant over the other, per unit of weight, in any stretch in which both had a step waiting at each
        grant and after it."""
        lead = lowest = worst = 0.0
        for at, (tenant, _, normalised_s) in enumerate(self.grants):
            if not (self._waited(one, at) and self._waited(other, at)):
                lead = lowest = 0.0
                continue
            lead += normalised_s * ((tenant == one) - (tenant == other))
            lowest = min(lowest, lead)
            worst = max(worst, lead - lowest)
        return worst

    def _waited(self, tenant: str, at: int) -> bool:
        had = self.eligible[tenant]
        return at + 1 < len(had) and had[at] and had[at + 1]
