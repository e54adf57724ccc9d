"""Replays a plan in real time, end to start: each step is sent its think time after the answer to the one before.

Absolute timestamps are never replayed: they would punish or reward a system for the speed of the recorded one.
Sub-agents run beside their parent. Called by bench_live once per system, with fresh text and a fresh ideal cache each
time.
"""

import asyncio
import time
from collections.abc import Callable, Sequence
from typing import Protocol

from msgspec import Struct

from saga.load.apis import Api, sequence_of
from saga.load.client import StepAnswer, StepRequest
from saga.load.content import Numbering, Speller, TaskText
from saga.load.ideal import Chain, InfiniteCache
from saga.load.plan import Plan, PlannedAgent, PlannedTask
from saga.load.trace import Session
from saga.load.turns import Talk


class Completer(Protocol):
    """What a replay needs of a client."""

    async def complete(self, request: StepRequest, on_first: Callable[[], None]) -> StepAnswer:
        """Send one step and read its whole answer; never raises for a failed step."""
        ...


class ReplaySettings(Struct, frozen=True):
    """How to replay: the model, the engines' speed, sessions open at once (None: all), and the seed of the text."""

    model: str
    speed: float
    page_tokens: int
    concurrency: int | None = None
    splice: bool = True
    seed: int = 0
    api: Api = "completions"


class StepRecord(Struct, frozen=True):
    """One step as it went. `ideal_tokens`: what an infinite cache would have had of its prompt, -1 if it was never
    answered.
    """

    session: str
    index: int
    prompt_tokens: int
    ideal_tokens: int
    answer: StepAnswer


class TaskRecord(Struct, frozen=True):
    """A task's real monotonic times, first submission to last answer, and its steps that failed."""

    session_id: str
    submitted_s: float
    answered_s: float
    failed_steps: int


class Replayed(Struct, frozen=True):
    """A whole run. `held` are (monotonic seconds, change in tokens) of the conversations open; `late_s` the generator's
    own lag.
    """

    tasks: tuple[TaskRecord, ...]
    steps: tuple[StepRecord, ...]
    held: tuple[tuple[float, int], ...]
    late_s: tuple[float, ...]
    started_s: float
    ended_s: float


class Replay:
    """One run of a plan against one gateway."""

    def __init__(
        self,
        plan: Plan,
        sessions: Sequence[Session],
        client: Completer,
        settings: ReplaySettings,
        on_step: Callable[[bool], None],
    ) -> None:
        self._plan = plan
        self._client = client
        self._settings = settings
        self._on_step = on_step
        self._numbering = Numbering(sessions)
        self._speller = Speller(plan.block_chars, settings.seed)
        self._ideal = InfiniteCache(settings.page_tokens)
        self._steps: list[StepRecord] = []
        self._tasks: list[TaskRecord] = []
        self._held: list[tuple[float, int]] = []
        self._late_s: list[float] = []

    async def run(self) -> Replayed:
        """Replay every task; returns when the last step of the last one is answered or has failed."""
        slots = asyncio.Semaphore(self._settings.concurrency or max(1, len(self._plan.tasks)))
        started_s = time.monotonic()
        async with asyncio.TaskGroup() as group:
            for task in self._plan.tasks:
                group.create_task(self._task(task, slots))
        steps, tasks = tuple(self._steps), tuple(self._tasks)
        return Replayed(tasks, steps, tuple(self._held), tuple(self._late_s), started_s, time.monotonic())

    async def _task(self, task: PlannedTask, slots: asyncio.Semaphore) -> None:
        async with slots:
            text = TaskText(task, self._plan, self._numbering, self._speller)
            mains = [agent for agent in task.agents if agent.parent is None]
            answered = [asyncio.Event() for _ in (mains[0].steps if mains else ())]
            submitted_s = time.monotonic()
            async with asyncio.TaskGroup() as group:
                runs = [group.create_task(self._agent(task, agent, text, answered)) for agent in task.agents]
            failed = sum(run.result() for run in runs)
            self._tasks.append(TaskRecord(task.session_id, submitted_s, time.monotonic(), failed))

    async def _agent(
        self,
        task: PlannedTask,
        agent: PlannedAgent,
        text: TaskText,
        main_answered: list[asyncio.Event],
    ) -> int:
        """Runs one session of the mesh; returns how many of its steps failed."""
        if agent.after_step is not None:
            await main_answered[agent.after_step].wait()
        await self._think(agent.start_s)
        chain = Chain()
        api = self._settings.api
        talk = Talk(agent.steps[0].shared_blocks * self._plan.block_chars)
        failed = held = 0
        for index, step in enumerate(agent.steps):
            await self._think(step.think_s)
            prompt = text.prompt(agent, step)
            # Not said to be final, though a replay knows: an agent learns that from the answer.
            turns = talk.asked(prompt)
            sequence = sequence_of(api, turns)
            request = StepRequest(
                self._settings.model, prompt, step.max_tokens, task.session_id, agent.name, agent.parent, turns=turns
            )
            self._hold(len(prompt) - held)
            ideal_tokens = -1

            def first(sequence: str = sequence) -> None:
                nonlocal ideal_tokens
                ideal_tokens = self._ideal.cached_tokens(chain, sequence)

            answer = await self._client.complete(request, first)
            received, answer.text = answer.text, ""
            if answer.error:
                failed += 1
            else:
                self._ideal.insert(chain, sequence + received)
                if self._settings.splice:
                    talk.answered(received)
                    text.answered(agent, step, prompt, received)
            held = len(prompt) + len(received)
            over = index == len(agent.steps) - 1
            self._hold(-len(prompt) if over else len(received))
            self._steps.append(StepRecord(agent.name, index, len(sequence), ideal_tokens, answer))
            self._on_step(not answer.error)
            if agent.parent is None:
                main_answered[index].set()
        return failed

    def _hold(self, change_tokens: int) -> None:
        self._held.append((time.monotonic(), change_tokens))

    async def _think(self, recorded_s: float) -> None:
        if recorded_s <= 0:
            return
        due_s = time.monotonic() + recorded_s / self._settings.speed
        await asyncio.sleep(due_s - time.monotonic())
        self._late_s.append(time.monotonic() - due_s)
