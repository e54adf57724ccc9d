"""What is written down while a simulation runs: tasks, and totals over steps. Percentiles and ratios are `figures`'."""

from collections.abc import Mapping

from msgspec import Struct

from saga.sim.service_gap import ServiceGap


class TaskRecord(Struct, frozen=True, gc=False):
    """One task: the turn of a conversation, from its first submission to its last answer, in virtual seconds."""

    number: int
    turn: int
    submitted_s: float
    ended_s: float
    agent_class: str = ""

    @property
    def tct_s(self) -> float:
        """Task completion time."""
        return self.ended_s - self.submitted_s


class Ledger:
    """One run. Steps count for hit rate and first tokens only in conversations of `measured`."""

    def __init__(self, measured: range, weights: Mapping[str, float]) -> None:
        """`weights`: of tenants."""
        self.measured = measured
        self.gap = ServiceGap(weights)
        self.tasks: list[TaskRecord] = []
        self.failures = 0
        self.refusals = 0
        self.steps = 0
        self.ttft_s: list[float] = []
        self.prompt_tokens = 0
        self.cached_tokens = 0
        self.needed_tokens = 0  # prefill that an infinite cache would have had to do, over all steps

    def task(self, number: int, turn: int, submitted_s: float, ended_s: float, agent_class: str = "") -> None:
        """A task is done."""
        self.tasks.append(TaskRecord(number, turn, submitted_s, ended_s, agent_class))

    def failed(self, tasks: int) -> None:
        """So many tasks will never be done."""
        self.failures += tasks

    def step(self, number: int, ttft_s: float, prompt_tokens: int, cached_tokens: int, known_tokens: int) -> None:
        """A step is answered. `known_tokens`: of its prompt, what an infinite cache would have had."""
        self.steps += 1
        self.needed_tokens += prompt_tokens - known_tokens
        if number in self.measured:
            self.ttft_s.append(ttft_s)
            self.prompt_tokens += prompt_tokens
            self.cached_tokens += cached_tokens
