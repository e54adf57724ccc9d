"""How much KV a new request may count on: SGLang's estimate of what running ones will still need.

It expects each running request to use `ratio` of the tokens it may still produce. The ratio starts high, sinks while
decode goes well and jumps up at a retraction. Called by Batch.
"""

from typing import Final

from saga.engine.decoding import Decoding
from saga.engine.request import EngineRequest

# SGLang: SGLANG_INIT_NEW_TOKEN_RATIO, SGLANG_MIN_NEW_TOKEN_RATIO_FACTOR, SGLANG_NEW_TOKEN_RATIO_DECAY_STEPS,
# SGLANG_RETRACT_DECODE_STEPS, SGLANG_CLIP_MAX_NEW_TOKENS_ESTIMATION.
_INITIAL_RATIO: Final = 0.7
_LEAST_RATIO: Final = 0.7 * 0.14
_DECAY_PER_ITERATION: Final = (_INITIAL_RATIO - _LEAST_RATIO) / 600
_RETRACT_AHEAD_TOKENS: Final = 20
_CLIP_NEW_TOKENS: Final = 4096


class NewTokenEstimate:
    """The estimate and its ratio; `shrink` divides its token constants as it does prompts and answers."""

    def __init__(self, shrink: int) -> None:
        self.ratio = _INITIAL_RATIO
        self._clip_tokens = max(1, _CLIP_NEW_TOKENS // shrink)
        self._ahead_tokens = _RETRACT_AHEAD_TOKENS / shrink

    def new_tokens(self, request: EngineRequest) -> int:
        """Output tokens that a request is taken to want when it is admitted."""
        return min(request.left_tokens, self._clip_tokens)

    def reserved_tokens(self, decoding: Decoding) -> float:
        """Tokens that running requests are expected to need still."""
        if decoding.most_new_tokens <= self._clip_tokens:
            return decoding.left_tokens * self.ratio
        return sum(map(self.new_tokens, decoding)) * self.ratio

    def decayed(self, iterations: int) -> None:
        """So many iterations went without a retraction."""
        self.ratio = max(_LEAST_RATIO, self.ratio - iterations * _DECAY_PER_ITERATION)

    def retracted(self, decoding: Decoding) -> None:
        """A request had to give way; `decoding` are those that stay."""
        produced = sum(request.output_tokens for request in decoding)
        allowed = sum(request.max_new_tokens for request in decoding)
        self.ratio = min(1.0, (produced + self._ahead_tokens * len(decoding)) / (allowed + 1))
