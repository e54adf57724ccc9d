"""A steady stream of equal steps from many agent sessions, in open loop (Poisson) or closed loop.

Not a replay: no recorded session, no think time; for benchmarks of the control plane. Called by bench/control_plane.py.
"""

import asyncio
import time
from collections import deque
from random import Random

import msgspec
from msgspec import Struct

from saga.load.content import Speller
from saga.load.figures import Quantiles, quantiles
from saga.load.lean_client import LeanAnswer, LeanClient

PROMPT_TOKENS = 2048
SHARED_TOKENS = 1536  # of a session's prompt, the same in each of its steps
OUTPUT_TOKENS = 32
SESSION_STEPS = 10


class Part(Struct, frozen=True):
    """One part's figures: steps answered in full, those that were not, and how long it took in real seconds."""

    steps: int
    failed: int
    elapsed_s: float
    steps_per_s: float
    control_ms: Quantiles
    answer_ms: Quantiles
    waited_for_nothing: int


class Agents:
    """Sessions that send one step at a time: the one idle longest goes next; after ten steps a new one takes over."""

    def __init__(self, model: str, seed: int) -> None:
        self._model = model
        self._speller = Speller(64, seed)
        self._idle: deque[tuple[int, int]] = deque()
        self._sessions = 0
        self._numbers = 1_000_000

    def request(self) -> tuple[tuple[int, int], dict[str, str], bytes]:
        """The session and step to give back, headers and body."""
        if self._idle:
            session, step = self._idle.popleft()
        else:
            session, step = self._sessions, 0
            self._sessions += 1
        shared_blocks, own_blocks = SHARED_TOKENS // 64, (PROMPT_TOKENS - SHARED_TOKENS) // 64
        numbers = [session * shared_blocks + block for block in range(shared_blocks)]
        numbers += range(self._numbers, self._numbers + own_blocks)
        self._numbers += own_blocks
        body = msgspec.json.encode(
            {
                "model": self._model,
                "prompt": "".join(map(self._speller.text, numbers)),
                "max_tokens": OUTPUT_TOKENS,
                "stream": True,
                "ignore_eos": True,
                "stream_options": {"include_usage": True},
            }
        )
        name = f"control-plane-{session}"
        headers = {"X-Saga-Workflow": name, "X-Saga-Session": name}
        if step == SESSION_STEPS - 1:
            headers["X-Saga-Final"] = "1"
        return (session, step), headers, body

    def give_back(self, turn: tuple[int, int]) -> None:
        """The step is over; its session may send the next one."""
        session, step = turn
        if step + 1 < SESSION_STEPS:
            self._idle.append((session, step + 1))


class Driver:
    """Sends steps and keeps what came back."""

    def __init__(self, client: LeanClient, agents: Agents) -> None:
        self._client = client
        self._agents = agents
        self._answers: list[LeanAnswer] = []
        self._failed = 0

    async def step(self) -> None:
        """One step, to its end."""
        turn, headers, body = self._agents.request()
        try:
            answer = await self._client.post("/v1/completions", headers, body)
        except OSError:
            self._failed += 1
        else:
            self._answers.append(answer)
            self._failed += not answer.complete or b'"completion_tokens":%d' % OUTPUT_TOKENS not in answer.tail.replace(
                b" ", b""
            )
        self._agents.give_back(turn)

    async def open_loop(self, rate: float, seconds: float, random: Random) -> Part:
        """Poisson arrivals; a late start does not slow the ones after it."""
        started_s = due_s = time.monotonic()
        async with asyncio.TaskGroup() as group:
            while due_s < started_s + seconds:
                due_s += random.expovariate(rate)
                await asyncio.sleep(due_s - time.monotonic())
                group.create_task(self.step())
        return self._take(started_s)

    async def closed_loop(self, inflight: int, seconds: float) -> Part:
        """`inflight` steps at all times."""
        started_s = time.monotonic()

        async def user() -> None:
            while time.monotonic() < started_s + seconds:
                await self.step()

        async with asyncio.TaskGroup() as group:
            for _ in range(inflight):
                group.create_task(user())
        return self._take(started_s)

    async def paced(self, users: int, rate: float, seconds: float, random: Random) -> Part:
        """So many users who together send `rate` steps a second, at random, and fewer while answers take so long that a
        user's next step would be due before: what is late is left out, so that nothing piles up."""
        started_s = time.monotonic()

        async def user() -> None:
            due_s = started_s + random.expovariate(rate / users)
            while due_s < started_s + seconds:
                await asyncio.sleep(due_s - time.monotonic())
                await self.step()
                due_s = max(due_s + random.expovariate(rate / users), time.monotonic())

        async with asyncio.TaskGroup() as group:
            for _ in range(users):
                group.create_task(user())
        return self._take(started_s)

    def _take(self, started_s: float) -> Part:
        answers, failed = self._answers, self._failed
        self._answers, self._failed = [], 0
        elapsed_s = time.monotonic() - started_s
        undelayed = [answer for answer in answers if answer.waited == "none" and answer.control_ms >= 0]
        return Part(
            steps=len(answers),
            failed=failed,
            elapsed_s=elapsed_s,
            steps_per_s=len(answers) / elapsed_s,
            control_ms=quantiles([answer.control_ms for answer in undelayed]),
            answer_ms=quantiles([(answer.last_s - answer.sent_s) * 1000 for answer in answers if answer.last_s > 0]),
            waited_for_nothing=len(undelayed),
        )
