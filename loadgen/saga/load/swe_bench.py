"""The published synthetic SWE-bench workload as sessions, drawn from a seed; no file is read and nothing is shared
between tasks.

Parameters are those printed with SAGA's own benchmark: steps gamma(2, 18.5) capped at 150, prompt U[2000, 4000], output
U[100, 500], observation gamma(2, 175), tools code 45 / file 40 / web 10 / db 5 %. Called by bench_live for `--workload
swe-bench`.
"""

import math
from random import Random
from statistics import NormalDist

from msgspec import Struct

from saga.load.trace import MAIN_AGENT, Session, Step

BLOCK_TOKENS = 64
MAX_STEPS = 150
MAX_LATENCY_S = 300.0
NORMAL = NormalDist()
TAIL_FROM = 0.95
Z_P95 = NORMAL.inv_cdf(TAIL_FROM)


class ToolLatency(Struct, frozen=True):
    """A tool's published latency quantiles in seconds, and its share of calls."""

    share: float
    p50_s: float
    p95_s: float
    p99_s: float

    def draw(self, uniform: float) -> float:
        """Latency in seconds at quantile `uniform` in [0, 1).

        Log-normal through P50 and P95 up to P95, beyond it a Pareto tail through P95 and P99: one log-normal through
        the first two misses the published P99 by up to four times. Cut at 300 s (the tail index is below one for some
        tools).
        """
        if uniform <= TAIL_FROM:
            sigma: float = math.log(self.p95_s / self.p50_s) / Z_P95
            return self.p50_s * math.exp(sigma * NORMAL.inv_cdf(max(uniform, 1e-9)))
        power: float = math.log(self.p99_s / self.p95_s) / math.log((1 - TAIL_FROM) / (1 - 0.99))
        tail_s: float = self.p95_s * ((1 - TAIL_FROM) / (1 - uniform)) ** power
        return min(MAX_LATENCY_S, tail_s)


TOOLS = (
    ToolLatency(0.45, 0.180, 2.4, 28.0),
    ToolLatency(0.40, 0.045, 0.320, 1.2),
    ToolLatency(0.10, 0.850, 4.5, 45.0),
    ToolLatency(0.05, 0.120, 0.890, 3.5),
)


def generate(tasks: int, seed: int) -> list[Session]:
    """`tasks` sessions; task i is the same whatever their number, so a longer run contains a shorter one."""
    return [_session(index, Random(f"{seed}/{index}")) for index in range(tasks)]


def _session(index: int, random: Random) -> Session:
    count = min(MAX_STEPS, max(1, round(random.gammavariate(2, 18.5))))
    steps = []
    input_tokens = random.randint(2000, 4000)
    start_s = gap_s = 0.0
    for step in range(count):
        output_tokens = random.randint(100, 500)
        blocks = ((0, input_tokens // BLOCK_TOKENS),)
        stop = "end_turn" if step == count - 1 else "tool_use"
        steps.append(Step(MAIN_AGENT, start_s, input_tokens, output_tokens, blocks, stop, None, gap_s))
        input_tokens += output_tokens + max(1, round(random.gammavariate(2, 175)))
        tool = random.choices(TOOLS, [tool.share for tool in TOOLS])[0]
        gap_s = tool.draw(random.uniform(0.0, 0.999999))
        start_s += gap_s
    return Session(f"swe-{index:05d}", BLOCK_TOKENS, tuple(steps))
