"""The live benchmark's plan in virtual time: same tasks, texts, think times, starts and engines as `saga bench live`.

One virtual second is one real second there, so that every timer of the control plane stands in the same ratio to the
engines as in the live mesh; engines run `speed` times faster, think times are divided by it. Prompts are the very same
characters; answers are other ones, of the same lengths. Called by bench/live_vs_sim.py.
"""

from collections.abc import Sequence
from random import Random

from msgspec import Struct

from saga.engine.profile import Profile
from saga.kv.pages import hash_pages
from saga.kv.tokens import encode_text
from saga.load.content import ALPHABET, Numbering, Speller, TaskText
from saga.load.plan import Plan, PlannedAgent
from saga.load.trace import Session
from saga.sim.agenda import Agenda
from saga.sim.arrivals import ClosedLoop
from saga.sim.clients import Clients
from saga.sim.conversation import HASH_BYTES, Conversation, Pages, SimAgent, SimStep, WorkerLoss
from saga.sim.ledger import Ledger
from saga.sim.systems.registry import make_system
from saga.sim.world import Delays, World

MAIN = "main"  # as Clients names the parent of a sub-agent
HORIZON_S = 86_400.0


class PlannedRun(Struct, frozen=True):
    """How to replay a plan. `client_s`: of each step, real seconds outside gateway core, network and engine."""

    system: str
    profile: Profile  # as the engines have it: shrunk, with their page size
    workers: int
    speed: float
    delays: Delays
    client_s: float
    starts_s: dict[str, float] | None = None  # by session, when its first step came to the live gateway
    concurrency: int | None = None  # without starts: tasks at once in file order, None: all
    seed: int = 0


class PlannedResult(Struct, frozen=True):
    """What came of it. Task times in engine seconds, in the order in which tasks ended."""

    tct_s: tuple[float, ...]
    hit_rate: float
    steps: int
    failures: int
    refusals: int
    regenerated_tokens: int  # prefilled though they had been cached once
    seconds: float  # real ones that a live run would have taken

    @property
    def mean_tct_s(self) -> float:
        """Of the tasks that ended."""
        return sum(self.tct_s) / len(self.tct_s) if self.tct_s else 0.0


def simulate_plan(plan: Plan, sessions: Sequence[Session], run: PlannedRun) -> PlannedResult:
    """Every task of the plan once. Raises KeyError for a task without a start when there are starts."""
    agenda = Agenda()
    total = len(plan.tasks)
    workload = Planned(plan, sessions, run)
    ledger = Ledger(range(total), {})
    system = make_system(run.system, total)
    world = World(
        agenda,
        system,
        run.profile,
        run.workers,
        run.seed,
        weights={},
        delays=run.delays,
        engine=system.engine,
        speed=run.speed,
    )
    begun_s: dict[int, float] = {}
    tct_s: list[float] = []

    def begin(number: int) -> None:
        begun_s[number] = agenda.now_s
        clients.begin(number)

    def ended(number: int) -> None:
        tct_s.append((agenda.now_s - begun_s[number] + run.client_s) * run.speed)
        if loop is not None:
            loop.ended(number)
        elif len(tct_s) == total:
            agenda.stop()

    clients = _Clients(world, workload, run.profile, ledger, on_end=ended)
    loop: ClosedLoop | None = None
    if run.starts_s is None:
        loop = ClosedLoop(agenda, begin, users=run.concurrency or total, total=total, spread_s=0.0)
    else:
        for number, task in enumerate(plan.tasks):
            agenda.at(run.starts_s[task.session_id], begin, number)
    agenda.run(HORIZON_S)
    return PlannedResult(
        tct_s=tuple(tct_s),
        hit_rate=ledger.cached_tokens / ledger.prompt_tokens if ledger.prompt_tokens else 0.0,
        steps=ledger.steps,
        failures=ledger.failures + total - len(tct_s),
        refusals=ledger.refusals,
        regenerated_tokens=max(0, ledger.prompt_tokens - ledger.cached_tokens - ledger.needed_tokens),
        seconds=agenda.now_s,
    )


class _Clients(Clients):
    """As the load generator: it asks for exactly as much as was recorded."""

    def _answer_limit(self, step: SimStep) -> int:
        return step.output_tokens


class Planned:
    """The tasks of a plan as conversations of one turn, in their order."""

    def __init__(self, plan: Plan, sessions: Sequence[Session], run: PlannedRun) -> None:
        self._plan = plan
        self._run = run
        self._numbering = Numbering(sessions)
        self._speller = Speller(plan.block_chars, run.seed)
        self._texts: dict[int, TaskText] = {}

    @property
    def losses(self) -> tuple[WorkerLoss, ...]:
        """None."""
        return ()

    @property
    def weights(self) -> dict[str, float]:
        """One tenant."""
        return {}

    def draw(self, number: int) -> Conversation:
        """Task `number` of the plan."""
        agents = tuple(self._agent(agent) for agent in self._plan.tasks[number].agents)
        return Conversation("default", "", agents)

    def pages(self, number: int, agent: int) -> Pages:
        """Of an agent of it; all agents of a task share its text."""
        task = self._plan.tasks[number]
        text = self._texts.get(number)
        if text is None:
            text = self._texts[number] = TaskText(task, self._plan, self._numbering, self._speller)
        answers = Random(f"{self._run.seed}/{number}/{agent}")
        return TextPages(task.agents[agent], text, self._run.profile.page_tokens, answers)

    def _agent(self, agent: PlannedAgent) -> SimAgent:
        speed, client_s = self._run.speed, self._run.client_s
        steps = tuple(
            SimStep(
                prompt_tokens=step.prompt_tokens,
                output_tokens=step.max_tokens,
                kept_tokens=0,  # the text says it
                think_s=step.think_s / speed + client_s,
                opens_turn=index == 0 and agent.parent is None,
            )
            for index, step in enumerate(agent.steps)
        )
        name = MAIN if agent.parent is None else agent.name
        return SimAgent(name, steps, agent.after_step, agent.start_s / speed + client_s)


class TextPages:
    """Page hashes of an agent's real text, one character a token."""

    __slots__ = ("_agent", "_answers", "_hashes", "_page_tokens", "_text")

    def __init__(self, agent: PlannedAgent, text: TaskText, page_tokens: int, answers: Random) -> None:
        self._agent = agent
        self._text = text
        self._page_tokens = page_tokens
        self._answers = answers
        self._hashes = b""  # of the last prompt and answer

    def advance(self, index: int, step: SimStep) -> tuple[bytes, int]:
        """As Pages; known is what the agent's own last sequence had, without what other agents may have sent."""
        planned = self._agent.steps[index]
        prompt = self._text.prompt(self._agent, planned)
        answer = "".join(self._answers.choices(ALPHABET, k=step.output_tokens))
        self._text.answered(self._agent, planned, prompt, answer)
        hashes = hash_pages(encode_text(prompt + answer), self._page_tokens)
        known = _common_pages(self._hashes, hashes)
        self._hashes = hashes
        return hashes, known


def _common_pages(left: bytes, right: bytes) -> int:
    size = min(len(left), len(right)) // HASH_BYTES
    for page in range(size):
        part = slice(page * HASH_BYTES, (page + 1) * HASH_BYTES)
        if left[part] != right[part]:
            return page
    return size
