"""How long answers are, learnt from those that ended: what a step is charged for, and what KV is set aside for it.

A client's limit says little: most send none, or one far above what their answers need.
"""

from math import ceil

FIRST_MEAN_TOKENS = 256.0
FIRST_WORTH = 4  # answers that the first mean counts for
MEAN_WEIGHT = 0.02  # of one answer in the moving mean, once there are fifty
CLAIM_MEANS = 2.0  # how many means are set aside for one answer


class OutputLengths:
    """Answers of one pool."""

    __slots__ = ("mean_tokens", "seen")

    def __init__(self) -> None:
        self.mean_tokens = FIRST_MEAN_TOKENS
        self.seen = FIRST_WORTH

    def learn(self, output_tokens: int) -> None:
        """An answer has ended."""
        self.seen += 1
        self.mean_tokens += max(MEAN_WEIGHT, 1.0 / self.seen) * (output_tokens - self.mean_tokens)

    def expected_tokens(self, max_output_tokens: int) -> float:
        """Of an answer with this limit."""
        return min(max_output_tokens, self.mean_tokens)

    def claim_tokens(self, max_output_tokens: int) -> int:
        """KV to set aside for it."""
        return min(max_output_tokens, ceil(CLAIM_MEANS * self.mean_tokens))
