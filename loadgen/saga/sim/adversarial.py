"""S7 `adversarial`: what breaks schedulers, one part at a time or all of them.

`tool-cvX`: S1 with tool latencies log-normal around the default means with a coefficient of variation of X, as the
published sweep over 0.5 to 3. `compaction-storm`: contexts that are full after a few steps, so that what was cached is
soon worthless. `fan-out-N`: a parent whose answer starts N sub-agents at once. `tenant-flood`: one tenant with nine
tenths of the work beside two with equal rights. `worker-loss`: S1 while two workers fail. `skewed`: one task in ten has
half of all steps, and four in five begin with the same long prefix, which some workers hold. Called by `workloads`.
"""

import math
from functools import cache
from random import Random
from statistics import NormalDist

from msgspec import Struct

from saga.load.swe_bench import ToolLatency
from saga.sim.chat import lognormal
from saga.sim.conversation import (
    AGENTS,
    Conversation,
    Pages,
    SharedPrefix,
    SimAgent,
    SimStep,
    StreamPages,
    WorkerLoss,
)
from saga.sim.synthetic import CLASSES, LATENCIES, Latency, TaskClass, task_steps

PARTS = ("tool-cv3", "compaction-storm", "fan-out-32", "tenant-flood", "worker-loss", "skewed")
LOSSES = (WorkerLoss(0.3, 0, 60.0), WorkerLoss(0.6, 1, 120.0))
_SWE = CLASSES["swe-bench"][0]
_NORMAL = NormalDist()
_SAMPLES = 10_000  # behind the mean of a latency
_FLOOD = TaskClass("flood", ("flood",), 37.0, 150, (2000, 4000), (100, 500), 350.0, _SWE.tools, tasks_per_min=18.0)
_STEADY = TaskClass("steady", ("steady-0", "steady-1"), 37.0, 150, (2000, 4000), (100, 500), 350.0, _SWE.tools)


class VaryingLatency(Struct, frozen=True):
    """Log-normal with a mean and a coefficient of variation."""

    mean_s: float
    cv: float

    def draw(self, uniform: float) -> float:
        """Seconds at quantile `uniform`; cut nowhere."""
        variance = math.log(1 + self.cv * self.cv)
        score = _NORMAL.inv_cdf(max(uniform, 1e-9))
        return math.exp(math.log(self.mean_s) - variance / 2 + math.sqrt(variance) * score)


class Adversarial:
    """One part. Draw number i is the same for every system and however many are drawn."""

    def __init__(self, part: str, seed: int, context_tokens: int, page_tokens: int) -> None:
        """Raises ValueError for a part that there is not."""
        self._part, self._value = parse(part)
        self._seed = f"adversarial:{part}/{seed}"
        self._context_tokens = context_tokens
        self._page_tokens = page_tokens
        self._latencies: dict[str, Latency] = dict(LATENCIES)
        if self._part == "tool-cv":
            self._latencies = {tool: VaryingLatency(mean_s(found), self._value) for tool, found in LATENCIES.items()}
        self._popular = SharedPrefix(1, context_tokens // 4)
        self._children = SharedPrefix(0, context_tokens // 8)  # all sub-agents' tools and system prompt

    @property
    def weights(self) -> dict[str, float]:
        """Shares of service, by tenant."""
        return dict.fromkeys(self._tenants(), 1.0)

    @property
    def losses(self) -> tuple[WorkerLoss, ...]:
        """Those of `worker-loss`."""
        return LOSSES if self._part == "worker-loss" else ()

    def draw(self, number: int) -> Conversation:
        """Conversation number `number`."""
        random = Random(f"{self._seed}/{number}")
        kind, tenant = _SWE, self._part
        if self._part == "tenant-flood":
            kind = random.choices((_FLOOD, _STEADY), (18.0, 2.0))[0]
            tenant = random.choice(kind.tenants)
        if self._part == "skewed":
            kind = _GIANT if random.random() < GIANTS else _SHORT
            steps = _after(self._popular.tokens, kind, self._context_tokens, random, self._latencies)
            return Conversation(tenant, kind.name, (SimAgent("main", steps),))
        if self._part == "compaction-storm":
            return Conversation(tenant, "storm", (SimAgent("main", _storm(self._context_tokens, random)),))
        steps = task_steps(kind, self._context_tokens, random, self._latencies)
        agents = [SimAgent("main", steps)]
        if self._part == "fan-out":
            after_step = min(2, len(steps) - 1)
            agents += [SimAgent(f"sub{index}", self._child(random), after_step) for index in range(int(self._value))]
        return Conversation(tenant, kind.name, tuple(agents))

    def pages(self, number: int, agent: int) -> Pages:
        """Its page hashes."""
        if self._part == "skewed":
            popular = Random(f"{self._seed}/{number}/prefix").random() < POPULAR
            return StreamPages(self._page_tokens, number * AGENTS + agent, self._popular if popular else None)
        return StreamPages(self._page_tokens, number * AGENTS + agent, self._children if agent else None)

    def _tenants(self) -> tuple[str, ...]:
        return (*_FLOOD.tenants, *_STEADY.tenants) if self._part == "tenant-flood" else (self._part,)

    def _child(self, random: Random) -> tuple[SimStep, ...]:
        """A short task that begins with what all sub-agents begin with."""
        return _after(self._children.tokens, _CHILD, self._context_tokens, random, self._latencies)


def _after(
    prefix_tokens: int, kind: TaskClass, context_tokens: int, random: Random, latencies: dict[str, Latency]
) -> tuple[SimStep, ...]:
    """Steps of a task of this kind whose prompts begin with so many tokens."""
    task = task_steps(kind, context_tokens - prefix_tokens, random, latencies)
    return tuple(
        SimStep(
            step.prompt_tokens + prefix_tokens,
            step.output_tokens,
            step.kept_tokens + prefix_tokens if index else 0,
            step.think_s,
            step.tool,
            step.opens_turn,
        )
        for index, step in enumerate(task)
    )


GIANTS = 0.1  # of the tasks of `skewed`
POPULAR = 0.8  # of them, begin with the same prefix
_GIANT = TaskClass("giant", ("",), 90.0, 150, (500, 1500), (100, 500), 200.0, _SWE.tools)
_SHORT = TaskClass("short", ("",), 10.0, 30, (500, 1500), (100, 500), 350.0, _SWE.tools)
_CHILD = TaskClass("sub", ("",), 8.0, 30, (500, 1500), (50, 300), 350.0, _SWE.tools)


def parse(part: str) -> tuple[str, float]:
    """Its kind and its number. Raises ValueError, which says what there is."""
    for kind, most in (("tool-cv", 20.0), ("fan-out-", AGENTS - 1.0)):
        if part.startswith(kind):
            try:
                value = float(part.removeprefix(kind))
            except ValueError:
                value = 0.0
            if 0 < value <= most and (kind == "tool-cv" or value == int(value)):
                return kind.rstrip("-"), value
            raise ValueError(f"{part}: expected {kind}N with N above 0 and at most {most:g}")
    if part not in PARTS:
        raise ValueError(f"unknown adversarial part {part!r}; known: {', '.join(PARTS)}")
    return part, 0.0


@cache
def mean_s(latency: ToolLatency) -> float:
    """The mean of a latency as it is drawn."""
    return sum(latency.draw((at + 0.5) / _SAMPLES) for at in range(_SAMPLES)) / _SAMPLES


def _storm(context_tokens: int, random: Random) -> tuple[SimStep, ...]:
    """Steps that fill an eighth to a quarter of the context each; then all but the first prompt is summarised."""
    first_tokens = prompt_tokens = random.randint(context_tokens // 16, context_tokens // 8)
    kept_tokens = 0
    think_s = 0.0
    steps = []
    count = random.randint(10, 40)
    for index in range(count):
        output_tokens = random.randint(100, 500)
        if prompt_tokens + output_tokens > context_tokens:
            kept_tokens, prompt_tokens = first_tokens, first_tokens + random.randint(first_tokens, 2 * first_tokens)
        tool = "" if index == count - 1 else "code"
        steps.append(SimStep(prompt_tokens, output_tokens, kept_tokens, think_s, tool, index == 0))
        kept_tokens = prompt_tokens + output_tokens
        prompt_tokens = kept_tokens + random.randint(context_tokens // 8, context_tokens // 4)
        think_s = lognormal(random, 2.0, 1.0)
    return tuple(steps)
