"""Background chat: short conversations of one or several turns, each step a turn of a human.

Lengths are the published averages of Mooncake's conversation trace, 12,035 tokens of input and 343 of output a request.
Turns are geometric with the mean at which the share of input an infinite cache holds is the published 36.6 %:
1 / (1 - 0.366). The trace's arrivals have a coefficient of variation of 3; here the gaps between turns have it, and an
open loop may. Assumed, not published: log-normal lengths with sigma 1, 60 s between turns. Called by `mixed`.
"""

import math
from random import Random

from saga.sim.conversation import AGENTS, Conversation, Pages, SimAgent, SimStep, StreamPages, WorkerLoss

TENANT = "chat"
INPUT_TOKENS = 12_035.0
OUTPUT_TOKENS = 343.0
HIT_SHARE = 0.366
MESSAGE_TOKENS = 250.0  # of a turn after the first; assumed
LENGTH_SIGMA = 1.0
GAP_S = 60.0
CV = 3.0
MOST_TURNS = 40


class Chat:
    """Conversations of humans. Draw number i is the same for every system and however many are drawn."""

    def __init__(self, seed: int, context_tokens: int, page_tokens: int) -> None:
        self._seed = seed
        self._context_tokens = context_tokens
        self._page_tokens = page_tokens

    @property
    def weights(self) -> dict[str, float]:
        """One tenant."""
        return {TENANT: 1.0}

    @property
    def losses(self) -> tuple[WorkerLoss, ...]:
        """None."""
        return ()

    def draw(self, number: int) -> Conversation:
        """Conversation number `number`; it ends early where its context is full."""
        random = Random(f"chat/{self._seed}/{number}")
        # A later prompt holds what came before it, so the first is shorter than the mean of all.
        later = HIT_SHARE / (1 - HIT_SHARE) * (OUTPUT_TOKENS + MESSAGE_TOKENS)
        prompt_tokens = _length(random, INPUT_TOKENS - later)
        output_tokens = _length(random, OUTPUT_TOKENS)
        prompt_tokens = min(prompt_tokens, self._context_tokens // 2)
        output_tokens = min(output_tokens, self._context_tokens // 4)
        steps = [SimStep(prompt_tokens, output_tokens, 0, 0.0, "", opens_turn=True)]
        while len(steps) < MOST_TURNS and random.uniform(0, 1) < HIT_SHARE:
            kept_tokens = prompt_tokens + output_tokens
            prompt_tokens = kept_tokens + _length(random, MESSAGE_TOKENS)
            output_tokens = _length(random, OUTPUT_TOKENS)
            gap_s = lognormal(random, GAP_S, CV)
            if prompt_tokens + output_tokens > self._context_tokens:
                break
            steps.append(SimStep(prompt_tokens, output_tokens, kept_tokens, gap_s, "", opens_turn=True))
        return Conversation(TENANT, "chat", (SimAgent("main", tuple(steps)),))

    def pages(self, number: int, agent: int) -> Pages:
        """Its page hashes: its own, nothing is shared."""
        return StreamPages(self._page_tokens, number * AGENTS + agent)


def lognormal(random: Random, mean: float, cv: float) -> float:
    """A log-normal value with this mean and coefficient of variation."""
    variance = math.log(1 + cv * cv)
    return random.lognormvariate(math.log(mean) - variance / 2, math.sqrt(variance))


def _length(random: Random, mean_tokens: float) -> int:
    return max(1, round(random.lognormvariate(math.log(mean_tokens) - LENGTH_SIGMA**2 / 2, LENGTH_SIGMA)))
