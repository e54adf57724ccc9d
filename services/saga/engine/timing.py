"""How long one pass over the model takes: the larger of its compute and its memory traffic, plus a fixed overhead.

A roofline with efficiency factors, not a trace of a GPU: chunked prefill and decode run together, so compute and memory
time overlap. In a shrunk profile a token stands for `shrink` tokens: prefill does the work of all of them in one pass,
decode takes `shrink` passes for one. Called by EngineCore for each iteration; must stay a few operations.
"""

from typing import NamedTuple

from saga.engine.profile import Profile


class IterationLoad(NamedTuple):
    """What an iteration works on, in (shrunk) tokens, and how many passes over the model it takes."""

    prefill_tokens: int = 0
    prefill_pairs: float = 0.0
    """(token, earlier token) pairs that prefill attends to."""
    prefill_context_tokens: int = 0
    """KV read for it."""
    decodes: int = 0
    """Requests that decode."""
    context_tokens: int = 0
    """KV that they attend to."""
    passes: int = 1
    load_s: float = 0.0
    """Load-back from the host tier, layer by layer beside the computation; only together with prefill."""


class IterationTimer:
    """Seconds per pass of one profile."""

    __slots__ = (
        "_decode_pair_s",
        "_decode_token_s",
        "_experts",
        "_kv_s",
        "_overhead_s",
        "_pair_s",
        "_profile",
        "_token_s",
        "_weights_s",
    )

    def __init__(self, profile: Profile) -> None:
        flops_per_s = profile.peak_flops * profile.mfu
        bytes_per_s = profile.mem_bytes_per_s * profile.mbu
        self._profile = profile
        self._token_s = profile.flops_per_token / flops_per_s
        self._pair_s = profile.attention_flops_per_pair / flops_per_s
        self._decode_token_s = self._token_s / profile.shrink
        self._decode_pair_s = self._pair_s / profile.shrink
        self._weights_s = profile.weight_bytes / bytes_per_s
        self._kv_s = profile.kv_bytes_per_token / bytes_per_s
        self._overhead_s = profile.overhead_s
        self._experts = profile.experts > profile.experts_per_token

    def iteration_s(self, load: IterationLoad) -> float:
        """Seconds of a whole iteration."""
        if not load.prefill_tokens:
            return load.passes * self.decode_pass_s(load.decodes, load.context_tokens)
        compute_s = (
            load.prefill_tokens * self._token_s
            + load.prefill_pairs * self._pair_s
            + load.decodes * self._decode_token_s
            + load.context_tokens * self._decode_pair_s
        )
        memory_s = self._read_s(
            load.prefill_tokens * self._profile.shrink + load.decodes, load.context_tokens + load.prefill_context_tokens
        )
        return load.passes * (max(compute_s, memory_s, load.load_s) + self._overhead_s)

    def decode_pass_s(self, decodes: int, context_tokens: int) -> float:
        """Seconds of one pass that only decodes."""
        compute_s = decodes * self._decode_token_s + context_tokens * self._decode_pair_s
        return max(compute_s, self._read_s(decodes, context_tokens)) + self._overhead_s

    def decode_ends(self, load: IterationLoad, end_s: float, more: int) -> list[float]:
        """Ends of consecutive iterations that only decode: of `load`, at `end_s`, and of `more` after it.

        Each attends to a token more per request than the last. The sums are those of `iteration_s`, one by one.
        """
        decodes, passes, context_tokens = load.decodes, load.passes, load.context_tokens
        overhead_s, pair_s, kv_s = self._overhead_s, self._decode_pair_s, self._kv_s
        token_s = decodes * self._decode_token_s
        weights_s = self._read_s(decodes, 0)
        ends = [end_s]
        for _ in range(more):
            context_tokens += decodes
            compute_s = token_s + context_tokens * pair_s
            pass_s = weights_s + context_tokens * kv_s
            if compute_s > pass_s:  # noqa: PLR1730 - a call of max() would double the time of this loop
                pass_s = compute_s
            end_s += passes * (pass_s + overhead_s)
            ends.append(end_s)
        return ends

    def _read_s(self, tokens: int, context_tokens: int) -> float:
        weights_s = self._weights_s
        if self._experts:
            weights_s *= self._profile.weight_bytes_read(tokens) / self._profile.weight_bytes
        return weights_s + context_tokens * self._kv_s


def prefill_pairs(start: int, tokens: int) -> float:
    """(token, earlier token) pairs of a prefill chunk of `tokens` tokens after `start` cached or computed ones."""
    return tokens * start + tokens * (tokens + 1) / 2
