"""What a replay sends: tasks, agents and steps with their lengths and think times, and what was left out. Data only.

Made by planner, read by content, replay, ideal and report. Lengths are in tokens as sent (shrunk), times in recorded
seconds.
"""

from msgspec import Struct

from saga.load.trace import Run


class PlannedStep(Struct, frozen=True):
    """One call to send. Lengths are in tokens as sent (shrunk); `blocks` and `recorded_*` are as recorded.

    `think_s`: recorded seconds after the agent's previous answer. `extends`: the prompt extends the agent's previous
    one by at least the recorded output, so the answer really received belongs into it.
    """

    blocks: tuple[Run, ...]
    recorded_input_tokens: int
    prompt_tokens: int
    tail_tokens: int
    max_tokens: int
    think_s: float
    extends: bool
    shared_blocks: int


class PlannedAgent(Struct, frozen=True):
    """One session of the mesh: the main agent (no parent) or a sub-agent, which starts `start_s` after main step
    `after_step`.

    `after_step` None: after the task's start. `shared_key` is (tool_tokens, system_tokens): agents with equal keys
    share a prefix.
    """

    name: str
    parent: str | None
    shared_key: tuple[int, int]
    steps: tuple[PlannedStep, ...]
    after_step: int | None = None
    start_s: float = 0.0


class PlannedTask(Struct, frozen=True):
    """The replayed part of one recorded session; `ordinal` is its place in the file, which settles its text."""

    session_id: str
    ordinal: int
    agents: tuple[PlannedAgent, ...]

    @property
    def steps(self) -> int:
        """Calls in this task, sub-agents included."""
        return sum(len(agent.steps) for agent in self.agents)

    @property
    def peak_tokens(self) -> int:
        """The most KV its sessions hold together, in tokens as sent."""
        return sum(max(step.prompt_tokens + step.max_tokens for step in agent.steps) for agent in self.agents)


class LeftOut(Struct, frozen=True):
    """What the plan cut, capped or dropped, and out of how much."""

    sessions_in_file: int
    dropped_over_context: int
    dropped_over_half_kv: int
    dropped_too_short: int
    not_chosen: int
    steps_cut: int
    subagents_cut: int
    gaps_capped: int
    gap_seconds_cut: float


class Plan(Struct, frozen=True):
    """The tasks of a run, in file order, and the length of a block in characters as sent."""

    tasks: tuple[PlannedTask, ...]
    left_out: LeftOut
    shrink: int
    block_tokens: int
    block_chars: int

    @property
    def steps(self) -> int:
        """Calls in all."""
        return sum(task.steps for task in self.tasks)
