"""The published synthetic workloads, drawn from a seed: S1 `swe-bench`, S2 `webarena`, S3 `tenants`.

Parameters are those printed with SAGA's own benchmark; tool latency is a log-normal body with a Pareto tail through the
three published quantiles (`saga.load.swe_bench.ToolLatency`). Nothing published says what happens when a context is
full: here it is compacted, as coding agents do. Nothing is shared between tasks.
"""

from collections.abc import Mapping
from random import Random
from typing import Protocol

from msgspec import Struct

from saga.load.swe_bench import ToolLatency
from saga.sim.conversation import Conversation, Pages, SimAgent, SimStep, StreamPages, WorkerLoss

SUMMARY_TOKENS = 2_000  # that stand for the dropped past after a compaction
CODE, FILE, WEB, DB = "code", "file", "web", "db"


class Latency(Protocol):
    """How long a tool runs."""

    def draw(self, uniform: float) -> float:
        """Seconds at quantile `uniform` in [0, 1)."""
        ...


LATENCIES = {
    CODE: ToolLatency(1.0, 0.180, 2.4, 28.0),
    FILE: ToolLatency(1.0, 0.045, 0.320, 1.2),
    WEB: ToolLatency(1.0, 0.850, 4.5, 45.0),
    DB: ToolLatency(1.0, 0.120, 0.890, 3.5),
}


class TaskClass(Struct, frozen=True):
    """Tasks of one kind. `steps` is a mean and a cap; ranges are uniform; `weight` is a tenant's share of service."""

    name: str
    tenants: tuple[str, ...]
    mean_steps: float
    max_steps: int
    prompt_tokens: tuple[int, int]
    output_tokens: tuple[int, int]
    observation_tokens: float
    tools: tuple[tuple[str, float], ...]
    tasks_per_min: float = 1.0  # of each tenant, in relation to the others
    weight: float = 1.0


_SWE_TOOLS = ((CODE, 0.45), (FILE, 0.40), (WEB, 0.10), (DB, 0.05))
_WEB_TOOLS = ((WEB, 0.75), (FILE, 0.15), (CODE, 0.05), (DB, 0.05))
_HALF_TOOLS = ((CODE, 0.5), (WEB, 0.5))
_HEAVY = ("heavy-0", "heavy-1", "heavy-2")
_MEDIUM = ("medium-0", "medium-1", "medium-2", "medium-3")
_LIGHT = ("light-0", "light-1", "light-2")

CLASSES: dict[str, tuple[TaskClass, ...]] = {
    "swe-bench": (TaskClass("swe", ("swe",), 37.0, 150, (2000, 4000), (100, 500), 350.0, _SWE_TOOLS),),
    "webarena": (TaskClass("web", ("web",), 18.0, 80, (4000, 8000), (50, 200), 800.0, _WEB_TOOLS),),
    "tenants": (
        TaskClass("heavy", _HEAVY, 100.0, 200, (3000, 5000), (200, 600), 400.0, _HALF_TOOLS, 16.0, 3.0),
        TaskClass("medium", _MEDIUM, 30.0, 80, (2000, 4000), (100, 400), 400.0, _HALF_TOOLS, 8.0, 2.0),
        TaskClass("light", _LIGHT, 10.0, 30, (1500, 3000), (50, 200), 400.0, _HALF_TOOLS, 4.0, 1.0),
    ),
}


class Synthetic:
    """Tasks of one workload. Draw number i is the same for every system and however many are drawn."""

    def __init__(self, name: str, seed: int, context_tokens: int, page_tokens: int) -> None:
        self._seed = f"{name}/{seed}"
        self._page_tokens = page_tokens
        self._context_tokens = context_tokens
        self._kinds = [(kind, tenant) for kind in CLASSES[name] for tenant in kind.tenants]
        self._rates = [kind.tasks_per_min for kind, _ in self._kinds]

    @property
    def weights(self) -> dict[str, float]:
        """Shares of service, by tenant."""
        return {tenant: kind.weight for kind, tenant in self._kinds}

    @property
    def losses(self) -> tuple[WorkerLoss, ...]:
        """None."""
        return ()

    def draw(self, number: int) -> Conversation:
        """Task number `number`."""
        random = Random(f"{self._seed}/{number}")
        kind, tenant = random.choices(self._kinds, self._rates)[0] if len(self._kinds) > 1 else self._kinds[0]
        steps = task_steps(kind, self._context_tokens, random)
        return Conversation(tenant, kind.name, (SimAgent("main", steps),))

    def pages(self, number: int, agent: int) -> Pages:  # noqa: ARG002 - there is only one
        """Its page hashes."""
        return StreamPages(self._page_tokens, number)


def task_steps(
    kind: TaskClass, context_tokens: int, random: Random, latencies: Mapping[str, Latency] = LATENCIES
) -> tuple[SimStep, ...]:
    """Steps of one task of this kind."""
    count = min(kind.max_steps, max(1, round(random.gammavariate(2, kind.mean_steps / 2))))
    names = [name for name, _ in kind.tools]
    shares = [share for _, share in kind.tools]
    first_tokens = prompt_tokens = random.randint(*kind.prompt_tokens)
    kept_tokens = 0
    think_s = 0.0
    steps = []
    for index in range(count):
        output_tokens = random.randint(*kind.output_tokens)
        observation_tokens = max(1, round(random.gammavariate(2, kind.observation_tokens / 2)))
        if prompt_tokens + kind.output_tokens[1] > context_tokens:
            kept_tokens, prompt_tokens = first_tokens, first_tokens + SUMMARY_TOKENS + observation_tokens
        tool = "" if index == count - 1 else random.choices(names, shares)[0]
        steps.append(SimStep(prompt_tokens, output_tokens, kept_tokens, think_s, tool, index == 0))
        kept_tokens = prompt_tokens + output_tokens
        prompt_tokens = kept_tokens + observation_tokens
        think_s = latencies[tool].draw(random.uniform(0.0, 0.999999)) if tool else 0.0
    return tuple(steps)
