"""Many workflows at once: all begin together, each sends a few steps with short gaps, and every one has to be answered.

Not a replay and not about speed: whether anything in the mesh gives way when thousands wait (limits, descriptors, the
active set's decisions) and whether anything is left behind. Called by bench/crowd.py and tests/integration.
"""

import asyncio
import time
from collections import Counter
from random import Random

from msgspec import Struct

from saga.load.client import GatewayClient, StepAnswer, StepRequest
from saga.load.content import Speller
from saga.load.figures import Quantiles, quantiles

BLOCK_TOKENS = 64
MOST_ERRORS = 5  # kinds told


class Shape(Struct, frozen=True):
    """What each workflow does. Tokens are characters."""

    workflows: int = 2_048
    steps: int = 4
    first_tokens: int = 2_048
    new_tokens: int = 256  # of each later prompt, beside the answer
    output_tokens: int = 16
    gap_s: float = 1.0  # mean, between two steps


class Outcome(Struct, frozen=True):
    """What became of all. `waited`: steps by the cause that their gateway names; `errors`: steps by what failed."""

    workflows: int
    completed: int
    steps: int
    elapsed_s: float
    most_open: int  # workflows begun and not over at one time
    refused_steps: int  # told to come again, at least once
    waited: dict[str, int]
    errors: dict[str, int]
    tct_s: Quantiles
    step_s: Quantiles


class Crowd:
    """All workflows of one run."""

    def __init__(self, client: GatewayClient, model: str, shape: Shape, seed: int) -> None:
        self._client = client
        self._model = model
        self._shape = shape
        self._random = Random(seed)
        self._speller = Speller(BLOCK_TOKENS, seed)
        self._name = f"crowd-{seed}"
        self._answers: list[StepAnswer] = []
        self._times_s: list[float] = []
        self._open = self._most_open = 0

    async def run(self) -> Outcome:
        """All of them, to their ends; a step that fails ends its workflow."""
        began_s = time.monotonic()
        async with asyncio.TaskGroup() as group:
            for number in range(self._shape.workflows):
                gaps_s = [self._random.expovariate(1 / self._shape.gap_s) for _ in range(self._shape.steps)]
                group.create_task(self._workflow(number, gaps_s))
        answers = self._answers
        return Outcome(
            workflows=self._shape.workflows,
            completed=len(self._times_s),
            steps=sum(not answer.error for answer in answers),
            elapsed_s=time.monotonic() - began_s,
            most_open=self._most_open,
            refused_steps=sum(answer.refused_wait_s > 0 for answer in answers),
            waited=dict(Counter(answer.waited for answer in answers if not answer.error)),
            errors=dict(Counter(answer.error for answer in answers if answer.error).most_common(MOST_ERRORS)),
            tct_s=quantiles(self._times_s),
            step_s=quantiles([answer.last_s - answer.sent_s for answer in answers if not answer.error]),
        )

    async def _workflow(self, number: int, gaps_s: list[float]) -> None:
        shape, name = self._shape, f"{self._name}-{number}"
        blocks = shape.first_tokens // BLOCK_TOKENS
        most_blocks = blocks + shape.steps * (shape.new_tokens // BLOCK_TOKENS)
        prompt = self._text(number * most_blocks, blocks)
        self._open += 1
        self._most_open = max(self._most_open, self._open)
        began_s = time.monotonic()
        for step in range(shape.steps):
            final = step == shape.steps - 1
            request = StepRequest(self._model, prompt, shape.output_tokens, name, name, final=final)
            answer = await self._client.complete(request, lambda: None)
            self._answers.append(answer)
            if answer.error:
                break
            at = number * most_blocks + blocks
            prompt += answer.text + self._text(at, shape.new_tokens // BLOCK_TOKENS)
            blocks += shape.new_tokens // BLOCK_TOKENS
            if not final:
                await asyncio.sleep(gaps_s[step])
        else:
            self._times_s.append(time.monotonic() - began_s)
        self._open -= 1

    def _text(self, first: int, blocks: int) -> str:
        return "".join(map(self._speller.text, range(first, first + blocks)))
