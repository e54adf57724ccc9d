"""What messages are made of: their base, the closed sets of words, and two shared values."""

from typing import Literal

import msgspec

from saga.contract.ids import StepId

MAX_MESSAGE_BYTES = 256 * 1024
MAX_CHAIN_PAGES = 16_384  # of hashes in one message; a longer chain travels with a stride

WaitCause = Literal["none", "inactive", "slot", "home", "no_worker", "retry", "quota"]
RefusalReason = Literal[
    "too_many_waiting", "wait_bound", "unknown_model", "too_large", "stopping", "quota", "too_many_workflows"
]
ReturnReason = Literal["not_first", "client_gone", "expired", "engine_died", "fenced"]
FinishReason = Literal["stop", "length", "tool_calls", "abort", "error", "other"]
ReleaseReason = Literal["paused", "unbound", "dormant", "closed", "moved", "superseded"]
LetGoReason = Literal["", ReleaseReason, "expired", "crowded", "engine_died"]


class Message(msgspec.Struct, frozen=True, kw_only=True, tag=True, tag_field="type", gc=False):
    """Base of every message; the tag is the class name."""


class Tag(msgspec.Struct, frozen=True, order=True, gc=False):
    """Place in the order of service, lowest first. Given by admission."""

    virtual_start_s: float  # of start-time fair queueing: modelled engine-seconds per unit of weight
    order: float  # inside the tenant: when its workflow was submitted, seconds on admission's clock
    tie: StepId = StepId("")


class CostModel(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """Marginal engine-seconds of a step on an otherwise busy engine; from its profile. Zero: unknown."""

    prompt_s_per_token: float = 0.0  # per uncached prompt token
    output_s_per_token: float = 0.0  # per generated token, weights shared with the rest of the batch
    context_s_per_token: float = 0.0  # per generated token and token of context

    def step_s(self, prompt_tokens: int, cached_tokens: int, output_tokens: float) -> float:
        """Modelled marginal engine-seconds of a step with this many prompt tokens cached."""
        prefill_s = (prompt_tokens - cached_tokens) * self.prompt_s_per_token
        return prefill_s + output_tokens * (self.output_s_per_token + prompt_tokens * self.context_s_per_token)
