"""S4 `coding-sessions`: recorded sessions as conversations. A task is one turn: message to answer.

Blocks recorded as equal are equal pages within a session; the first blocks, tools and system prompt, are shared between
sessions with equal lengths of both, as the trace's README says. Sessions that exceed a worker's context or half its KV
are dropped and counted. Human gaps are replayed.
"""

from collections.abc import Sequence
from random import Random

from msgspec import Struct

from saga.load.plan import LeftOut, PlannedAgent, PlannedTask
from saga.load.planner import PlanSettings, build_plan
from saga.load.trace import MAIN_AGENT, Session
from saga.load.traces.prompts import common_blocks
from saga.sim.blocks import BlockPages, Change, changes
from saga.sim.conversation import Conversation, Pages, SimAgent, SimStep, WorkerLoss

END_OF_TURN = "end_turn"
TOOL = "tool"  # the trace does not name them


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
        self._changes: dict[tuple[int, int], tuple[list[Change], list[int]]] = {}  # of agents that were drawn
        self._seen_shared: dict[tuple[int, int], int] = {}  # blocks of each shared prefix that some prompt had

    @property
    def weights(self) -> dict[str, float]:
        """One tenant."""
        return {}

    @property
    def losses(self) -> tuple[WorkerLoss, ...]:
        """None."""
        return ()

    @property
    def every(self) -> list[Conversation]:
        """Each session once."""
        return [source.conversation for source in self._sources]

    def draw(self, number: int) -> Conversation:
        """Conversation number `number`."""
        return self._sources[self._chosen(number)].conversation

    def pages(self, number: int, agent: int) -> Pages:
        """Its page hashes."""
        at = self._chosen(number)
        planned = self._sources[at].planned[agent]
        found = self._changes.get((at, agent))
        if found is None:
            steps = changes(planned, agent, self._page_tokens, self._pages_per_block)
            shared = [step.shared_blocks * self._pages_per_block for step in planned.steps]
            found = self._changes[at, agent] = (steps, shared)
        return BlockPages(found[0], number, planned.shared_key, found[1], self._seen_shared)

    def _chosen(self, number: int) -> int:
        return Random(f"{self._seed}/{number}").randrange(len(self._sources))


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
        steps.append(
            SimStep(
                prompt_tokens=step.prompt_tokens,
                output_tokens=step.max_tokens,
                kept_tokens=min(kept_tokens, step.prompt_tokens),
                think_s=step.think_s,
                # Also of the last one, as recorded: that nothing follows is nobody's to know.
                tool="" if stops[index] == END_OF_TURN else TOOL,
                opens_turn=index == 0 or (name == MAIN_AGENT and stops[index - 1] == END_OF_TURN),
            )
        )
    return SimAgent(name, tuple(steps), planned.after_step, planned.start_s)
