"""The hit rate of an infinite cache over exactly what was sent: the ceiling no engine beats, and the base of
"regenerated".

Sequences are split into pages; a page counts as cached if it was computed before after the very same pages, in any
session. The last token is always computed, as in SGLang. Not a simulation of an engine: nothing is ever evicted here.
Called by replay for each step, and for the recorded blocks of a plan (a page is a block there).
"""

from collections.abc import Hashable, Sequence

from saga.load.plan import Plan


class Chain:
    """Pages of one agent's last sequence and their chained keys, so that only what is new is hashed again."""

    __slots__ = ("keys", "pages")

    def __init__(self) -> None:
        self.pages: list[Hashable] = []
        self.keys: list[int] = []

    def follow(self, pages: Sequence[Hashable]) -> list[int]:
        """Keys of `pages`, each a function of its page and all before it. In-process keys: 64 bits, not SGLang's
        hashes.
        """
        old = self.pages
        same = 0
        for left, right in zip(old, pages, strict=False):
            if left != right:
                break
            same += 1
        keys = self.keys[:same]
        key = keys[-1] if keys else 0
        for page in pages[same:]:
            key = hash((key, page))
            keys.append(key)
        self.pages, self.keys = list(pages), keys
        return keys


class InfiniteCache:
    """All pages ever computed. Call `cached_tokens` when a step is first answered, `insert` for what it then leaves
    behind.
    """

    def __init__(self, page_tokens: int) -> None:
        self._page_tokens = page_tokens
        self._known: set[int] = set()

    def cached_tokens(self, chain: Chain, prompt: str) -> int:
        """Tokens of the prompt an infinite cache holds now (whole pages, never the last token); the prompt is then held
        too.
        """
        keys = chain.follow(_pages(prompt, self._page_tokens))
        usable = (len(prompt) - 1) // self._page_tokens
        hits = _leading(self._known, keys, usable)
        self._known.update(keys)
        return hits * self._page_tokens

    def insert(self, chain: Chain, sequence: str) -> None:
        """Prompt and answer of a finished step; the last token of an answer was never fed back, so it is not in the
        cache.
        """
        self._known.update(chain.follow(_pages(sequence[:-1], self._page_tokens)))


def recorded_ideal(plan: Plan) -> float:
    """Token-weighted hit rate of an infinite cache over the recorded blocks alone: no answers, no sharing between
    sessions.
    """
    cached = total = 0
    for task in plan.tasks:
        known: set[int] = set()
        for agent in task.agents:
            chain = Chain()
            for step in agent.steps:
                pages = [block for first, count in step.blocks for block in range(first, first + count)]
                keys = chain.follow(pages)
                cached += _leading(known, keys, len(keys)) * plan.block_tokens
                total += step.recorded_input_tokens
                known.update(keys)
    return cached / total if total else 0.0


def _pages(text: str, page_tokens: int) -> list[Hashable]:
    whole = len(text) // page_tokens * page_tokens
    return [text[at : at + page_tokens] for at in range(0, whole, page_tokens)]


def _leading(known: set[int], keys: Sequence[int], limit: int) -> int:
    """How many of the first `limit` keys are known. A chained key is known only if all before it are, so bisection
    finds it.
    """
    low, high = 0, min(limit, len(keys))
    while low < high:
        middle = (low + high) // 2
        if keys[middle] in known:
            low = middle + 1
        else:
            high = middle
    return low
