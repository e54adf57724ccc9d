"""The one form every trace is read into and written from: sessions of agents with their steps. Data only.

Its fields are those of the recorded coding sessions (the `kv-cache-tester` conversion, Apache-2.0, repository
callanjfox/kv-cache-tester); what other formats do not know keeps its default. Nothing is cut, capped or dropped here.
"""

from collections.abc import Iterable
from typing import Annotated, Literal

from msgspec import Meta, Struct, field

MAIN_AGENT = "main"
TOOL_USE, END_TURN = "tool_use", "end_turn"
FormatName = Literal["recorded", "mooncake", "tracelab", "trie", "dag"]

MAX_TOKENS = 100_000_000  # of a step: readers and writers go through its blocks one by one
Tokens = Annotated[int, Meta(ge=0, le=MAX_TOKENS)]
BlockId = Annotated[int, Meta(ge=0)]
Run = tuple[BlockId, Annotated[int, Meta(ge=1, le=MAX_TOKENS)]]


class TraceError(ValueError):
    """A trace that cannot be read or written; the message names the file, the line, what was expected and found."""


class Step(Struct, frozen=True, omit_defaults=True):
    """One recorded LLM call. `blocks` is the prompt in whole blocks as (first id, count) runs; the last partial block
    is left out.

    `gap_s` is the think time before the step (null: unknown, replayed as 0); `api_s` the service time (null: not
    streamed, unknown).
    """

    agent: str
    start_s: float = field(name="t")
    input_tokens: Tokens = field(name="input")
    output_tokens: Tokens = field(name="output")
    blocks: tuple[Run, ...]
    stop: str = ""
    api_s: float | None = None
    gap_s: float | None = None
    model: str = ""
    input_types: tuple[str, ...] = ()

    @property
    def think_s(self) -> float:
        """Think time before this step in seconds; unknown or negative counts as none."""
        return max(0.0, self.gap_s or 0.0)

    @property
    def end_s(self) -> float:
        """When the recorded answer ended, seconds from the session's start; without a service time, its start."""
        return self.start_s + max(0.0, self.api_s or 0.0)


class SubAgent(Struct, frozen=True, omit_defaults=True):
    """A sub-agent of a session: when it started and how long its own tool definitions and system prompt are."""

    agent: str
    start_s: float = field(name="t")
    tool_tokens: Tokens = 0
    system_tokens: Tokens = 0
    kind: str = ""
    duration_s: float | None = None


class Session(Struct, frozen=True, omit_defaults=True):
    """One recorded session: a main agent, perhaps sub-agents, and their steps in time order of each agent.

    `origin_s`: when it started on the clock of its file, in seconds; None: not known. `common_ids`: equal block ids are
    equal content in every session of the file, not only within this one.
    """

    id: str
    block_tokens: Annotated[int, Meta(ge=1)]
    steps: tuple[Step, ...]
    tool_tokens: Tokens = 0
    system_tokens: Tokens = 0
    subagents: tuple[SubAgent, ...] = ()
    origin_s: float | None = None
    common_ids: bool = False

    def peak_tokens(self, least_output_tokens: int = 1) -> int:
        """Largest input + output of any step: what one sequence of this session needs on an engine at most.

        Every call asks for at least one token as sent, so an output counts as at least `least_output_tokens`.
        """
        return max((step.input_tokens + max(least_output_tokens, step.output_tokens) for step in self.steps), default=0)

    def shared_key(self, agent: str) -> tuple[int, int]:
        """Lengths of an agent's tool definitions and system prompt: agents with equal ones share both."""
        for sub in self.subagents:
            if sub.agent == agent:
                return sub.tool_tokens, sub.system_tokens
        return self.tool_tokens, self.system_tokens

    def agents(self) -> dict[str, list[Step]]:
        """Steps of each agent in their order; the main agent first when it has any."""
        found: dict[str, list[Step]] = {MAIN_AGENT: []}
        for step in self.steps:
            found.setdefault(step.agent, []).append(step)
        return {agent: steps for agent, steps in found.items() if steps}


class Sessions(list[Session]):
    """The sessions of one file in its order, in which format they were, and how many bad lines were left out."""

    def __init__(self, sessions: Iterable[Session], file_format: FormatName, skipped: int = 0) -> None:
        super().__init__(sessions)
        self.format = file_format
        self.skipped = skipped


class Written(Struct, frozen=True):
    """Lines of a file in some format, and what of the sessions it cannot say."""

    lines: tuple[str, ...]
    lost: tuple[str, ...]
