"""S5 `coding-fitted`: synthetic coding sessions with the shape of the recorded ones, however many are wanted.

Drawn from the quantile tables of `fit`. A task is one turn: message to answer. Contexts stay within a worker's: a
session that would exceed it compacts. What the fit leaves out: side calls, returns to an older prompt, and every
correlation but that of steps and turns.
"""

from random import Random
from statistics import NormalDist

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
from saga.sim.fit import Table, load_fit, value_at

TENANT = "coding"
TOOL = "tool"  # the fit does not tell them apart
LARGEST_ANSWER = 8  # one of this many parts of a context at most
LARGEST_PREFIX = 4  # the same
FULLEST = 0.9  # of a context that a first or compacted prompt takes at most
NEW_TOKENS = 16  # at least, after a compaction or a revision
_NORMAL = NormalDist()


class Fitted:
    """Sessions of the family. Draw number i is the same for every system and however many are drawn."""

    def __init__(self, seed: int, context_tokens: int, page_tokens: int) -> None:
        self._fit = fit = load_fit()
        self._seed = seed
        self._context_tokens = context_tokens
        self._page_tokens = page_tokens
        most = context_tokens // LARGEST_PREFIX
        self._prefixes = [
            SharedPrefix(at, min(most, _whole(fit.prefix_tokens, (at + 0.5) / fit.prefix_classes)))
            for at in range(fit.prefix_classes)
        ]
        self._sub_prefix = SharedPrefix(fit.prefix_classes, min(most, fit.sub.prefix_tokens))

    @property
    def weights(self) -> dict[str, float]:
        """One tenant."""
        return {}

    @property
    def losses(self) -> tuple[WorkerLoss, ...]:
        """None."""
        return ()

    def draw(self, number: int) -> Conversation:
        """Session number `number`."""
        random = self._random(number)
        prefix = self._prefix(random)
        main = SimAgent("main", self._main_steps(random, prefix.tokens))
        sub = self._fit.sub
        agents = [main]
        if random.uniform(0, 1) < sub.sessions:
            for index in range(min(AGENTS - 1, _whole(sub.per_session, random.uniform(0, 1)))):
                after_step = random.randrange(len(main.steps))
                agents.append(SimAgent(f"sub{index}", self._sub_steps(random), after_step))
        return Conversation(TENANT, f"coding-{prefix.number}", tuple(agents))

    def pages(self, number: int, agent: int) -> Pages:
        """Its page hashes."""
        prefix = self.prefix(number) if agent == 0 else self._sub_prefix
        return StreamPages(self._page_tokens, number * AGENTS + agent, prefix)

    def prefix(self, number: int) -> SharedPrefix:
        """Tools and system prompt of its main agent, those of its class."""
        return self._prefix(self._random(number))

    def _prefix(self, random: Random) -> SharedPrefix:
        return self._prefixes[random.randrange(len(self._prefixes))]

    def _random(self, number: int) -> Random:
        return Random(f"coding-fitted/{self._seed}/{number}")

    def _main_steps(self, random: Random, prefix_tokens: int) -> tuple[SimStep, ...]:
        fit = self._fit.main
        score = random.gauss(0, 1)
        count = max(1, _whole(fit.steps_per_session, _NORMAL.cdf(score)))
        turns = max(1, _whole(fit.turns_per_session, _like(random, score, fit.steps_and_turns)))
        ends = _turn_ends(random, fit.steps_per_turn, count, min(count, turns))
        first_tokens = _whole(fit.first_prompt_tokens, _like(random, score, fit.steps_and_first_prompt))
        context = _Context(random, first_tokens, self._context_tokens, prefix_tokens)
        if random.uniform(0, 1) < fit.compacting:
            context.compact_at(value_at(fit.compaction_tokens, random.uniform(0, 1)))
        steps: list[SimStep] = []
        opens, revises, think_s = True, False, 0.0
        for index in range(count):
            closes = index in ends
            revised, revises = revises, random.uniform(0, 1) < fit.revision_chance
            answers = fit.revised_output_tokens if revises else fit.output_tokens
            output_tokens = context.answer(fit.final_output_tokens if closes else answers)
            if revised:
                new_tokens = _whole(fit.revised_tokens, random.uniform(0, 1))
                context.revise(_whole(fit.revised_growth_tokens, random.uniform(0, 1)), new_tokens)
            elif index:
                context.extend(_whole(fit.message_tokens if opens else fit.observation_tokens, random.uniform(0, 1)))
            context.fit_in(output_tokens)
            steps.append(context.step(output_tokens, think_s, "" if closes else TOOL, opens_turn=opens))
            think_s = value_at(fit.human_gap_s if closes else fit.tool_gap_s, random.uniform(0, 1))
            opens = closes
        return tuple(steps)

    def _sub_steps(self, random: Random) -> tuple[SimStep, ...]:
        fit = self._fit.sub
        first_tokens = _whole(fit.first_prompt_tokens, random.uniform(0, 1))
        context = _Context(random, first_tokens, self._context_tokens, self._sub_prefix.tokens)
        count = max(1, _whole(fit.steps, random.uniform(0, 1)))
        steps: list[SimStep] = []
        think_s = 0.0
        for index in range(count):
            output_tokens = context.answer(fit.output_tokens)
            if index:
                context.extend(_whole(fit.observation_tokens, random.uniform(0, 1)))
            context.fit_in(output_tokens)
            steps.append(context.step(output_tokens, think_s, TOOL if index < count - 1 else "", opens_turn=index == 0))
            think_s = value_at(fit.tool_gap_s, random.uniform(0, 1))
        return tuple(steps)


class _Context:
    """The prompts of one agent as they grow, are revised and compacted."""

    def __init__(self, random: Random, first_tokens: int, context_tokens: int, prefix_tokens: int) -> None:
        self._random = random
        self._context_tokens = context_tokens
        self._compact_at = float(context_tokens)
        self._prefix_tokens = prefix_tokens
        self._fullest = int(FULLEST * context_tokens) - context_tokens // LARGEST_ANSWER
        self._prompt_tokens = min(self._fullest, max(prefix_tokens + NEW_TOKENS, first_tokens))
        self._last_tokens = 0
        self._kept_tokens = 0
        self._sequence_tokens = 0  # of the last prompt and its answer

    def compact_at(self, tokens: float) -> None:
        """Compact prompts of more than this, or than the first one if that is longer."""
        self._compact_at = min(self._compact_at, max(tokens, self._prompt_tokens))

    def answer(self, table: Table) -> int:
        """Tokens of the next answer."""
        return max(1, min(self._context_tokens // LARGEST_ANSWER, _whole(table, self._random.uniform(0, 1))))

    def extend(self, tokens: int) -> None:
        """The next prompt: the last sequence and so much more."""
        self._last_tokens = self._prompt_tokens
        self._kept_tokens = self._sequence_tokens
        self._prompt_tokens = self._sequence_tokens + max(NEW_TOKENS, tokens)

    def revise(self, tokens: int, new_tokens: int) -> None:
        """The next prompt: so much longer than the last one, and its end is new."""
        self._last_tokens = self._prompt_tokens
        self._prompt_tokens += tokens
        self._kept_tokens = min(self._last_tokens, self._prompt_tokens - max(NEW_TOKENS, new_tokens))

    def fit_in(self, output_tokens: int) -> None:
        """Compact the next prompt if it is too long, by itself or with its answer. The first one fits."""
        if not self._last_tokens:
            return
        if self._prompt_tokens > self._compact_at or self._prompt_tokens + output_tokens > self._context_tokens:
            fit = load_fit().main
            shorter = int(value_at(fit.compacted_share, self._random.uniform(0, 1)) * self._last_tokens)
            self._prompt_tokens = max(min(self._fullest, shorter), self._prefix_tokens + NEW_TOKENS)
            self._kept_tokens = int(self._prompt_tokens * value_at(fit.compacted_kept, self._random.uniform(0, 1)))
        self._kept_tokens = max(self._prefix_tokens, min(self._kept_tokens, self._prompt_tokens - NEW_TOKENS))

    def step(self, output_tokens: int, think_s: float, tool: str, *, opens_turn: bool) -> SimStep:
        """This prompt with an answer."""
        self._sequence_tokens = self._prompt_tokens + output_tokens
        return SimStep(self._prompt_tokens, output_tokens, self._kept_tokens, think_s, tool, opens_turn)


def _turn_ends(random: Random, lengths: Table, count: int, turns: int) -> set[int]:
    """The last steps of `turns` turns of `count` steps in all, in proportion to drawn lengths."""
    drawn = [value_at(lengths, random.uniform(0, 1)) for _ in range(turns)]
    scale = (count - turns) / sum(drawn)
    ends, passed = set(), 0.0
    for at, length in enumerate(drawn[:-1], 1):
        passed += length
        ends.add(at - 1 + int(scale * passed))
    return ends | {count - 1}


def _like(random: Random, score: float, correlation: float) -> float:
    """A probability whose normal score correlates so with `score`."""
    rest: float = (1 - correlation**2) ** 0.5
    return _NORMAL.cdf(correlation * score + rest * random.gauss(0, 1))


def _whole(table: Table, probability: float) -> int:
    return round(value_at(table, probability))
