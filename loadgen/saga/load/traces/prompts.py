"""Prompts as runs of block ids: what two have in common, and ids for formats that count tokens and keep no content.

Called by the readers and writers, the planner and the simulation.
"""

from collections.abc import Iterator, Sequence

from saga.load.traces.session import Run, Step

BLOCK_TOKENS = 64  # as the recorded sessions'


class Prompts:
    """Prompts of one session, one after another."""

    def __init__(self, block_tokens: int = BLOCK_TOKENS) -> None:
        self._block_tokens = block_tokens
        self._next_id = 0
        self._runs: tuple[Run, ...] = ()
        self._tokens = 0

    def next(self, kept_tokens: int, tokens: int) -> tuple[Run, ...]:
        """Blocks of a prompt of `tokens` that begins with `kept_tokens` of the last one; the rest is new content."""
        kept = min(kept_tokens, self._tokens, tokens) // self._block_tokens
        new = tokens // self._block_tokens - kept
        runs = list(leading(self._runs, kept))
        if new:
            if runs and sum(runs[-1]) == self._next_id:
                runs[-1] = (runs[-1][0], runs[-1][1] + new)
            else:
                runs.append((self._next_id, new))
            self._next_id += new
        self._runs, self._tokens = tuple(runs), tokens
        return self._runs


def kept_tokens(before: Step, step: Step, block_tokens: int) -> int:
    """How much of the prompt and answer of `before` the prompt of `step` begins with, as far as blocks tell.

    An answer has no blocks: it counts as kept where the prompt has all whole blocks of the last one and room for it.
    Else whole blocks are counted.
    """
    common = common_blocks(before.blocks, step.blocks)
    sequence_tokens = before.input_tokens + before.output_tokens
    if common == before.input_tokens // block_tokens and step.input_tokens >= sequence_tokens:
        return sequence_tokens
    return common * block_tokens


def leading(runs: Sequence[Run], count: int) -> Iterator[Run]:
    """Runs of the first `count` blocks."""
    left = count
    for first, length in runs:
        if left <= 0:
            return
        yield first, min(length, left)
        left -= length


def following(runs: Sequence[Run], start: int) -> Iterator[Run]:
    """Runs of the blocks from the `start`-th on."""
    skip = start
    for first, length in runs:
        if skip < length:
            yield first + skip, length - skip
        skip = max(0, skip - length)


def as_runs(ids: Sequence[int]) -> tuple[Run, ...]:
    """Block ids, run-length coded."""
    runs: list[Run] = []
    first = after = -1
    for number in ids:
        if number != after:
            if first >= 0:
                runs.append((first, after - first))
            first = number
        after = number + 1
    if first >= 0:
        runs.append((first, after - first))
    return tuple(runs)


def common_blocks(left: Sequence[Run], right: Sequence[Run]) -> int:
    """How many leading blocks two run-length coded prompts have in common."""
    common = at_left = at_right = used_left = used_right = 0
    while at_left < len(left) and at_right < len(right):
        (left_id, left_count), (right_id, right_count) = left[at_left], right[at_right]
        if left_id + used_left != right_id + used_right:
            break
        span = min(left_count - used_left, right_count - used_right)
        common, used_left, used_right = common + span, used_left + span, used_right + span
        if used_left == left_count:
            at_left, used_left = at_left + 1, 0
        if used_right == right_count:
            at_right, used_right = at_right + 1, 0
    return common
