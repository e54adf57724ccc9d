"""The access trace: which page chain is needed when, whatever a cache does. Open loop, from recorded sessions.

Sessions are drawn with replacement and start as a Poisson process; service times and gaps are the recorded ones, so a
policy changes what is recomputed and never when. That makes one optimum for all of them. Called by `bench`.
"""

from collections.abc import Iterable, Sequence
from random import Random

from msgspec import Struct
from msgspec.structs import replace

from saga.load.plan import PlannedAgent
from saga.load.planner import PlanSettings, build_plan
from saga.load.trace import MAIN_AGENT, Session
from saga.sim.cache.runs import Growing, Run, Segments, TreeBuilder, first_pages, without_first

UNKNOWN_API_S = 5.0
SESSIONS = 200
STARTS_PER_S = 0.05
SEED = 1
_NO_LIMIT = 1 << 60
_IDS = 1 << 40  # page ids of one draw; more than blocks in any session


class Call(Struct, frozen=True, gc=False):
    """One call: its prompt is needed at `start_s`, its answer's pages exist at `end_s`, all are in use in between.

    `prompt` and `full` are segments: the ends of the prompt's chain and of prompt and answer. `shared_pages`: how many
    of the first pages other sessions may have too. `turn`: how the call ended as far as its server knows (`tool_use`,
    `end_turn`, or empty: not recorded).
    """

    agent: int
    start_s: float
    end_s: float
    prompt: int
    full: int
    prompt_pages: int
    full_pages: int
    shared_pages: int
    turn: str


class Agent(Struct, frozen=True, gc=False):
    """One growing conversation: of draw `draw`, its main agent or a sub-agent."""

    draw: int
    is_main: bool
    prefix: tuple[int, int]  # lengths of tools and system prompt: agents with equal ones share a prefix


class Event(Struct, frozen=True, gc=False):
    """Start or end of a call, in the order of time."""

    at_s: float
    call: int
    is_end: bool


class AccessTrace(Struct, frozen=True):
    """Everything that happens, in order."""

    page_tokens: int
    segments: Segments
    agents: list[Agent]
    calls: list[Call]
    events: list[Event]


class Limits(Struct, frozen=True):
    """How a trace is drawn."""

    sessions: int = SESSIONS
    starts_per_s: float = STARTS_PER_S
    seed: int = SEED


def drawn(sessions: Sequence[Session], limits: Limits) -> AccessTrace:
    """Draws with replacement, with Poisson starts; each draw has its own page ids, shared prefixes apart."""
    rng = Random(limits.seed)
    starts = []
    at_s = 0.0
    for _ in range(limits.sessions):
        at_s += rng.expovariate(limits.starts_per_s)
        starts.append((at_s, rng.randrange(len(sessions))))
    return _trace(sessions, starts)


def in_order(calls: Sequence[Call]) -> list[Event]:
    """Starts and ends by time. An agent's calls are in order and the sort is stable: each starts before it ends."""
    events = [
        Event(call.end_s if is_end else call.start_s, index, is_end)
        for index, call in enumerate(calls)
        for is_end in (False, True)
    ]
    events.sort(key=lambda event: event.at_s)
    return events


def each_once(sessions: Sequence[Session]) -> AccessTrace:
    """Every session once, all from time 0: the population of which distributions are taken."""
    return _trace(sessions, [(0.0, index) for index in range(len(sessions))])


def _trace(sessions: Sequence[Session], starts: Iterable[tuple[float, int]]) -> AccessTrace:
    plan = build_plan(sessions, PlanSettings(context_tokens=_NO_LIMIT, kv_tokens=_NO_LIMIT))
    tasks = {task.ordinal: task for task in plan.tasks}
    shape = _Shape(plan.block_tokens)
    for draw, (start_s, ordinal) in enumerate(starts):
        task = tasks.get(ordinal)
        if task is None:
            continue
        session = sessions[ordinal]
        main_ends: list[float] = []
        for planned in task.agents:
            is_main = planned.parent is None
            begin_s = start_s + planned.start_s
            if planned.after_step is not None:
                begin_s = main_ends[planned.after_step] + planned.start_s
            ends = shape.add(session, planned, draw, begin_s, is_main=is_main)
            main_ends = ends if is_main else main_ends
    return shape.trace()


class _Shape:
    """A trace under construction."""

    def __init__(self, page_tokens: int) -> None:
        self._page_tokens = page_tokens
        self._tree = TreeBuilder()
        self._agents: list[Agent] = []
        self._calls: list[tuple[Call, Growing, Growing]] = []
        self._prefixes: dict[tuple[int, int], int] = {}
        self._private = _IDS * _IDS  # ids of answers that no later prompt repeats

    def add(self, session: Session, planned: PlannedAgent, draw: int, begin_s: float, *, is_main: bool) -> list[float]:
        """An agent's calls; returns when each ended."""
        name = MAIN_AGENT if is_main else planned.name.removeprefix(f"{session.id}.")
        recorded = [step for step in session.steps if step.agent == name]
        agent = len(self._agents)
        self._agents.append(Agent(draw, is_main, planned.shared_key))
        chains = [self._runs(planned, index, draw) for index in range(len(planned.steps))]
        ends: list[float] = []
        at_s = begin_s
        for index, (step, raw) in enumerate(zip(planned.steps, recorded, strict=True)):
            start_s = at_s + step.think_s
            at_s = start_s + (UNKNOWN_API_S if raw.api_s is None else max(0.0, raw.api_s))
            ends.append(at_s)
            prompt_pages = sum(count for _, count in chains[index])
            # The last token of an answer is never fed back: it has no KV.
            full_pages = (step.prompt_tokens + step.max_tokens - 1) // self._page_tokens
            prompt = self._tree.extend(self._tree.root, chains[index])
            following = index + 1
            if following < len(chains) and planned.steps[following].extends:
                answer = first_pages(without_first(chains[following], prompt_pages), full_pages - prompt_pages)
            else:
                answer = [(self._private, full_pages - prompt_pages)] if full_pages > prompt_pages else []
                self._private += full_pages - prompt_pages
            full = self._tree.extend(prompt, answer)
            full_pages = prompt_pages + sum(count for _, count in answer)
            call = Call(agent, start_s, at_s, 0, 0, prompt_pages, full_pages, step.shared_blocks, raw.stop)
            self._calls.append((call, prompt, full))
        return ends

    def trace(self) -> AccessTrace:
        """All of it, in order."""
        segments, numbers = self._tree.freeze()
        calls = [replace(call, prompt=numbers[prompt], full=numbers[full]) for call, prompt, full in self._calls]
        return AccessTrace(self._page_tokens, segments, self._agents, calls, in_order(calls))

    def _runs(self, planned: PlannedAgent, index: int, draw: int) -> list[Run]:
        """A prompt's pages: the shared prefix by its lengths, the rest by the draw's own ids."""
        step = planned.steps[index]
        own = _IDS * (draw + 1)
        runs = [(own + first, count) for first, count in without_first(step.blocks, step.shared_blocks)]
        if not step.shared_blocks:
            return runs
        prefix = self._prefixes.setdefault(planned.shared_key, len(self._prefixes))
        return [((prefix + 1) << 20, step.shared_blocks), *runs]
