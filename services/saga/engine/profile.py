"""Physical profiles: one model on one machine, with the constants that its speed and KV capacity follow from.

A profile is data (TOML in `profiles/`, each constant with its source); how long an iteration takes is `timing`.
Called by the engine service, the load generator (capacity, context) and the simulator.
"""

import math
from importlib import resources
from pathlib import Path
from typing import Annotated

import msgspec
from msgspec import Meta

from saga.contract.vocabulary import CostModel

NOMINAL_BATCH = 32
"""Sequences over which `cost_model` spreads the cost of a decode step: a usual batch of long agent contexts."""

Positive = Annotated[float, Meta(gt=0)]
PositiveInt = Annotated[int, Meta(gt=0)]
NotNegative = Annotated[float, Meta(ge=0)]
Fraction = Annotated[float, Meta(gt=0, le=1)]


class UnknownProfileError(ValueError):
    """No such profile, or a profile that cannot be read; the message lists the known ones."""


class Profile(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Constants of one model on one machine; bytes, FLOPs and rates are sums over its GPUs."""

    name: str
    model: str
    context_tokens: PositiveInt
    page_tokens: PositiveInt
    max_running: PositiveInt
    chunk_tokens: PositiveInt
    hbm_bytes: Positive
    weight_bytes: Positive
    kv_bytes_per_token: Positive
    kv_tokens: PositiveInt
    flops_per_token: Positive
    attention_flops_per_pair: Positive
    peak_flops: Positive
    mem_bytes_per_s: Positive
    mfu: Fraction
    mbu: Fraction
    overhead_s: NotNegative
    mean_output_tokens: Positive
    expert_weight_bytes: NotNegative = 0.0
    """Part of `weight_bytes` in routed experts, of which a step reads only those that its tokens choose."""
    experts: PositiveInt = 1
    experts_per_token: PositiveInt = 1
    host_bytes: NotNegative = 0.0
    """This engine's share of the machine's main memory; 0, as for the next four: not stated, so no host KV tier."""
    host_kv_tokens: Annotated[int, Meta(ge=0)] = 0
    """Size of the host KV tier where one is switched on."""
    host_link_bytes_per_s: NotNegative = 0.0
    """Data sheet rate between main memory and the GPUs, one direction."""
    host_bytes_per_s: NotNegative = 0.0
    """What KV copies in one direction reach alone."""
    host_bytes_per_s_both: NotNegative = 0.0
    """What each direction reaches while both are busy."""
    shrink: PositiveInt = 1
    """How many real tokens a token stands for; 1 in every file."""

    @property
    def load_s_per_token(self) -> float:
        """Engine-seconds to load a token's KV back from the host tier, alone on its link; 0 without one."""
        return self.kv_bytes_per_token / self.host_bytes_per_s if self.host_bytes_per_s else 0.0

    @property
    def kv_pages(self) -> int:
        """Whole pages of KV that fit."""
        return self.kv_tokens // self.page_tokens

    def shrunk(self, factor: int) -> "Profile":
        """The profile for prompts and answers `factor` times shorter that take the same time and press KV the same.

        A token then stands for `factor` tokens: capacity in tokens is divided, what one token costs is multiplied
        (attention, with both ends shrunk, by the square), and `timing` takes `factor` decode passes for one token. So
        all rates in tokens per second are divided. Page size stays.
        """
        if factor < 1:
            raise ValueError(f"shrink must be a whole number of at least 1, not {factor}")
        if factor == 1:
            return self
        chunk_tokens = max(self.page_tokens, self.chunk_tokens // factor // self.page_tokens * self.page_tokens)
        return msgspec.structs.replace(
            self,
            context_tokens=max(1, self.context_tokens // factor),
            kv_tokens=max(self.page_tokens, self.kv_tokens // factor),
            host_kv_tokens=self.host_kv_tokens // factor,
            chunk_tokens=chunk_tokens,
            flops_per_token=self.flops_per_token * factor,
            attention_flops_per_pair=self.attention_flops_per_pair * factor**2,
            kv_bytes_per_token=self.kv_bytes_per_token * factor,
            mean_output_tokens=max(1.0, self.mean_output_tokens / factor),
            shrink=self.shrink * factor,
        )

    def with_page_tokens(self, page_tokens: int) -> "Profile":
        """The profile with another page size; the chunk size stays a whole number of pages."""
        chunk_tokens = max(page_tokens, self.chunk_tokens // page_tokens * page_tokens)
        return msgspec.structs.replace(self, page_tokens=page_tokens, chunk_tokens=chunk_tokens)

    def with_kv_tokens(self, kv_tokens: int) -> "Profile":
        """The profile with another KV capacity (a KV bound run takes a very large one)."""
        return msgspec.structs.replace(self, kv_tokens=kv_tokens)

    def weight_bytes_read(self, tokens: float) -> float:
        """Weight bytes that an iteration over `tokens` tokens reads: of the experts only those expected to be chosen.

        Tokens are taken to choose independently and evenly: experts x (1 - (1 - k/E)^tokens) of them are touched.
        """
        if self.experts <= self.experts_per_token:
            return self.weight_bytes
        untouched = math.exp(tokens * math.log1p(-self.experts_per_token / self.experts))
        return self.weight_bytes - self.expert_weight_bytes * untouched

    def cost_model(self) -> CostModel:
        """Marginal modelled engine-seconds per uncached prompt token, output token, output x context token."""
        bytes_per_s = self.mem_bytes_per_s * self.mbu
        prompt_token_s = self.flops_per_token / (self.peak_flops * self.mfu)
        step_s = self.shrink * (self.weight_bytes_read(NOMINAL_BATCH) / bytes_per_s + self.overhead_s)
        return CostModel(
            prompt_s_per_token=prompt_token_s,
            output_s_per_token=max(prompt_token_s, step_s / NOMINAL_BATCH),
            context_s_per_token=self.shrink * self.kv_bytes_per_token / bytes_per_s,
        )


def known_profiles() -> list[str]:
    """Names of the profiles that come with the engine."""
    folder = resources.files("saga.engine") / "profiles"
    return sorted(entry.name.removesuffix(".toml") for entry in folder.iterdir() if entry.name.endswith(".toml"))


def load_profile(name_or_path: str) -> Profile:
    """A profile that comes with the engine, by name, or any TOML file, by a path that ends in .toml.

    Raises UnknownProfileError with the known names, or with what is wrong in the file.
    """
    if name_or_path.endswith(".toml"):
        try:
            text = Path(name_or_path).read_bytes()
        except OSError as error:
            raise UnknownProfileError(f"cannot read profile {name_or_path}: {error.strerror}") from None
    elif name_or_path in known_profiles():
        text = (resources.files("saga.engine") / "profiles" / f"{name_or_path}.toml").read_bytes()
    else:
        known = ", ".join(known_profiles())
        raise UnknownProfileError(f"unknown profile {name_or_path!r}; known: {known}; or a path to a .toml file")
    try:
        return msgspec.toml.decode(text, type=Profile)
    except msgspec.DecodeError as error:
        raise UnknownProfileError(f"profile {name_or_path}: {error}") from None
