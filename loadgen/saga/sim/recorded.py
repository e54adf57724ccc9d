"""S4 `coding-sessions`: recorded sessions as conversations. A task is one turn: message to answer.

Blocks recorded as equal are equal pages within a session; the first blocks, tools and system prompt, are shared between
sessions with equal lengths of both, as the trace's README says. Sessions that exceed a worker's context or half its KV
are dropped and counted. Human gaps are replayed.
"""

from array import array
from collections.abc import Sequence
from itertools import islice
from random import Random

from msgspec import Struct

from saga.load.plan import LeftOut, PlannedAgent, PlannedTask
from saga.load.planner import PlanSettings, build_plan, common_blocks
from saga.load.trace import MAIN_AGENT, Session
from saga.sim.conversation import Conversation, Pages, SimAgent, SimStep

END_OF_TURN = "end_turn"
TOOL = "tool"  # the trace does not name them
_MASK = (1 << 64) - 1
_PRIVATE = 1 << 40  # above every recorded block id: what no other prompt has


class _Source(Struct, frozen=True):
    """One session, ready to be drawn any number of times."""

    conversation: Conversation
    planned: tuple[PlannedAgent, ...]


class Recorded:
    """Recorded sessions to draw from with replacement."""

    def __init__(
        self, sessions: Sequence[Session], seed: int, *, context_tokens: int, kv_tokens: int, page_tokens: int
    ) -> None:
        """Raises PlanError when no session fits."""
        plan = build_plan(sessions, PlanSettings(context_tokens=context_tokens, kv_tokens=kv_tokens))
        self.left_out: LeftOut = plan.left_out
        self._sources = [_source(sessions[task.ordinal], task) for task in plan.tasks if task.agents]
        self._seed = seed
        self._page_tokens = page_tokens
        self._pages_per_block = max(1, plan.block_tokens // page_tokens)
        if plan.block_tokens % page_tokens:
            raise ValueError(f"recorded blocks of {plan.block_tokens} tokens do not divide into pages of {page_tokens}")
        self._seen_shared: dict[tuple[int, int], int] = {}  # blocks of each shared prefix that some prompt had

    @property
    def weights(self) -> dict[str, float]:
        """One tenant."""
        return {}

    @property
    def every(self) -> list[Conversation]:
        """Each session once."""
        return [source.conversation for source in self._sources]

    def draw(self, number: int) -> Conversation:
        """Conversation number `number`."""
        return self._source_of(number).conversation

    def pages(self, number: int, agent: int) -> Pages:
        """Its page hashes."""
        return BlockPages(
            self._source_of(number).planned[agent],
            number,
            agent,
            self._seen_shared,
            page_tokens=self._page_tokens,
            pages_per_block=self._pages_per_block,
        )

    def _source_of(self, number: int) -> _Source:
        return self._sources[Random(f"{self._seed}/{number}").randrange(len(self._sources))]


class BlockPages:
    """Hashes chained over block ids: each is a function of its block and of all before it."""

    __slots__ = (
        "_agent",
        "_blocks",
        "_keys",
        "_number",
        "_page_tokens",
        "_pages_per_block",
        "_private",
        "_seen_shared",
        "_shared_pages",
    )

    def __init__(
        self,
        agent: PlannedAgent,
        number: int,
        index: int,
        seen_shared: dict[tuple[int, int], int],
        *,
        page_tokens: int,
        pages_per_block: int,
    ) -> None:
        self._agent = agent
        self._number = number
        self._private = _PRIVATE * (index + 1)
        self._page_tokens = page_tokens
        self._pages_per_block = pages_per_block
        self._seen_shared = seen_shared
        self._keys = array("Q")  # of the last prompt and answer, in pages
        self._blocks: Sequence[tuple[int, int]] = ()  # that they were made of
        self._shared_pages = 0

    def advance(self, index: int, step: SimStep) -> tuple[bytes, int]:
        """As Pages. The answer's pages are those of the next prompt where that extends this one."""
        planned = self._agent.steps[index]
        following = self._agent.steps[index + 1] if index + 1 < len(self._agent.steps) else None
        blocks = following.blocks if following is not None and following.extends else planned.blocks
        wanted = (step.prompt_tokens + step.output_tokens) // self._page_tokens
        shared_pages = planned.shared_blocks * self._pages_per_block
        keys = self._chain(blocks, wanted, shared_pages)
        known = _common(self._keys, keys)
        seen = self._seen_shared.get(self._agent.shared_key, 0)
        if known < shared_pages:
            known = max(known, min(shared_pages, seen))
        self._seen_shared[self._agent.shared_key] = max(seen, min(shared_pages, len(keys)))
        self._keys = keys
        return keys.tobytes(), known

    def _chain(self, blocks: Sequence[tuple[int, int]], wanted: int, shared_pages: int) -> "array[int]":
        key = _mix(*self._agent.shared_key)
        salt = _mix(key, self._number + 1)
        reused = common_blocks(self._blocks, blocks) * self._pages_per_block
        if shared_pages != self._shared_pages:
            reused = min(reused, shared_pages, self._shared_pages)
        keys = self._keys[: min(reused, wanted)]
        self._blocks, self._shared_pages = blocks, shared_pages
        key = keys[-1] if keys else key
        ids = (
            block * self._pages_per_block + part
            for first, count in blocks
            for block in range(first, first + count)
            for part in range(self._pages_per_block)
        )
        for page, block in enumerate(islice(ids, len(keys), wanted), len(keys)):
            key = _mix(key, page) if page < shared_pages else _mix(key ^ salt, block)
            keys.append(key)
        while len(keys) < wanted:
            # The tail and an answer that no later prompt repeats.
            self._private += 1
            key = _mix(key ^ salt, self._private)
            keys.append(key)
        return keys


def _mix(key: int, value: int) -> int:
    """A step of the chain: for a given key different values give different keys."""
    mixed = ((key ^ (value + 0x9E3779B97F4A7C15)) * 0xD6E8FEB86659FD93) & _MASK
    return mixed ^ (mixed >> 32)


def _common(left: "array[int]", right: "array[int]") -> int:
    """Leading keys that are equal; chained keys that differ never meet again, so bisection finds it."""
    same, differs = 0, min(len(left), len(right)) + 1
    while differs - same > 1:
        middle = (same + differs) // 2
        if left[middle - 1] == right[middle - 1]:
            same = middle
        else:
            differs = middle
    return same


def _source(session: Session, task: PlannedTask) -> _Source:
    stops: dict[str, list[str]] = {}
    for step in session.steps:
        stops.setdefault(step.agent, []).append(step.stop)
    agents = []
    for planned in task.agents:
        name = MAIN_AGENT if planned.parent is None else planned.name.removeprefix(f"{session.id}.")
        agents.append(_agent(planned, stops[name], name, session.block_tokens))
    tenant = "coding"
    agent_class = "-".join(map(str, task.agents[0].shared_key))
    return _Source(Conversation(tenant, agent_class, tuple(agents)), task.agents)


def _agent(planned: PlannedAgent, stops: Sequence[str], name: str, block_tokens: int) -> SimAgent:
    steps = []
    for index, step in enumerate(planned.steps):
        last = planned.steps[index - 1] if index else None
        kept_tokens = 0
        if last is not None:
            kept_tokens = common_blocks(last.blocks, step.blocks) * block_tokens
            if step.extends:
                kept_tokens = last.prompt_tokens + last.max_tokens
        ends_turn = stops[index] == END_OF_TURN or index == len(planned.steps) - 1
        steps.append(
            SimStep(
                prompt_tokens=step.prompt_tokens,
                output_tokens=step.max_tokens,
                kept_tokens=min(kept_tokens, step.prompt_tokens),
                think_s=step.think_s,
                tool="" if ends_turn else TOOL,
                opens_turn=index == 0 or (name == MAIN_AGENT and stops[index - 1] == END_OF_TURN),
            )
        )
    return SimAgent(name, tuple(steps), planned.after_step, planned.start_s)
