"""The text of a plan: ASCII, one character per token, so that two prompts share text exactly where their recorded
blocks are equal.

Every block has a number, and its text repeats that number, least significant digit first, in 92 printable characters.
Blocks with neighbouring numbers so differ at their first character, and any two within four: far inside a page of 16,
so no two different blocks ever share a page. Not the order of sending: replay asks for each prompt when its turn comes.
"""

from collections.abc import Iterable, Sequence
from itertools import chain
from random import Random

from saga.load.plan import Plan, PlannedAgent, PlannedStep, PlannedTask
from saga.load.trace import Session

# Printable ASCII without what JSON escapes (quote, backslash) or what opens a special token (<).
ALPHABET = "".join(chr(code) for code in range(0x20, 0x7F) if chr(code) not in '"\\<')
DIGITS = 4


class Numbering:
    """Gives each block of a trace one number, for the whole file: a block's text does not depend on what else is
    replayed.
    """

    def __init__(self, sessions: Sequence[Session]) -> None:
        self._shared_base: dict[tuple[int, int], int] = {}
        self._block_base: list[int] = []
        self._tail_base: list[int] = []
        at = 0
        for session in sessions:
            keys = [(session.tool_tokens, session.system_tokens)]
            keys += [(sub.tool_tokens, sub.system_tokens) for sub in session.subagents]
            for key in keys:
                if key not in self._shared_base:
                    self._shared_base[key] = at
                    at += sum(key) // session.block_tokens
            self._block_base.append(at)
            at += 1 + max((first + count - 1 for step in session.steps for first, count in step.blocks), default=0)
            self._tail_base.append(at)
            at += len(session.steps)

    def shared(self, key: tuple[int, int], index: int) -> int:
        """Block `index` of the prefix that agents with equal (tool_tokens, system_tokens) share."""
        return self._shared_base[key] + index

    def block(self, ordinal: int, block_id: int) -> int:
        """A block of the session at `ordinal` in the file."""
        return self._block_base[ordinal] + block_id

    def tail(self, ordinal: int, serial: int) -> int:
        """The partial block at the end of the session's prompt number `serial`."""
        return self._tail_base[ordinal] + serial


class Speller:
    """Spells numbers as block text of `chars` characters. Another seed, another alphabet order, and so other text."""

    def __init__(self, chars: int, seed: int) -> None:
        letters = list(ALPHABET)
        Random(seed).shuffle(letters)
        self._pairs = [low + high for high in letters for low in letters]
        self._chars = chars
        self._repeat = -(-chars // DIGITS)

    def text(self, number: int) -> str:
        """The block's text. Numbers repeat after 92**4 (71 million); below four characters per block, sooner."""
        pairs = self._pairs
        unit = pairs[number % len(pairs)] + pairs[number // len(pairs) % len(pairs)]
        return unit if self._chars == DIGITS else (unit * self._repeat)[: self._chars]


class Answered:
    """What an agent sent last and what came back: the start of its next prompt, if that one extends it."""

    __slots__ = ("carry", "fixed", "whole_blocks")

    def __init__(self, fixed: str, whole_blocks: int, carry: str) -> None:
        self.fixed = fixed
        self.whole_blocks = whole_blocks
        self.carry = carry


class TaskText:
    """Writes the prompts of one task, step by step, and remembers which blocks have begun with a real answer.

    Use one per run: `prompt` for each step when it is due, then `answered` with the text received (None: failed, or not
    to splice).
    """

    def __init__(self, task: PlannedTask, plan: Plan, numbering: Numbering, speller: Speller) -> None:
        self._task = task
        self._chars = plan.block_chars
        self._numbering = numbering
        self._speller = speller
        self._used: set[int] = set()
        self._spliced: dict[int, str] = {}
        self._last: dict[str, Answered] = {}
        self._serial = 0

    def prompt(self, agent: PlannedAgent, step: PlannedStep) -> str:
        """The prompt of this step, exactly `step.prompt_tokens` characters."""
        last = self._last.get(agent.name)
        fixed, start, carry = "", 0, ""
        if last is not None and step.extends:
            fixed, start, carry = last.fixed, last.whole_blocks, last.carry
        parts = [fixed]
        index = start
        for block_id in _ids_from(step, start):
            if index < step.shared_blocks:
                text, carry = self._speller.text(self._numbering.shared(agent.shared_key, index)), ""
            else:
                text, carry = self._block(block_id, carry)
            parts.append(text)
            index += 1
        self._used.update(_ids_from(step, start))
        whole = "".join(parts)
        tail = self._speller.text(self._numbering.tail(self._task.ordinal, self._serial)) if step.tail_tokens else ""
        self._serial += 1
        tail = (carry + tail[len(carry) :])[: step.tail_tokens]
        # Until it is answered nothing may be spliced after it.
        self._last[agent.name] = Answered(whole, index, "")
        return whole + tail

    def answered(self, agent: PlannedAgent, step: PlannedStep, prompt: str, received: str | None) -> None:
        """The answer to `prompt`; one that is more than an ASCII character for each token cannot be spliced, and is
        dropped.
        """
        if not received or not received.isascii() or len(received) > step.max_tokens:
            return
        last = self._last[agent.name]
        last.carry = prompt[len(last.fixed) :] + received

    def _block(self, block_id: int, carry: str) -> tuple[str, str]:
        """Text of a private block, and what is left of the answer to put into the blocks after it."""
        known = self._spliced.get(block_id)
        if known is not None:
            return known, ""
        own = self._speller.text(self._numbering.block(self._task.ordinal, block_id))
        if not carry or block_id in self._used:
            return own, ""
        chars = self._chars
        text = carry[:chars] + own[len(carry) :]
        self._spliced[block_id] = text
        return text, carry[chars:]


def _ids_from(step: PlannedStep, start: int) -> Iterable[int]:
    """Block ids of the prompt from block `start` on."""
    ranges = []
    for first, count in step.blocks:
        if start < count:
            ranges.append(range(first + start, first + count))
            start = 0
        else:
            start -= count
    return chain.from_iterable(ranges)
