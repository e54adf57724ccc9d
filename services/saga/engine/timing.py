"""How long one iteration takes: the larger of its compute and its memory traffic, plus a fixed overhead.

A roofline with efficiency factors, not a trace of a GPU: chunked prefill and decode run together, so compute and memory
time overlap. Called by EngineCore for each iteration; must stay a few operations.
"""

from saga.engine.profile import Profile


class IterationTimer:
    """Seconds per iteration of one profile."""

    __slots__ = ("_experts", "_kv_s", "_overhead_s", "_pair_s", "_profile", "_token_s", "_weights_s")

    def __init__(self, profile: Profile) -> None:
        flops_per_s = profile.peak_flops * profile.mfu
        bytes_per_s = profile.mem_bytes_per_s * profile.mbu
        self._profile = profile
        self._token_s = profile.flops_per_token / flops_per_s
        self._pair_s = profile.attention_flops_per_pair / flops_per_s
        self._weights_s = profile.weight_bytes / bytes_per_s
        self._kv_s = profile.kv_bytes_per_token / bytes_per_s
        self._overhead_s = profile.overhead_s
        self._experts = profile.experts > profile.experts_per_token

    def iteration_s(self, tokens: int, pairs: float, context_tokens: int) -> float:
        """Seconds for `tokens` new tokens, prefill and decode.

        They attend to `pairs` (token, earlier token) pairs while `context_tokens` tokens of KV are read.
        """
        compute_s = tokens * self._token_s + pairs * self._pair_s
        weights_s = self._weights_s
        if self._experts:
            weights_s *= self._profile.weight_bytes_read(tokens) / self._profile.weight_bytes
        memory_s = weights_s + context_tokens * self._kv_s
        return max(compute_s, memory_s) + self._overhead_s


def prefill_pairs(start: int, tokens: int) -> float:
    """(token, earlier token) pairs of a prefill chunk of `tokens` tokens after `start` cached or computed ones."""
    return tokens * start + tokens * (tokens + 1) / 2
